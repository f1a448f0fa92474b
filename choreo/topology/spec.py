"""Every field of a topology file, described once. Parsing, defaults, JSON schema and docs come from here."""

from __future__ import annotations

from typing import Final

from choreo.topology.fields import Choice, Duration, Entries, Field, Flag, Integer, Names, Section, Settings, Text

FORMAT_VERSION: Final = 1

# Kafka runs some thousand partitions per broker; more than this for one topic is a typing error.
PARTITIONS_MAX: Final = 10_000
# Kafka's replica fetches and our 8 MB bursts have to hold the largest record.
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
# Lanes cost about 10 kB each while they wait; 100,000 of them are a gigabyte.
IN_FLIGHT_MAX: Final = 100_000
# A chain of agents that is longer than this is a loop.
HOPS_MAX: Final = 1_000
RETRIES_MAX: Final = 1_000
DAY_MS: Final = 86_400_000

_IDENTIFIER: Final = Text("a name in snake_case", r"[A-Za-z_][A-Za-z0-9_-]*", "letters, digits and underscores", 100)
_SCHEMA: Final = Text("the name of an Avro record under schemas/", r"[A-Za-z_][A-Za-z0-9_.]*", "such as FlightDeparted")
_PARTITIONS: Final = Integer(1, PARTITIONS_MAX)
_RETENTION: Final = Duration(low_ms=1_000, forever=True)
_MESSAGE_BYTES: Final = Integer(1_024, MESSAGE_BYTES_MAX, "bytes")
_COMPATIBILITY: Final = Choice(("BACKWARD", "FORWARD", "FULL", "NONE"))

CLUSTER: Final = Section(
    "cluster",
    (
        Field(
            "bootstrap",
            Text(
                "host:port, several separated by commas",
                r"[^\s,]+:[0-9]{1,5}(\s*,\s*[^\s,]+:[0-9]{1,5})*",
                "such as localhost:9092",
            ),
            "Addresses of the Kafka cluster. `CHOREO_BROKERS` and `--brokers` override it.",
            unset_ok=True,
        ),
        Field(
            "schema_registry",
            Text('"file" or the URL of a registry', r"file|https?://\S+", "write file or https://…"),
            "`file` (the committed `schemas/registry.lock.json`) or the URL of a Confluent-compatible registry.",
            default="file",
            secret=True,  # an URL may hold a password
            unset_ok=True,
        ),
        Field(
            "security",
            Settings("librdkafka's security settings", ("security.", "sasl.", "ssl.", "enable.ssl.")),
            "How to log in: librdkafka's own settings, such as `security.protocol: SASL_SSL`. "
            "Take secrets from variables.",
            secret=True,
        ),
        Field(
            "replication",
            Integer(1, 15),
            "Replicas of the topics that `choreo apply` creates. With 3 or more, writes wait for 2 of them "
            "(`min.insync.replicas`).",
            shown_default="the cluster's own",
        ),
    ),
)

DEFAULTS: Final = Section(
    "defaults",
    (
        Field("partitions", _PARTITIONS, "Partitions of topics that don't say.", default=4),
        Field("retention", _RETENTION, "Retention of topics that don't say.", default=7 * DAY_MS, shown_default="7d"),
        Field("compatibility", _COMPATIBILITY, "Compatibility of topics that don't say.", default="BACKWARD"),
        Field("message_bytes_max", _MESSAGE_BYTES, "Largest record of topics that don't say.", default=1_048_576),
    ),
)

