"""Which partition a key belongs to: Java's default partitioner for records with a key.

librdkafka's own default differs for most keys, so every producer sets ``partitioner=murmur2_random`` and the engine
checks each input against this function.

Source: Kafka ``Utils.murmur2`` and ``BuiltInPartitioner.partitionForKey`` (Java client); MurmurHash2 by A. Appleby.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

KEYS_CACHED_MAX: Final = 32_768
"""Hashes kept: a hash in Python costs microseconds, a look-up a tenth of one; a worker's busy keys are thousands."""

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """MurmurHash2 of the key as an unsigned 32-bit number."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length != whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=KEYS_CACHED_MAX)
def _positive_hash(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Partition of a record with this key in a topic of so many partitions.

    Args:
        key: the key's bytes; may be empty, never null (records without a key have no fixed partition).
        partitions: partition count of the topic, at least 1.
    """
    return _positive_hash(key) % partitions
