"""What `lint`, `plan`, `apply` and `graph` share: which file is meant, in which project, with which overlay."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from choreo.runtime.project import Project

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def topology_argument(function: Decorated) -> Decorated:
    """Add the argument ``TOPOLOGY`` and the option ``--profile``, as parameters ``topology`` and ``profile``."""
    profile = click.option("--profile", metavar="NAME", help="Lay x.NAME.yaml over x.yaml. Default: CHOREO_PROFILE.")
    return click.argument("topology", required=False)(profile(function))


def brokers_option(function: Decorated) -> Decorated:
    """Add ``--brokers``."""
    return click.option("--brokers", metavar="HOST:PORT", help="Kafka's address. Default: CHOREO_BROKERS.")(function)


def open_project(*, profile: str | None = None, brokers: str | None = None) -> Project:
    """The project around the working directory; options count as the variables they stand for.

    Raises:
        HostError: CH0804, no project here; CH0806, a bad value.
    """
    from choreo.runtime.project import Project

    environment = dict(os.environ)
    for variable, value in (("CHOREO_PROFILE", profile), ("CHOREO_BROKERS", brokers)):
        if value is not None:
            environment[variable] = value
    return Project.find(environment=environment)