TOPIC: Final = Section(
    "a topic",
    (
        Field("schema", _SCHEMA, "The Avro record of its events, by short or full name.", required=True),
        Field(
            "key",
            Names("a field of the schema", single=True),
            "Field (or list of fields) that makes the message key: the entity. Events of one entity stay in order.",
            required=True,
        ),
        Field("partitions", _PARTITIONS, "Number of partitions.", shown_default="`defaults.partitions`"),
        Field(
            "retention",
            _RETENTION,
            "How long events are kept. A compacted topic with a retention is compacted *and* emptied.",
            shown_default="`defaults.retention`; forever if compacted",
        ),
        Field("compact", Flag(), "Keep the latest event of each key instead of all for a time.", default=False),
        Field(
            "external",
            Flag(),
            "Owned by someone else: checked, but never created and never changed.",
            default=False,
        ),
        Field(
            "ingress",
            Flag(),
            "Written from outside the topology, through `choreo.Producer`, `choreo send` or a connector.",
            default=False,
        ),
        Field(
            "dedupe",
            Section(
                "dedupe", (Field("window", Duration(low_ms=1), "How long an event id is remembered.", required=True),)
            ),
            "Drop events whose id the entity has seen before.",
            shown_default="off",
        ),
        Field(
            "compatibility",
            _COMPATIBILITY,
            "Which changes of the schema `choreo plan` lets through.",
            shown_default="`defaults.compatibility`",
        ),
        Field(
            "message_bytes_max",
            _MESSAGE_BYTES,
            "Largest record that the topic takes.",
            shown_default="`defaults.message_bytes_max`",
        ),
    ),
)

TABLE: Final = Section(
    "a table",
    (
        Field("schema", _SCHEMA, "The Avro record of its rows.", required=True),
        Field(
            "key",
            Names("a field of the schema", single=True),
            "Field(s) of the row that name the entity.",
            required=True,
        ),
        Field("store", Choice(("memory", "rocksdb")), "Where workers keep the rows.", default="memory"),
        Field("reference", Flag(), "Read-only and whole in every worker; filled by `choreo load`.", default=False),
        Field(
            "partitions",
            _PARTITIONS,
            "Partitions of a reference table's topic; other tables follow their agent.",
            default=1,
        ),
    ),
)

MODEL: Final = Section(
    "a model",
    (
        Field("provider", Text("the name of a provider"), "Who runs the model.", required=True),
        Field("model", Text("the provider's name of a model"), "Which model."),
        Field("max_tokens", Integer(1, 10_000_000, "tokens"), "Longest answer."),
        Field("budget", Settings("limits to numbers", numbers=True), "What it may cost, such as `usd_per_hour: 5`."),
    ),
)

