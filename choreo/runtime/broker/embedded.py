"""What an embedded broker and an embedded cluster have in common for whoever uses them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from choreo.runtime.broker.jars import JarSource, kafka_jars
from choreo.runtime.broker.java import Java, java_runtime
from choreo.runtime.broker.progress import Progress, silent


class Embedded(ABC):
    """Kafka of one release, started on entry and stopped on exit."""

    def __init__(self, version: str, jar_source: JarSource | None, progress: Progress | None) -> None:
        self._version = version
        self._jar_source = jar_source
        self._progress = progress or silent
        self._java: Java | None = None

    @property
    def java(self) -> Java:
        """The JRE and jars of this release, for running Kafka's own tools."""
        if self._java is None:
            jars = kafka_jars(self._version, source=self._jar_source, progress=self._progress)
            self._java = Java(java_runtime(), jars)
        return self._java

    @abstractmethod
    def start(self) -> Self:
        """Start what does not run, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop cleanly and give the data directories back."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
