"""Settings from the environment: one table says name, form, default and meaning of each.

docs/settings.md is generated from the same table. A value that cannot be used is refused with ``CH0806`` when the
settings are read, never later and never silently replaced by the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from choreo.errors import HostError

# 249 is Kafka's limit for topic names and a sane one for ids; the topology's and the agent's names go before it.
INSTANCE_LENGTH_MAX: Final = 100
DURATION_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable.

    Args:
        field: attribute of ``Settings``.
        variable: name in the environment.
        parse: text to value; raises ``ValueError`` with what was expected.
        default: value when the variable is absent or empty.
        shown: the default as people read it.
        meaning: one or two sentences for the documentation.
    """

    field: str
    variable: str
    parse: Callable[[str], Any]
    default: Any
    shown: str
    meaning: str


def _text(value: str) -> str:
    return value


def _brokers(value: str) -> str:
    for address in value.split(","):
        host, separator, port = address.strip().rpartition(":")
        if not (separator and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise ValueError("host:port, several separated by commas")
    return ",".join(address.strip() for address in value.split(","))


def _registry(value: str) -> str:
    if value != "file" and not re.match(r"https?://[^/\s]+", value):
        raise ValueError('"file" or the http(s) URL of a registry')
    return value.rstrip("/")


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) or len(value) > INSTANCE_LENGTH_MAX:
        raise ValueError(f"up to {INSTANCE_LENGTH_MAX} letters, digits, dots, dashes and underscores")
    return value


def duration_ms(value: str) -> int:
    """Milliseconds of a duration such as ``500ms``, ``30s`` or ``5m``; raises ``ValueError``."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", value)
    if match is None:
        raise ValueError("a duration such as 500ms, 30s or 5m")
    return int(match[1]) * DURATION_UNITS_MS[match[2]]


def _between(low: str, high: str) -> Callable[[str], int]:
    """Parser of a duration with bounds."""

    def parse(value: str) -> int:
        milliseconds = duration_ms(value)
        if not duration_ms(low) <= milliseconds <= duration_ms(high):
            raise ValueError(f"a duration from {low} to {high}")
        return milliseconds

    return parse


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "brokers",
        "CHOREO_BROKERS",
        _brokers,
        None,
        "the topology's `cluster.bootstrap`",
        "Bootstrap addresses of the Kafka cluster, `host:port`, several separated by commas.",
    ),
    Setting(
        "topology",
        "CHOREO_TOPOLOGY",
        _text,
        None,
        "the file named in `choreo.App(…)`",
        "Topology file, from the project root. Overrides what the code says.",
    ),
    Setting(
        "profile",
        "CHOREO_PROFILE",
        _name,
        None,
        "no overlay",
        "Lays `x.<profile>.yaml` over `x.yaml`: other brokers, security or limits for one environment.",
    ),
    Setting(
        "schema_registry",
        "CHOREO_SCHEMA_REGISTRY",
        _registry,
        None,
        "the topology's `cluster.schema_registry`",
        "`file` (the committed `schemas/registry.lock.json`) or the URL of a Confluent-compatible registry.",
    ),
    Setting(
        "instance",
        "CHOREO_INSTANCE",
        _name,
        None,
        "a locked slot of this machine",
        "Name of this worker among those of its agent. Give each a stable name of its own (a StatefulSet's pod name): "
        "a worker that restarts under its name takes its partitions back without a rebalance, and the newer of two "
        "with the same name replaces the older.",
    ),
    Setting(
        "state_dir",
        "CHOREO_STATE_DIR",
        _text,
        ".choreo",
        "`.choreo` in the project root",
        "Directory for RocksDB stores, slots of local workers and Faust's own data.",
    ),
    Setting(
        "drain_ms",
        "CHOREO_DRAIN",
        _between("0s", "10m"),
        10_000,
        "`10s`",
        "How long a worker that was told to stop lets started steps finish before it drops them. "
        "What is dropped runs again elsewhere.",
    ),
    Setting(
        "session_ms",
        "CHOREO_SESSION_TIMEOUT",
        _between("1s", "30m"),
        10_000,
        "`10s`",
        "After this long without a heartbeat a worker's partitions go to another.",
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment, parsed. ``None`` where neither variable nor default says anything."""

    brokers: str | None = None
    topology: str | None = None
    profile: str | None = None
    schema_registry: str | None = None
    instance: str | None = None
    state_dir: str = ".choreo"
    drain_ms: int = 10_000
    session_ms: int = 10_000

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings of a process.

        Args:
            environment: variables; those of this process when absent.

        Raises:
            HostError: CH0806, a value cannot be used.
        """
        variables = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            text = variables.get(setting.variable, "").strip()
            try:
                values[setting.field] = setting.parse(text) if text else setting.default
            except ValueError as error:
                _refuse(setting, text, error)
        return cls(**values)


def _refuse(setting: Setting, text: str, error: ValueError) -> NoReturn:
    raise HostError(
        f"{setting.variable} is {text!r}; expected {error}",
        code="CH0806",
        where="environment",
        hint=f"unset it to use {setting.shown.replace('`', '')}",
        fault="user",
    ) from error