TOOL: Final = Section(
    "a tool",
    (
        Field("kind", Choice(("python", "http", "sql", "mcp")), "How the tool is run.", default="python"),
        Field(
            "function",
            Text("module:function", r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", 'such as "agents.recovery:rebook"'),
            "The function behind a `python` tool. Its decorator must agree with this entry.",
        ),
        Field(
            "effect",
            Choice(("pure", "read", "idempotent", "readable", "blind")),
            "What calling it twice would do: decides what happens to a call that a crash interrupted.",
            required=True,
        ),
        Field(
            "timeout",
            Duration(low_ms=1, high_ms=DAY_MS),
            "How long a call may take.",
            default=30_000,
            shown_default="30s",
        ),
    ),
)

LIMITS: Final = Section(
    "limits",
    (
        Field(
            "in_flight",
            Integer(1, IN_FLIGHT_MAX, "entities"),
            "Entities that wait for a call at the same time, in one worker.",
            default=256,
        ),
        Field(
            "hops",
            Integer(1, HOPS_MAX, "agents"),
            "Events that went through more agents than this become dead letters.",
            default=16,
        ),
        Field(
            "merge_wait",
            Duration(low_ms=0, high_ms=3_600_000),
            "How long one input waits for another of its partition.",
            default=100,
            shown_default="100ms",
        ),
        Field(
            "retries",
            Integer(0, RETRIES_MAX, "attempts"),
            "Attempts after the first, before a failing step becomes a dead letter.",
            default=5,
        ),
        Field(
            "retry_backoff",
            Duration(low_ms=1, high_ms=3_600_000),
            "First wait before a retry; doubles each time.",
            default=100,
            shown_default="100ms",
        ),
        Field("steps", Integer(1, 10_000), "`react`: rounds of model and tools in one step.", shown_default="none"),
        Field("tokens", Integer(1, 100_000_000, "tokens"), "`react`: tokens of one step.", shown_default="none"),
        Field("deadline", Duration(low_ms=1, high_ms=30 * DAY_MS), "Wall time of one step.", shown_default="none"),
    ),
)

AGENT: Final = Section(
    "an agent",
    (
        Field(
            "app",
            Text("a module such as agents.tracker", r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "such as agents.tracker"),
            "Module that holds the agent's `app`.",
            shown_default="`agents.NAME`",
        ),
        Field(
            "kind",
            Choice(("handlers", "react", "faust")),
            "`handlers`: functions on events. `react`: a model with tools. "
            "`faust`: a plain Faust agent, with Faust's weaker guarantee.",
            default="handlers",
        ),
        Field("start", Choice(("earliest", "latest")), "Where a new agent begins to read.", default="earliest"),
        Field(
            "reads",
            Names("a topic"),
            "Topics whose events it handles. They need the same key and number of partitions.",
            default=(),
            shown_default="none",
        ),
        Field("writes", Names("a topic"), "Topics it may emit to.", default=(), shown_default="none"),
        Field(
            "tables",
            Names("a table"),
            "Tables whose rows it keeps or (reference tables) looks up.",
            default=(),
            shown_default="none",
        ),
        Field("tools", Names("a tool"), "Tools it may call.", default=(), shown_default="none"),
        Field("limits", LIMITS, "Bounds of its work."),
        Field(
            "audit",
            Choice(("full", "brief", "off")),
            "Decision records: `full`, `brief` (without rows and answers) or `off`.",
            default="full",
        ),
        Field(
            "autonomy",
            Section(
                "autonomy",
                (
                    Field(
                        "level",
                        Choice(("recommend", "controlled", "autonomous")),
                        "Whether actions wait for a person: all, those outside the constraints, or none.",
                        required=True,
                    ),
                    Field(
                        "approve_when",
                        Text("a CEL expression"),
                        "`controlled`: actions for which this is true wait for a person.",
                    ),
                ),
            ),
            "How far it may act on its own.",
        ),
        Field("model", Text("the name of a model under models:"), "`react`: the model it uses."),
        Field("prompt", Text("a path from the project's root"), "`react`: file with its instructions."),
        Field("answer", _SCHEMA, "`react`: the Avro record of its answer."),
        Field("version", Integer(1, 1_000_000_000), "Version of its behaviour, recorded in every decision.", default=1),
    ),
)

FLOW: Final = Section(
    "a flow",
    (
        Field("from", Text("the name of a topic"), "Where it begins.", required=True),
        Field("to", Text("the name of a topic"), "Where its result appears.", required=True),
        Field("when", Text("a CEL expression"), "Which events begin it.", shown_default="all"),
        Field("within", Duration(), "How long it may take.", shown_default="no limit"),
        Field("exactly", Integer(0, 1_000_000, "results"), "How many results each beginning has."),
        Field("at_most", Integer(0, 1_000_000, "results"), "How many results each beginning may have."),
    ),
)

FILE: Final = Section(
    "the file",
    (
        Field("choreo", Integer(FORMAT_VERSION, FORMAT_VERSION), "Version of the file format.", required=True),
        Field(
            "topology",
            _IDENTIFIER,
            "Name of the topology; every group and internal topic begins with it.",
            required=True,
        ),
        Field("owner", Text("a team or person"), "Who answers for it.", default="", shown_default="nobody"),
        Field("cluster", CLUSTER, "Where Kafka and the registry are."),
        Field("defaults", DEFAULTS, "What topics have that don't say otherwise."),
        Field("topics", Entries(TOPIC), "Events, by the name of their Kafka topic."),
        Field("tables", Entries(TABLE), "State per entity, by name."),
        Field("models", Entries(MODEL), "Models that agents use."),
        Field("tools", Entries(TOOL), "Tools that agents call."),
        Field("agents", Entries(AGENT), "Who reads, writes and remembers what."),
        Field("flows", Entries(FLOW), "What the choreography as a whole owes."),
    ),
)
