"""Puts one agent's engine together: its code bound to its declaration, the registry, the cluster, the shell."""

from __future__ import annotations

from collections.abc import Callable

from choreo.agent.bindings import bind
from choreo.agent.definition import AgentDefinition
from choreo.agent.runner import AgentRunner
from choreo.runtime.builtin_schemas import builtin_id
from choreo.runtime.classify import classify, guard
from choreo.runtime.facts import ClusterFacts
from choreo.runtime.session import SessionConfig
from choreo.runtime.shell import EngineShell
from choreo.runtime.site import Site
from choreo.runtime.tools import run_call


def assemble(
    site: Site,
    definition: AgentDefinition,
    *,
    instance: str,
    on_failure: Callable[[BaseException], None],
) -> EngineShell:
    """The engine of one worker, not yet started.

    Args:
        site: which agent of which topology.
        definition: its handlers.
        instance: name of this worker among those of the agent.
        on_failure: called from the engine's thread when it ends by itself.

    Raises:
        ChoreoError: code and topology don't fit together, or a schema is not registered.
    """
    project, topology = site.project, site.topology
    schemas = project.schemas()
    bindings = bind(definition, topology, schemas, project.registry(topology, schemas), builtin_id)

    def make_runner(facts: ClusterFacts) -> AgentRunner:
        return AgentRunner(bindings, guard=guard, classify=classify, facts=facts.topics)

    config = SessionConfig(
        topology=topology,
        agent=site.agent,
        bootstrap=project.bootstrap(topology),
        instance=instance,
        state_dir=project.state_dir,
        session_timeout_ms=project.settings.session_ms,
        make_runner=make_runner,
    )
    return EngineShell(config, call=run_call, on_failure=on_failure)
