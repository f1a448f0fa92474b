"""Lints about what an agent may do and which promises it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from choreo.topology.rules import Found, View, rule

ACTIONS: Final = frozenset({"idempotent", "readable", "blind"})  # effects on the outside world


@rule("CH0150")
def blind_tools_at_autonomous(view: View) -> Iterator[Found]:
    """An autonomous agent has a blind tool.

    After a crash nobody can tell whether a blind call happened: a person has to settle it. An agent that acts without
    people must not have such tools.

    Bad::

        tools: {refund: {function: "agents.desk:refund", effect: blind}}
        agents: {desk: {tools: [refund], autonomy: {level: autonomous}}}

    Good::

        tools: {refund: {function: "agents.desk:refund", effect: blind}}
        agents: {desk: {tools: [refund], autonomy: {level: recommend}}}
    """
    for agent in view.topology.agents.values():
        if agent.autonomy.get("level") != "autonomous":
            continue
        for index, name in enumerate(agent.tools):
            tool = view.topology.tools.get(name)
            if tool is not None and tool.effect == "blind":
                what = f"the autonomous agent {agent.name!r} has the blind tool {name!r}"
                hint = "give the tool an idempotency key or a reconcile function, or lower the level"
                yield Found(view.at("agents", agent.name, "tools", index), what, "idempotent or readable tools", hint)


@rule("CH0151")
def constraints_that_do_not_match_the_level(view: View) -> Iterator[Found]:
    """``controlled`` without constraints, or constraints at a level that never looks at them.

    Bad::

        agents: {desk: {autonomy: {level: controlled}}}

    Good::

        agents: {desk: {autonomy: {level: controlled, approve_when: "action.euros > 50"}}}
    """
    for agent in view.topology.agents.values():
        level, constraint = agent.autonomy.get("level"), agent.autonomy.get("approve_when")
        if level == "controlled" and constraint is None:
            what = f"{agent.name} is controlled by nothing"
            place = view.at("agents", agent.name, "autonomy")
            yield Found(place, what, "approve_when", "say which actions wait for a person, or choose another level")
        elif level != "controlled" and constraint is not None:
            what = f"{agent.name} has constraints, which the level {level} never looks at"
            place = view.at("agents", agent.name, "autonomy", "approve_when")
            yield Found(place, what, "approve_when with the level controlled", "remove it, or choose controlled")


@rule("CH0152", "warning")
def weaker_guarantee(view: View) -> Iterator[Found]:
    """A plain Faust agent takes part.

    ``kind: faust`` keeps Faust's own guarantee: at least once. A crash may repeat its outputs and leave its tables
    ahead of its input; an exception in a handler skips the event; there are no dead letters, no parking and no
    decision records. Repetitions can be removed by a ``dedupe`` window where they are read.

    Bad::

        agents: {desk: {kind: faust}}

    Good::

        agents: {desk: {kind: handlers}}
    """
    for agent in view.topology.agents.values():
        if agent.kind == "faust":
            what = f"{agent.name} is a plain Faust agent: at least once, without dead letters and decision records"
            place = view.at("agents", agent.name, "kind")
            yield Found(place, what, "kind: handlers for exactly once", "keep it if repetition does no harm")


@rule("CH0153", "warning")
def settings_without_effect_in_faust(view: View) -> Iterator[Found]:
    """A plain Faust agent has settings that only choreo's engine knows.

    Bad::

        agents: {desk: {kind: faust, limits: {retries: 3}}}

    Good::

        agents: {desk: {limits: {retries: 3}}}
    """
    ignored = ("tools", "limits", "audit", "autonomy", "start", "model", "prompt", "answer")
    for agent in view.topology.agents.values():
        for field in ignored:
            if agent.kind == "faust" and view.topology.declares("agents", agent.name, field):
                what = f"`{field}` has no effect on the plain Faust agent {agent.name!r}"
                place = view.at("agents", agent.name, field)
                yield Found(place, what, "settings of kind handlers there only", "remove the line")


@rule("CH0154", "warning")
def no_audit(view: View) -> Iterator[Found]:
    """An agent writes no decision records.

    With ``audit: off`` its decisions cannot be explained later: no inputs, no rows before and after, no causes and
    consequences. ``brief`` leaves out rows and answers and keeps the rest.

    Bad::

        agents: {desk: {audit: off}}

    Good::

        agents: {desk: {audit: brief}}
    """
    for agent in view.topology.agents.values():
        if agent.audit == "off" and agent.kind != "faust":
            what = f"nothing explains what {agent.name} decides"
            place = view.at("agents", agent.name, "audit")
            yield Found(place, what, "audit: full or brief", "use brief if records are too large or rows are private")


@rule("CH0155")
def react_without_its_parts(view: View) -> Iterator[Found]:
    """A ``react`` agent lacks its model, its prompt or its answer.

    Bad::

        agents: {desk: {kind: react}}

    Good::

        models: {writer: {provider: anthropic}}
        agents: {desk: {kind: react, model: writer, prompt: prompts/desk.md, answer: Apology}}
    """
    for agent in view.topology.agents.values():
        parts = {"model": agent.model, "prompt": agent.prompt, "answer": agent.answer}
        missing = [name for name, value in parts.items() if value is None]
        if agent.kind == "react" and missing:
            what = f"the react agent {agent.name!r} has no {' and no '.join(missing)}"
            place = view.at("agents", agent.name, "kind")
            yield Found(place, what, "model, prompt and answer", f"add `{missing[0]}: …`")


@rule("CH0156")
def tools_without_function(view: View) -> Iterator[Found]:
    """A Python tool does not say which function it is.

    Bad::

        tools: {weigh: {effect: read}}
        agents: {desk: {tools: [weigh]}}

    Good::

        tools: {weigh: {function: "agents.desk:weigh", effect: read}}
        agents: {desk: {tools: [weigh]}}
    """
    for tool in view.topology.tools.values():
        if tool.kind == "python" and tool.function is None:
            what = f"the tool {tool.name!r} has no function"
            place = view.at("tools", tool.name)
            yield Found(place, what, "function: module:name", f'add `function: "agents.NAME:{tool.name}"`')


@rule("CH0157", "warning")
def not_run_yet(view: View) -> Iterator[Found]:
    """The file declares something that this version of choreo checks but does not run.

    Agents of kind ``react``, tools of kind ``http``, ``sql`` and ``mcp``, and tools that act on the outside world
    (``idempotent``, ``readable``, ``blind``) are part of the format; a worker refuses to run them.

    Bad::

        tools: {refund: {function: "agents.desk:refund", effect: idempotent}}
        agents: {desk: {tools: [refund]}}

    Good::

        tools: {weigh: {function: "agents.desk:weigh", effect: read}}
        agents: {desk: {tools: [weigh]}}
    """
    for agent in view.topology.agents.values():
        if agent.kind == "react":
            place = view.at("agents", agent.name, "kind")
            yield Found(place, f"{agent.name} is of kind react", "handlers or faust", "keep it for a later version")
    for tool in view.topology.tools.values():
        if tool.kind != "python":
            place = view.at("tools", tool.name, "kind")
            yield Found(place, f"{tool.name} is of kind {tool.kind}", "python", "wrap it in a Python function")
        elif tool.effect in ACTIONS:
            place = view.at("tools", tool.name, "effect")
            what = f"calling {tool.name} has an effect on the outside world ({tool.effect})"
            yield Found(place, what, "pure or read", "emit an event and let a program outside act on it")


@rule("CH0158", "warning")
def plain_replication(view: View) -> Iterator[Found]:
    """Two replicas: less safe than they look.

    With two replicas and the usual settings, writes stop when one broker is away, or are lost with the other. One is
    fine for development, three survive a broker.

    Bad::

        cluster: {replication: 2}

    Good::

        cluster: {replication: 3}
    """
    if view.topology.cluster.replication == 2:
        place = view.at("cluster", "replication")
        yield Found(place, "topics would have 2 replicas", "1 or at least 3", "use 3, or leave it to the cluster")
