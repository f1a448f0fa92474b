"""Input of the scoring job: payments with the headers that ``choreo.Producer`` writes, made from a seed."""

from __future__ import annotations

import random
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
    """Writes payments as fast as it can; numbers go on from call to call."""

    def __init__(self, bootstrap: str, topic: str, schema_id: int, *, keys: int, seed: int) -> None:
        self._topic = topic
        self._accounts = accounts(keys)
        self._keys = [name.encode() for name in self._accounts]
        self._chance = random.Random(f"payments {seed}")
        self._schema: Any = schema_of("Payment")
        self._prefix = prefix(schema_id)
        self._constants = constant_headers(Identity("payments", "producer"), "bench.Payment")
        self._number = 0
        self._refused = 0
        self._client = Producer({**client_settings(bootstrap, {}, None), "linger.ms": 50})

    def write(self, count: int) -> None:
        """Payments that Kafka has when this returns.

        Raises:
            RuntimeError: some were not taken.
        """
        random_below, client = self._chance.randrange, self._client
        for _ in range(count):
            key_number = random_below(len(self._accounts))
            value, headers = self.next(key_number)
            while True:
                try:
                    client.produce(
                        self._topic, value, self._keys[key_number], headers=[*headers], on_delivery=self._delivered
                    )
                    break
                except BufferError:
                    client.poll(0.05)
            if self._number % 1_000 == 0:
                client.poll(0)
        if client.flush(FLUSH_S) or self._refused:
            raise RuntimeError("Kafka did not take all of the input")

    def next(self, key_number: int) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        """Value and headers of one more payment."""
        self._number += 1
        chance = self._chance
        out = BytesIO()
        out.write(self._prefix)
        schemaless_writer(
            out,
            self._schema,
            {
                "account": self._accounts[key_number],
                "number": self._number,
                "amount_cents": chance.randrange(100, 100_000),
                "currency": CURRENCIES[self._number % len(CURRENCIES)],
                "merchant": MERCHANTS[chance.randrange(len(MERCHANTS))],
                "card_present": self._number % 3 == 0,
            },
        )
        event_id = f"{chance.getrandbits(128):032x}"
        return out.getvalue(), root_headers(self._constants, event_id, self._keys[key_number], datetime.now(UTC))

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._refused += 1
