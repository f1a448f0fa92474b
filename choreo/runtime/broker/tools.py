"""Kafka's own console consumer as an independent witness of what our clients wrote.

It is the Java client, it shares no code with librdkafka, and it comes with the broker's jars. Every byte is kept: keys,
values and header values are read as Kafka's ``Bytes``, whose text form escapes all that isn't printable ASCII.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from choreo.errors import HostError
from choreo.runtime.broker.java import Java
from choreo.runtime.broker.process import cause_in

CONSOLE_CONSUMER: Final = "org.apache.kafka.tools.consumer.ConsoleConsumer"
BYTES: Final = "org.apache.kafka.common.serialization.BytesDeserializer"
HEAP_MB: Final = 128
JVM_TIME_S: Final = 60.0  # start and stop of a JVM on a loaded machine, on top of the time to read
BETWEEN_HEADERS: Final = "\x1e"  # cannot appear in escaped bytes
NULL_BYTES: Final = 16  # random, anew for each run: what stands for a null must not be anybody's value


@dataclass(frozen=True)
class ConsoleRecord:
    """One record as the console consumer printed it; ``timestamp`` is its type and its milliseconds."""

    partition: int
    offset: int
    timestamp: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def console_consumer(
    java: Java,
    bootstrap: str,
    topic: str,
    *,
    records_max: int | None = None,
    idle_s: float = 5.0,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    timeout_s: float = 60.0,
) -> list[ConsoleRecord]:
    """Read a topic from its beginning with ``kafka-console-consumer``.

    Args:
        java: JRE and jars, as in :attr:`EmbeddedBroker.java`.
        bootstrap: address of the cluster.
        topic: what to read.
        records_max: stop after so many records.
        idle_s: stop when nothing came for so long.
        isolation: ``read_committed`` leaves out records of aborted and of open transactions.
        timeout_s: longest time for reading.

    Returns:
        The records in the order of reading: in order within a partition, in any order between partitions.

    Raises:
        HostError: CH0801, if the consumer fails or takes too long.
    """
    null = f"null-{secrets.token_hex(NULL_BYTES)}"
    formatter = {
        "print.partition": "true",
        "print.offset": "true",
        "print.timestamp": "true",
        "print.headers": "true",
        "print.key": "true",
        "key.separator": "\\t",
        "headers.separator": "\\u001e",
        "null.literal": null,
        "key.deserializer": BYTES,
        "value.deserializer": BYTES,
        "headers.deserializer": BYTES,
    }
    with tempfile.TemporaryDirectory(prefix="choreo-console-") as folder:
        settings = Path(folder) / "formatter.properties"
        settings.write_text("".join(f"{name}={value}\n" for name, value in formatter.items()), "ascii")
        arguments = [CONSOLE_CONSUMER, "--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning"]
        arguments += ["--isolation-level", isolation, "--timeout-ms", str(round(idle_s * 1000))]
        arguments += ["--formatter-config", str(settings)]
        if records_max is not None:
            arguments += ["--max-messages", str(records_max)]
        try:
            done = subprocess.run(
                java.command(arguments, heap_mb=HEAP_MB, temporary=Path(folder), log_level="off"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s + JVM_TIME_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(
                f"the console consumer was still reading {topic} after {timeout_s:.0f} s", code="CH0801"
            ) from error
    if done.returncode != 0:
        cause = cause_in(done.stderr.decode("utf-8", "replace"))
        raise HostError(f"the console consumer could not read {topic}: {cause}", code="CH0801", where=bootstrap)
    return [_record(line, null) for line in done.stdout.decode("utf-8").split("\n") if line]


def _record(line: str, null: str) -> ConsoleRecord:
    """One line: timestamp, partition, offset, headers, key and value between tabs."""
    timestamp, partition, offset, headers, key, value = line.split("\t")
    return ConsoleRecord(
        partition=int(partition.removeprefix("Partition:")),
        offset=int(offset.removeprefix("Offset:")),
        timestamp=timestamp,
        key=_bytes(key, null),
        value=_bytes(value, null),
        headers=()
        if headers == "NO_HEADERS"
        else tuple(_header(part, null) for part in headers.split(BETWEEN_HEADERS)),
    )


def _header(text: str, null: str) -> tuple[str, bytes | None]:
    name, _, value = text.partition(":")
    return name, _bytes(value, null)


def _bytes(text: str, null: str) -> bytes | None:
    """The bytes that ``org.apache.kafka.common.utils.Bytes.toString`` shows as ``a\\x00``."""
    if text == null:
        return None
    plain = re.sub(r"\\x([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), text)
    return plain.encode("latin-1")
