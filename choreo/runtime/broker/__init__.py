"""A real Apache Kafka from nothing but pip: jars by Maven coordinates, the JRE from a wheel, one process on 127.0.0.1.

Theory of operation. ``jars`` finds or downloads the jars of one pinned release and checks them against checksums that
ship with choreo; ``directory`` owns a data directory (one process at a time, formatted once); ``config`` writes the
settings; ``process`` starts the JVM below ``guardian``, a small process that outlives neither of the two; ``node`` is
one Kafka process with its directory, ``broker`` a single one, ``cluster`` three and more. ``tools`` runs Kafka's own
console consumer from the same jars, as a second opinion that shares no code with our clients.

There is no fake here on purpose: a promise about Kafka is only worth something on Kafka. Stand-ins that speak the
protocol were tried and show aborted records to ``read_committed`` readers.
"""

from choreo.runtime.broker.broker import EmbeddedBroker
from choreo.runtime.broker.cluster import EmbeddedCluster
from choreo.runtime.broker.jars import KAFKA_VERSION
from choreo.runtime.broker.node import Node
from choreo.runtime.broker.progress import Progress, terminal_progress

__all__ = ["KAFKA_VERSION", "EmbeddedBroker", "EmbeddedCluster", "Node", "Progress", "terminal_progress"]
