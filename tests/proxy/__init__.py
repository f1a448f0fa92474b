"""Kafka's indefinite errors: a proxy on loopback loses, delays and cuts what clients and broker say to each other.

The proxy is part of the tests and not of ``choreo.testing``. What it proves, that a worker gets over a commit of
unknown end, is a promise of the engine and not of anybody's handlers; and a fault injector that ships has to be kept.
"""
