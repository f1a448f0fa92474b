"""Lints about the graph: who hears whom, what goes round in circles, what leads nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.topology.model import Agent
from choreo.topology.rules import Found, View, rule


@rule("CH0120", "warning")
def orphan_topics(view: View) -> Iterator[Found]:
    """Nobody reads or writes a topic.

    Bad::

        topics: {returns: {schema: Scan, key: parcel_id}}

    Good::

        topics: {returns: {schema: Scan, key: parcel_id, ingress: true}}
        agents: {tracker: {reads: [orders, scans, returns]}}
    """
    for name in view.topology.topics:
        if name not in view.readers and name not in view.writers:
            what = f"no agent reads or writes the topic {name!r}"
            yield Found(
                view.at("topics", name), what, "an agent that reads or writes it", "add it to an agent or remove it"
            )


@rule("CH0121", "warning")
def topics_without_writer(view: View) -> Iterator[Found]:
    """Agents read a topic that nobody writes.

    If something outside the topology writes it, say so: ``ingress: true`` (the topic is ours, made by ``choreo apply``)
    or ``external: true`` (it is somebody else's).

    Bad::

        topics: {scans: {ingress: false}}

    Good::

        topics: {scans: {ingress: true}}
    """
    for topic in view.topology.topics.values():
        if topic.name in view.readers and topic.name not in view.writers and not (topic.external or topic.ingress):
            what = f"nobody writes the topic {topic.name!r}"
            hint = "add `ingress: true` if Producer or a connector writes it, `external: true` if it is not yours"
            yield Found(view.at("topics", topic.name), what, "a writer", hint)


@rule("CH0122", "warning")
def unreachable_agents(view: View) -> Iterator[Found]:
    """An agent can never get an event: all its inputs come from agents that wait for one themselves.

    Bad::

        topics:
          questions: {schema: Delay, key: parcel_id}
          answers:   {schema: Delay, key: parcel_id}
        agents:
          asker:    {reads: [answers], writes: [questions], limits: {hops: 4}}
          answerer: {reads: [questions], writes: [answers]}

    Good::

        topics:
          questions: {schema: Delay, key: parcel_id}
          answers:   {schema: Delay, key: parcel_id}
        agents:
          asker:    {reads: [answers, delays], writes: [questions], limits: {hops: 4}}
          answerer: {reads: [questions], writes: [answers]}
    """
    topology = view.topology
    alive = {topic.name for topic in topology.topics.values() if topic.external or topic.ingress}
    alive |= {topic for topic in topology.topics if topic not in view.writers}
    waiting = [agent for agent in topology.agents.values() if agent.reads]
    reached: set[str] = {agent.name for agent in topology.agents.values() if not agent.reads}
    for name in reached:
        alive.update(topology.agents[name].writes)
    queue = [agent for topic in alive for agent in view.readers.get(topic, ())]
    while queue:
        agent = queue.pop()
        if agent.name not in reached:
            reached.add(agent.name)
            queue.extend(reader for topic in agent.writes for reader in view.readers.get(topic, ()))
    for agent in waiting:
        known = any(topic in topology.topics for topic in agent.reads)
        if agent.name not in reached and known:
            what = f"no event can ever reach the agent {agent.name!r}"
            yield Found(
                view.at("agents", agent.name), what, "an input from outside its circle", "read an ingress topic too"
            )


@rule("CH0123")
def cycles_without_hop_limit(view: View) -> Iterator[Found]:
    """Agents form a circle, and none of them says how often an event may go round.

    Each emit adds a hop; an event with more hops than its agent allows becomes a dead letter. In a circle that number
    is a decision, not a default: write ``limits: {hops: N}`` at one agent of the circle.

    Bad::

        topics: {complaints: {schema: Delay, key: parcel_id}}
        agents:
          desk:    {writes: [apologies, complaints]}
          tracker: {reads: [orders, scans, complaints]}

    Good::

        topics: {complaints: {schema: Delay, key: parcel_id}}
        agents:
          desk:    {writes: [apologies, complaints], limits: {hops: 4}}
          tracker: {reads: [orders, scans, complaints]}
    """
    limited = {name for name in view.topology.agents if view.topology.declares("agents", name, "limits", "hops")}
    edges = {
        name: [other for other in following if other not in limited and other != name]
        for name, following in view.successors.items()
        if name not in limited
    }
    for group in _circles(edges):
        if len(group) > 1:
            path = _way_round(group, edges)
            agent = view.topology.agents[path[0]]
            reads = view.topology.agents[path[1]].reads
            index = next(index for index, topic in enumerate(agent.writes) if topic in reads)
            what = f"the agents {' → '.join(path)} form a circle"
            yield Found(view.at("agents", agent.name, "writes", index), what, "a hop limit in it", _hops(agent.name))


def _circles(edges: dict[str, list[str]]) -> list[list[str]]:
    """Groups of agents that can all reach each other (Tarjan's algorithm, without recursion), in file order."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    groups: list[list[str]] = []
    for root in edges:
        if root in order:
            continue
        work = [(root, iter(edges[root]))]
        order[root] = lowest[root] = len(order)
        path.append(root)
        on_path.add(root)
        while work:
            name, rest = work[-1]
            following = next((one for one in rest if one not in order or one in on_path), None)
            if following is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[name])
                if lowest[name] == order[name]:
                    start = path.index(name)
                    groups.append(path[start:])
                    on_path.difference_update(path[start:])
                    del path[start:]
            elif following in order:
                lowest[name] = min(lowest[name], order[following])
            else:
                order[following] = lowest[following] = len(order)
                path.append(following)
                on_path.add(following)
                work.append((following, iter(edges[following])))
    return groups


def _way_round(group: list[str], edges: dict[str, list[str]]) -> list[str]:
    """A shortest way from the first agent of a group back to itself."""
    start, members = group[0], set(group)
    came_from: dict[str, str] = {}
    queue = [start]
    for name in queue:
        for following in edges[name]:
            if following == start:
                path = [start, name]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if following in members and following not in came_from:
                came_from[following] = name
                queue.append(following)
    raise AssertionError("agents of one group reach each other")


@rule("CH0124")
def self_loops_without_hop_limit(view: View) -> Iterator[Found]:
    """An agent writes a topic that it reads, without a hop limit of its own.

    Bad::

        agents: {desk: {writes: [apologies, delays]}}

    Good::

        agents: {desk: {writes: [apologies, delays], limits: {hops: 3}}}
    """
    for agent in view.topology.agents.values():
        own = [topic for topic in agent.writes if topic in agent.reads]
        if own and not view.topology.declares("agents", agent.name, "limits", "hops"):
            index = agent.writes.index(own[0])
            what = f"the agent {agent.name!r} writes {own[0]!r}, which it reads"
            yield Found(view.at("agents", agent.name, "writes", index), what, "a hop limit", _hops(agent.name))


def _hops(agent: str) -> str:
    return f"add to {agent}: `limits: {{hops: 4}}`, or another number of rounds that makes sense"


@rule("CH0125")
def agents_without_input(view: View) -> Iterator[Found]:
    """An agent reads nothing, so it never does anything.

    A plain Faust agent may live on Faust's timers; agents of choreo live on events.

    Bad::

        agents: {idler: {writes: [delays]}}

    Good::

        agents: {idler: {reads: [delays]}}
    """
    for agent in view.topology.agents.values():
        if not agent.reads and agent.kind != "faust":
            what = f"the agent {agent.name!r} reads no topic"
            yield Found(view.at("agents", agent.name), what, "at least one input", "add `reads: […]`")


@rule("CH0126", "warning")
def writing_to_others_topics(view: View) -> Iterator[Found]:
    """An agent writes to an external topic.

    That is possible, and the other owner has to know: ``choreo apply`` neither creates the topic nor registers its
    schema at a shared registry, and its size limit and partitions may change without notice.

    Bad::

        topics: {mail: {schema: Apology, key: customer, external: true}}
        agents: {desk: {writes: [apologies, mail]}}

    Good::

        topics: {mail: {schema: Apology, key: customer}}
        agents: {desk: {writes: [apologies, mail]}}
    """
    for agent in view.topology.agents.values():
        for index, name in enumerate(agent.writes):
            topic = view.topology.topics.get(name)
            if topic is not None and topic.external:
                what = f"the agent {agent.name!r} writes {name!r}, which belongs to someone else"
                hint = "agree with its owner, or let the owner read a topic of yours"
                yield Found(view.at("agents", agent.name, "writes", index), what, "a topic of this topology", hint)


@rule("CH0127", "warning")
def unused_declarations(view: View) -> Iterator[Found]:
    """A table, a tool or a model is declared and no agent uses it.

    Bad::

        tables: {trucks: {schema: Parcel, key: parcel_id}}

    Good::

        tables: {trucks: {schema: Parcel, key: parcel_id}}
        agents: {desk: {tables: [trucks]}}
    """
    agents: list[Agent] = list(view.topology.agents.values())
    for section, what, declared, used in (
        ("tables", "table", view.topology.tables, {name for agent in agents for name in agent.tables}),
        ("tools", "tool", view.topology.tools, {name for agent in agents for name in agent.tools}),
        ("models", "model", view.topology.models, {agent.model for agent in agents}),
    ):
        for name in declared:
            if name not in used:
                message = f"no agent uses the {what} {name!r}"
                yield Found(view.at(section, name), message, "an agent that uses it", "add it to an agent or remove it")


@rule("CH0128")
def flows_without_path(view: View) -> Iterator[Found]:
    """A flow promises a result, and no chain of agents leads from its beginning to it.

    Bad::

        flows: {told: {from: apologies, to: scans}}

    Good::

        flows: {told: {from: orders, to: apologies}}
    """
    topics = view.topology.topics
    for flow in view.topology.flows.values():
        if flow.source not in topics or flow.to not in topics:
            continue
        seen = {flow.source}
        queue = [flow.source]
        while queue:
            for agent in view.readers.get(queue.pop(), ()):
                new = set(agent.writes) - seen
                seen |= new
                queue.extend(new)
        if flow.to not in seen or (flow.to == flow.source and flow.to not in view.writers):
            what = f"no chain of agents leads from {flow.source!r} to {flow.to!r}"
            yield Found(
                view.at("flows", flow.name, "to"), what, "a path of reads and writes", "correct the flow or the agents"
            )


@rule("CH0129")
def flows_that_contradict_themselves(view: View) -> Iterator[Found]:
    """A flow says both ``exactly`` and ``at_most``, or nothing that could be checked.

    Bad::

        flows: {told: {exactly: 1, at_most: 2}}

    Good::

        flows: {told: {at_most: 2}}
    """
    for flow in view.topology.flows.values():
        if flow.exactly is not None and flow.at_most is not None:
            what = f"the flow {flow.name!r} says both exactly {flow.exactly} and at most {flow.at_most}"
            yield Found(view.at("flows", flow.name, "at_most"), what, "one of the two", "remove one of them")
        elif flow.exactly is None and flow.at_most is None and flow.within_ms is None:
            what = f"the flow {flow.name!r} owes nothing"
            yield Found(view.at("flows", flow.name), what, "within, exactly or at_most", "say what the flow owes")
