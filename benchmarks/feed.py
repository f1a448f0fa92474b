"""Input of the scoring job: payments with the headers that ``choreo.Producer`` writes, made from a seed."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

from confluent_kafka import Producer
from fastavro import schemaless_writer

from benchmarks.raw_loop import prefix, schema_of
from choreo.kernel.envelope import constant_headers
from choreo.kernel.ids import Identity
from choreo.runtime.producer import client_settings, root_headers

FLUSH_S: Final = 60.0
MERCHANTS: Final = tuple(f"merchant-{number:03}" for number in range(500))
CURRENCIES: Final = ("EUR", "USD", "GBP", "JPY")


def accounts(count: int) -> list[str]:
    return [f"account-{number:06}" for number in range(count)]


class PaymentFeed:
    """Writes payments; numbers go on from call to call.

    Args:
        schema_id: of the Avro schema; None writes JSON, for engines that have no Avro.
        keys: number of accounts, each as likely as the others.
    """

    def __init__(
        self, bootstrap: str, topic: str, schema_id: int | None, *, keys: int, seed: int, linger_ms: int = 50
    ) -> None:
        self._topic = topic
        self._accounts = accounts(keys)
        self._keys = [name.encode() for name in self._accounts]
        self._chance = random.Random(f"payments {seed}")
        self._schema: Any = schema_of("Payment")
        self._prefix = None if schema_id is None else prefix(schema_id)
        self._constants = constant_headers(Identity("payments", "producer"), "bench.Payment")
        self.number = 0
        self._refused = 0
        self._sent: Counter[int] = Counter()
        self._client = Producer({**client_settings(bootstrap, {}, None), "linger.ms": linger_ms})

    def write(self, count: int, *, number: int | None = None) -> None:
        """Payments that Kafka has when this returns.

        Args:
            number: of all of them, instead of the next ones.

        Raises:
            RuntimeError: Kafka did not take everything.
        """
        random_below, client = self._chance.randrange, self._client
        for _ in range(count):
            key_number = random_below(len(self._accounts))
            value, headers = self._next(key_number, number)
            while True:
                try:
                    client.produce(
                        self._topic, value, self._keys[key_number], headers=[*headers], on_delivery=self._delivered
                    )
                    break
                except BufferError:
                    client.poll(0.05)
            if self.number % 1_000 == 0:
                client.poll(0)
        self.flush()

    def send_now(self) -> None:
        """Hands one payment to the client; serves delivery reports."""
        key_number = self._chance.randrange(len(self._accounts))
        value, headers = self._next(key_number, None)
        self._client.produce(
            self._topic, value, self._keys[key_number], headers=[*headers], on_delivery=self._delivered
        )
        self._client.poll(0)

    def sent_by_account(self) -> Mapping[str, int]:
        """How many payments of each account were handed over."""
        return {self._accounts[number]: count for number, count in self._sent.items()}

    def flush(self) -> None:
        """
        Raises:
            RuntimeError: Kafka did not take everything.
        """
        if self._client.flush(FLUSH_S) or self._refused:
            raise RuntimeError("Kafka did not take all of the input")

    def _next(self, key_number: int, number: int | None) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        """Value and headers of one more payment."""
        if number is None:
            self.number += 1
        self._sent[key_number] += 1
        payment = {
            "account": self._accounts[key_number],
            "number": self.number if number is None else number,
            "amount_cents": self._chance.randrange(100, 100_000),
            "currency": CURRENCIES[self.number % len(CURRENCIES)],
            "merchant": MERCHANTS[self._chance.randrange(len(MERCHANTS))],
            "card_present": self.number % 3 == 0,
        }
        event_id = f"{self._chance.getrandbits(128):032x}"
        headers = root_headers(self._constants, event_id, self._keys[key_number], datetime.now(UTC))
        return self._encode(payment), headers

    def _encode(self, payment: dict[str, Any]) -> bytes:
        if self._prefix is None:
            return json.dumps(payment).encode()
        out = BytesIO()
        out.write(self._prefix)
        schemaless_writer(out, self._schema, payment)
        return out.getvalue()

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._refused += 1
