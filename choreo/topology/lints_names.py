"""Lints about names: what does not exist, what reads badly, what collides in Kafka."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from choreo.errors import SchemaError
from choreo.topology import names
from choreo.topology.rules import Found, View, rule

# Kafka's limit for topic names.
TOPIC_CHARS_MAX: Final = 249
# `{topology}.reference.TABLE` and `{topology}.decisions` are choreo's; an agent of that name would share its topics.
RESERVED_AGENTS: Final = frozenset({"reference", "decisions"})

_SNAKE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_DASHED: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@rule("CH0110")
def unknown_topics(view: View) -> Iterator[Found]:
    """An agent or a flow names a topic that is not declared.

    Only declared edges exist; a misspelt one would be an agent that never hears anything.

    Bad::

        agents: {desk: {reads: [delay]}}

    Good::

        agents: {desk: {reads: [delays]}}
    """
    topology = view.topology
    for agent in topology.agents.values():
        for edge, listed in (("reads", agent.reads), ("writes", agent.writes)):
            for index, name in enumerate(listed):
                if name not in topology.topics:
                    place = view.at("agents", agent.name, edge, index)
                    yield view.unknown(name, topology.topics, place, "topic", "topics")
    for flow in topology.flows.values():
        for end, name in (("from", flow.source), ("to", flow.to)):
            if name not in topology.topics:
                yield view.unknown(name, topology.topics, view.at("flows", flow.name, end), "topic", "topics")


@rule("CH0111")
def unknown_tables(view: View) -> Iterator[Found]:
    """An agent names a table that is not declared.

    Bad::

        agents: {tracker: {tables: [parcel]}}

    Good::

        agents: {tracker: {tables: [parcels, depots]}}
    """
    for agent in view.topology.agents.values():
        for index, name in enumerate(agent.tables):
            if name not in view.topology.tables:
                place = view.at("agents", agent.name, "tables", index)
                yield view.unknown(name, view.topology.tables, place, "table", "tables")


@rule("CH0112")
def unknown_tools_and_models(view: View) -> Iterator[Found]:
    """An agent names a tool or a model that is not declared.

    An agent can call exactly its declared tools; everything else is denied.

    Bad::

        agents: {tracker: {tools: [forcast]}}

    Good::

        agents: {tracker: {tools: [forecast]}}
    """
    topology = view.topology
    for agent in topology.agents.values():
        for index, name in enumerate(agent.tools):
            if name not in topology.tools:
                place = view.at("agents", agent.name, "tools", index)
                yield view.unknown(name, topology.tools, place, "tool", "tools")
        if agent.model is not None and agent.model not in topology.models:
            place = view.at("agents", agent.name, "model")
            yield view.unknown(agent.model, topology.models, place, "model", "models")


@rule("CH0113")
def unknown_schemas(view: View) -> Iterator[Found]:
    """A topic, a table or an answer has a schema that no .avsc file defines.

    Bad::

        topics: {delays: {schema: Dealy}}

    Good::

        topics: {delays: {schema: Delay}}
    """
    topology = view.topology
    uses = [("topics", topic.name, "schema", topic.schema) for topic in topology.topics.values()]
    uses += [("tables", table.name, "schema", table.schema) for table in topology.tables.values()]
    uses += [("agents", one.name, "answer", one.answer) for one in topology.agents.values() if one.answer is not None]
    for section, name, field, schema in uses:
        error = view.record(schema)
        if isinstance(error, SchemaError):
            found = view.unknown(schema, view.record_names, view.at(section, name, field), "Avro record", "schemas/")
            yield found._replace(
                message=error.message,
                hint=found.hint if "did you mean" in found.hint else f"add schemas/{schema.rpartition('.')[2]}.avsc",
            )


@rule("CH0114")
def names_in_style(view: View) -> Iterator[Found]:
    """A name is not written the way its kind is.

    Agents, tables, tools, models and flows are snake_case, because they are Python names; topics are lower case with
    dashes, because Kafka takes dots and underscores in metric names for the same. Names of external topics are their
    owners' business.

    Bad::

        topics: {Lost_Parcels: {schema: Delay, key: parcel_id, ingress: true}}
        agents: {desk: {reads: [delays, Lost_Parcels]}}

    Good::

        topics: {lost-parcels: {schema: Delay, key: parcel_id, ingress: true}}
        agents: {desk: {reads: [delays, lost-parcels]}}
    """
    topology = view.topology
    if not _SNAKE.fullmatch(topology.name):
        yield _styled(view, ("topology",), topology.name, "snake_case", _snake(topology.name))
    for section, entries in (
        ("agents", topology.agents),
        ("tables", topology.tables),
        ("tools", topology.tools),
        ("models", topology.models),
        ("flows", topology.flows),
    ):
        for name in entries:
            if not _SNAKE.fullmatch(name):
                yield _styled(view, (section, name), name, "snake_case", _snake(name))
    for topic in topology.topics.values():
        if not topic.external and not _DASHED.fullmatch(topic.name):
            suggested = _snake(topic.name).replace("_", "-")
            yield _styled(view, ("topics", topic.name), topic.name, "lower case with dashes", suggested)


def _styled(view: View, path: tuple[str, ...], name: str, style: str, suggested: str) -> Found:
    return Found(view.at(*path), f"{name!r} is not {style}", style, f"call it {suggested!r}")


def _snake(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_").lstrip("0123456789_") or "name"


@rule("CH0115")
def reserved_names(view: View) -> Iterator[Found]:
    """A name belongs to choreo or to Kafka.

    ``reference`` and ``decisions`` as agents would share topics with choreo's own; topics that begin with the
    topology's name and a dot, or with ``__``, are made by choreo and Kafka themselves.

    Bad::

        topics: {parcels.delays: {schema: Delay, key: parcel_id, external: true}}
        agents: {desk: {reads: [delays, parcels.delays]}}

    Good::

        topics: {depot.delays: {schema: Delay, key: parcel_id, external: true}}
        agents: {desk: {reads: [delays, depot.delays]}}
    """
    topology = view.topology
    for name in topology.agents:
        if name in RESERVED_AGENTS:
            what = f"an agent called {name!r} would write to topics of choreo's own"
            yield Found(view.at("agents", name), what, "another name", f"call it {name + '_agent'!r}")
    prefix = names.decisions(topology.name).rpartition(".")[0] + "."
    for name in topology.topics:
        for start, owner in ((prefix, "this topology's internal topics"), ("__", "Kafka's internal topics")):
            if name.startswith(start):
                what = f"the topic {name!r} has a name of {owner}"
                yield Found(view.at("topics", name), what, f"a name that does not begin with {start!r}", "rename it")
        if name in (".", ".."):
            yield Found(view.at("topics", name), f"Kafka refuses {name!r}", "a name", "rename the topic")


@rule("CH0116")
def colliding_names(view: View) -> Iterator[Found]:
    """Two names become the same name in Kafka.

    Topics, groups and transactional ids have dashes where names have underscores; Kafka's own metrics take ``.`` and
    ``_`` for the same. Two agents under one group would steal each other's events.

    Bad::

        agents:
          help-desk: {reads: [delays]}
          help_desk: {reads: [delays]}

    Good::

        agents:
          help_desk: {reads: [delays]}
          night_desk: {reads: [delays]}
    """
    topology = view.topology
    for section, entries, character in (
        ("agents", list(topology.agents), "-"),
        ("tables", list(topology.tables), "-"),
        ("topics", list(topology.topics), "."),
    ):
        first: dict[str, str] = {}
        for name in entries:
            other = first.setdefault(name.replace("_", character), name)
            if other != name:
                what = f"{name!r} and {other!r} are the same in Kafka"
                yield Found(view.at(section, name), what, "names that differ in more than - _ .", "rename one of them")


@rule("CH0117")
def long_names(view: View) -> Iterator[Found]:
    """An internal topic's name would be longer than Kafka allows (249 characters).

    Internal topics are called ``{topology}.{agent}.changelog.{table}`` and the like.

    Bad::

        topology: parcels_of_all_countries_and_of_all_depots_that_were_ever_built_or_planned_anywhere
        tables:
          everything_that_is_known_about_a_parcel_or_was_known_at_some_time_by_anyone_at_all:
            {schema: Parcel, key: parcel_id}
        agents:
          keeper_of_absolutely_everything_that_anybody_ever_wanted_to_know_about_any_parcel_anywhere:
            reads: [delays]
            tables: [everything_that_is_known_about_a_parcel_or_was_known_at_some_time_by_anyone_at_all]

    Good::

        agents:
          short: {reads: [delays]}
    """
    topology = view.topology
    for agent in topology.agents.values():
        longest = max(
            [names.dead_letters(topology.name, agent.name)]
            + [names.changelog(topology.name, agent.name, table) for table in agent.tables],
            key=len,
        )
        if len(longest) > TOPIC_CHARS_MAX:
            what = f"the topic {longest[:40]}… would have {len(longest)} characters"
            yield Found(view.at("agents", agent.name), what, f"at most {TOPIC_CHARS_MAX}", "shorten the agent's name")


@rule("CH0118")
def shared_modules(view: View) -> Iterator[Found]:
    """Two agents have the same module.

    One module holds one ``app``, and one worker runs one agent.

    Bad::

        agents: {desk: {app: agents.tracker}}

    Good::

        agents: {desk: {app: agents.desk}}
    """
    first: dict[str, str] = {}
    for agent in view.topology.agents.values():
        other = first.setdefault(agent.app, agent.name)
        if other != agent.name:
            what = f"the agents {other!r} and {agent.name!r} both live in {agent.app}"
            yield Found(
                view.at("agents", agent.name, "app"), what, "one module for each agent", "give it its own module"
            )
