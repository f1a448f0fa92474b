"""Where an agent runs: its project, the topology that declares it, and its own declaration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from choreo.errors import TopologyError
from choreo.runtime.project import Project
from choreo.topology import names
from choreo.topology.model import Agent, Topology


@dataclass(frozen=True, slots=True)
class Site:
    """One agent of one topology in one project."""

    project: Project
    topology: Topology
    agent: Agent

    @classmethod
    def load(
        cls,
        path: str | None,
        agent: str,
        *,
        start: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Site:
        """Read the topology of an agent. Reads files; connects to nothing.

        Args:
            path: topology file from the project root; ``CHOREO_TOPOLOGY`` overrides it.
            agent: name under ``agents:``.
            start: where to look for the project, the working directory if absent.
            environment: variables, those of this process if absent.

        Raises:
            TopologyError: the file has errors, or CH0103: it declares no such agent.
            HostError: CH0804, there is no project or no such file.
        """
        project = Project.find(start, environment=environment)
        topology = project.load_topology(project.settings.topology or path)
        return cls(project, topology, declared(topology, agent))

    @property
    def group(self) -> str:
        """Consumer group of the agent."""
        return names.group(self.topology.name, self.agent.name)


def declared(topology: Topology, agent: str) -> Agent:
    """The declaration of an agent; raises ``TopologyError`` CH0103 with the names that exist."""
    found = topology.agents.get(agent)
    if found is not None:
        return found
    near = difflib.get_close_matches(agent, topology.agents, n=1)
    known = ", ".join(topology.agents) or "none"
    raise TopologyError(
        f"the topology declares no agent {agent!r}; it has: {known}",
        code="CH0103",
        where=topology.file,
        hint=f"did you mean {near[0]!r}?" if near else f"add it under agents: as `{agent}: {{app: …, reads: […]}}`",
    )
