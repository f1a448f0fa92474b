"""Which topology on which cluster a command is about: the options and what they open."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from choreo.cli._design import open_project
from choreo.errors import HostError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from choreo.codec.schema import SchemaSet
    from choreo.ports import Registry
    from choreo.runtime.project import Project
    from choreo.topology.model import Agent, Topology

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def target_options(function: Decorated) -> Decorated:
    """Add ``--topology`` and ``--brokers`` to a command."""
    topology = click.option(
        "-t",
        "--topology",
        metavar="FILE",
        help="Topology file or its name. Default: CHOREO_TOPOLOGY, or the project's only one.",
    )
    brokers = click.option("--brokers", metavar="HOST:PORT", help="Kafka's address. Default: CHOREO_BROKERS.")
    return topology(brokers(function))


@dataclass
class Target:
    """A topology of a project and the cluster it runs on. Nothing is connected before it is used."""

    project: Project
    topology: Topology

    @classmethod
    def open(cls, topology: str | None, brokers: str | None) -> Target:
        """What the options mean.

        Raises:
            ChoreoError: no project, no such file, errors in it, or a bad setting.
        """
        project = open_project(brokers=brokers)
        return cls(project, project.load_topology(topology))

    @property
    def bootstrap(self) -> str:
        return self.project.bootstrap(self.topology)

    @property
    def security(self) -> Mapping[str, str]:
        return self.topology.cluster.security

    @cached_property
    def admin(self) -> AdminClient:
        from choreo.runtime.preflight import admin_client

        return admin_client(self.bootstrap, self.security)

    @cached_property
    def registry(self) -> Registry:
        return self.project.registry(self.topology)

    @cached_property
    def schemas(self) -> SchemaSet:
        return self.project.schemas()

    def agent(self, name: str) -> Agent:
        """A declared agent that runs in choreo's engine.

        Raises:
            TopologyError: CH0103, no such agent.
            HostError: CH0809, it is a plain Faust agent.
        """
        from choreo.runtime.site import declared

        agent = declared(self.topology, name)
        if agent.kind == "faust":
            raise HostError(
                f"agent {name} is of kind faust: it has no dead letters, parked events or inbox",
                code="CH0809",
                where=str(agent.position),
                fault="user",
            )
        return agent

    def engine_agents(self) -> list[Agent]:
        """All agents that run in choreo's engine."""
        return [agent for agent in self.topology.agents.values() if agent.kind != "faust"]

    def decoded(self, value: bytes | None) -> dict[str, Any] | None:
        """Value of any message of the topology, read by its own schema; None for a tombstone.

        Raises:
            DecodeError: CH0201, the bytes are not such a message.
        """
        from choreo.codec.wire import Decoder, split

        if value is None:
            return None
        schema_id, _ = split(value)
        schema = self.schema_by_id(schema_id)
        return Decoder(schema, self.schema_by_id).decode(value)

    def schema_by_id(self, schema_id: int) -> Any:
        """A schema of choreo's own or of the registry."""
        from choreo.runtime.builtin_schemas import builtin_lock
        from choreo.runtime.registry_lock import FIRST_USER_ID

        return builtin_lock().schema(schema_id) if schema_id < FIRST_USER_ID else self.registry.schema_by_id(schema_id)


def operator() -> str:
    """Who runs the command, for the record of what was settled."""
    return getpass.getuser()
