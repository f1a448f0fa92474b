"""``plan`` and ``apply`` of a project's topology on a live cluster: inspect, compare, do, look again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import AdminClient

from choreo.apply.execute import OnDone, execute, refusal
from choreo.apply.inspect import inspect
from choreo.codec.schema import SchemaSet
from choreo.errors import HostError, TopologyError
from choreo.ports import Registry
from choreo.runtime.preflight import admin_client, require_listener
from choreo.runtime.project import Project
from choreo.topology.lints import lint
from choreo.topology.model import Topology
from choreo.topology.plan import Plan, plan
from choreo.topology.render import summary

VERIFY_S: Final = 10.0
"""How long nothing may get nearer to the plan. The controller knows a new topic at once, brokers open its logs later:
one on a small machine took a minute and a half for 4,000 topics."""
VERIFY_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Destination:
    """A topology, the cluster it should run on and its registry. Connects when first asked."""

    topology: Topology
    schemas: SchemaSet
    admin: AdminClient
    bootstrap: str
    registry: Registry
    registry_is_ours: bool

    @classmethod
    def open(cls, project: Project, topology: Topology) -> Destination:
        """The place where a topology is to be applied.

        Raises:
            TopologyError: the topology has lint errors; the first's code.
            HostError: CH0801, nobody says where Kafka is.
            SchemaError: CH0202, a schema file is not valid.
        """
        schemas = project.schemas()
        errors = [one for one in lint(topology, schemas) if one.severity == "error"]
        if errors:
            first, *others = errors
            more = "".join(f"\n  {one.code} {one.position}: {one.message}" for one in others)
            message = f"{first.message}{f'; and {len(others)} more:{more}' if others else ''}"
            raise TopologyError(message, code=first.code, where=str(first.position), hint=first.hint)
        bootstrap = project.bootstrap(topology)
        return cls(
            topology,
            schemas,
            admin_client(bootstrap, topology.cluster.security),
            bootstrap,
            project.registry(topology, schemas),
            project.registry_address(topology) == "file",
        )

    def plan(self) -> Plan:
        """What would have to change, as of now.

        Raises:
            HostError: CH0801, no broker answers within 10 s.
            SchemaError: CH0207, the registry does not.
        """
        require_listener(self.bootstrap)
        state = inspect(
            self.topology, self.admin, self.bootstrap, self.registry, registry_is_ours=self.registry_is_ours
        )
        return plan(self.topology, self.schemas, state)

    def apply(self, planned: Plan, on_done: OnDone) -> Plan:
        """Do what a plan says, then look again until the cluster is as the file says.

        Args:
            planned: from ``plan``.
            on_done: called after each change.

        Returns:
            The plan of a second look: without changes.

        Raises:
            TopologyError: CH0106, CH0203 or CH0805, something is refused; nothing was done.
            HostError: CH0801, the cluster went away; CH0805, it refused a change or is still not as the file says.
        """
        execute(planned, self.admin, self.bootstrap, self.registry, on_done)
        after = look_until_done(self.plan)
        if after.refused:
            raise refusal(after.refused)
        if after.drift:
            raise HostError(
                f"the cluster is still not as the file says: {summary(after)}",
                code="CH0805",
                where=self.bootstrap,
                hint="does another program change these topics? `choreo plan` shows what differs",
            )
        return after


def look_until_done(
    look: Callable[[], Plan],
    *,
    now_s: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Plan:
    """The last look: nothing is left to do, or nothing got nearer for ``VERIFY_S``."""
    after = look()
    left, deadline = len(after.changes), now_s() + VERIFY_S
    while after.drift and now_s() < deadline:
        wait(VERIFY_EVERY_S)
        after = look()
        if len(after.changes) < left:
            left, deadline = len(after.changes), now_s() + VERIFY_S
    return after


def apply_topology(project: Project, topology: Topology, *, on_done: OnDone | None = None) -> Plan:
    """Make the cluster ready for a topology: topics, settings, registered schemas. Does nothing where all is ready.

    Args:
        project: where the files are and which cluster is meant.
        topology: what should run.
        on_done: called after each change, for progress.

    Returns:
        The plan that was carried out.

    Raises:
        ChoreoError: as ``Destination.open``, ``Destination.plan`` and ``Destination.apply``.
    """
    destination = Destination.open(project, topology)
    planned = destination.plan()
    if planned.drift:
        destination.apply(planned, on_done or (lambda change: None))
    return planned
