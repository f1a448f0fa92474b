"""Files that people edit and merge: schemas, the lock file of their ids, cases of tests; and what they type: settings,
JSON and CSV. Each is taken or refused with a coded error that says where.
"""

from __future__ import annotations

import ast
import json
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Final

from choreo.cli._input import csv_records, json_records
from choreo.codec.compat import check as compatibility
from choreo.codec.generate import generate
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, Encoder
from choreo.errors import ChoreoError, DecodeError, HostError, SchemaError
from choreo.kernel.envelope import TIME_MS_MAX, rfc3339
from choreo.runtime.builtin_schemas import builtin_lock, builtin_schemas, library_texts
from choreo.runtime.registry_lock import Lock
from choreo.runtime.settings import SETTINGS, Settings
from choreo.testing import cases
from choreo.testing.clock import START, to_ms
from choreo.topology.nodes import Mapping, read_nodes
from tests.codec.shapes import FLIGHT, FLIGHT_VALUE, NODE, POINT, SCHEMAS, logical, record
from tests.fuzz.changes import TEXT, changing, word_of
from tests.fuzz.target import SECONDS_MAX, Target, plain, promised
from tests.fuzz.targets.avro import project_schemas, valid

ERROR_CHARS_MAX: Final = 20_000


def refused(error: ChoreoError, *codes: str) -> None:
    """An error of these codes and no other, of bounded length."""
    promised(error.code in codes, str(error))
    promised(len(str(error)) <= ERROR_CHARS_MAX, f"an error of {len(str(error))} characters: {str(error)[:300]}")


def text_of(data: bytes) -> str:
    """Text as it comes out of a file that is UTF-8; JSON can still hold halves of characters."""
    return data.decode("utf-8", errors="replace")


# -- schemas -----------------------------------------------------------------------------------------------------------


def check_avsc(data: bytes) -> None:
    """A schema text; what is taken works everywhere that a schema is used."""
    try:
        schemas = SchemaSet.load({"R.avsc": text_of(data)}, library_texts())
    except SchemaError as error:
        refused(error, "CH0202")
        promised(error.where is not None, str(error))
        return
    for schema in schemas:
        check_schema(schema)
    try:
        sources = generate(schemas, schemas.files.values())
    except SchemaError as error:
        refused(error, "CH0208", "CH0202")
        return
    bare = SchemaSet.load({"R.avsc": json.dumps(_undocumented(json.loads(text_of(data))))}, library_texts())
    for name, source in generate(bare, bare.files.values()).items():
        promised(code_of(source) == code_of(sources[name]), "a doc became code")
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        promised(names <= NAMES | defined_in(source), f"the code uses {names - NAMES - defined_in(source)}")


def _undocumented(body: object) -> object:
    """The schema without its docs, which must not change what the classes do."""
    if isinstance(body, list):
        return [_undocumented(one) for one in body]
    if not isinstance(body, dict):
        return body
    kept = ("default", "window")
    return {name: one if name in kept else _undocumented(one) for name, one in body.items() if name != "doc"}


NAMES: Final = frozenset({"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "ClassVar", "Literal"})


def defined_in(source: str) -> set[str]:
    """Names that a generated module imports or defines."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    return found


def code_of(source: str) -> str:
    """A module's syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def check_schema(schema: Schema) -> None:
    promised(Schema.parse(schema.text) == schema, "the text of a schema is another schema")
    compatibility(schema, schema)
    compatibility(schema, FLIGHT)
    message = valid(schema, Random(0))
    try:
        value = Decoder(schema, lambda _: schema).decode(b"\0\0\0\0\1" + message)
    except DecodeError as error:
        promised(False, f"a valid message is refused: {error}")
    else:
        Encoder(1, schema).encode(value)


def avsc_words() -> tuple[bytes, ...]:
    kinds = ("record", "enum", "fixed", "array", "map", "null", "int", "long", "string", "bytes", "double", "error")
    keys = ("type", "name", "namespace", "fields", "items", "values", "symbols", "size", "default", "aliases", "doc")
    more = (
        "logicalType",
        "precision",
        "scale",
        "decimal",
        "uuid",
        "date",
        "timestamp-millis",
        "window",
        "choreo.Window",
    )
    quoted = [json.dumps(word).encode() for word in (*kinds, *keys, *more, "t.R", "t.Node", "R", "class", "_x", "None")]
    docs = (b'\\"\\"\\"', b'\\"' * 200, b"\\\\" * 119, b"x" * 110 + b'\\"\\"\\"', b"\\n")
    windows = (b'"window": {"kind": "sliding", "size": "5m", "every": "30s"}', b'"every": "30s",', b'"late":', b"NaN")
    marks = (
        *docs,
        *windows,
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"1001",
        b"2147483648",
        b'"default":',
        b'"default": null,',
        b"1e400",
    )
    return (*TEXT, *quoted, *quoted, *marks)


def avsc_seeds() -> tuple[bytes, ...]:
    small = [record("R", ("f", json.loads(one.text)["fields"][0]["type"])).text for one in SCHEMAS.values()]
    defaults = record(
        "D", ("d", logical("bytes", "decimal", precision=4, scale=2), "}"), ("p", POINT, {"x": 1, "y": 2})
    )
    windowed = {"name": "w", "type": "choreo.Window", "window": {"kind": "tumbling", "size": "5m", "late": "1m"}}
    row = json.dumps({"type": "record", "name": "t.Row", "fields": [{"name": "k", "type": "string"}, windowed]})
    texts = [row, *(one.text for one in (*builtin_schemas(), *project_schemas()[:6], FLIGHT, defaults))]
    return tuple(text.encode() for text in (*small, *texts, json.dumps(NODE, indent=1)))


# -- the lock file -----------------------------------------------------------------------------------------------------


def check_lock(data: bytes) -> None:
    try:
        lock = Lock.parse(text_of(data), "registry.lock.json")
    except SchemaError as error:
        refused(error, "CH0205")
        return
    promised(Lock.parse(lock.dump(), "registry.lock.json") == lock, "written and read again, it is another")
    for number in [*list(lock.texts)[:3], 1]:
        try:
            lock.schema(number)
        except SchemaError as error:
            refused(error, "CH0205", "CH0202")
    lock.registered("flights-value", FLIGHT)


@cache
def lock_seeds() -> tuple[bytes, ...]:
    one, _ = Lock().registered("a", record("A", ("a", "string")))
    two, _ = one.registered("a", record("A", ("a", "string"), ("b", "int", 0)))
    three, _ = two.registered("b", record("B", ("b", "int")))
    return (Lock().dump().encode(), one.dump().encode(), three.dump().encode(), builtin_lock().dump().encode()[:6_000])


# -- values: JSON, CSV, cases ------------------------------------------------------------------------------------------


@cache
def wide_schema() -> Schema:
    """A record with a field of every kind."""
    return record(
        "Wide",
        *(
            (name, json.loads(schema.text)["fields"][0]["type"])
            for name, schema in SCHEMAS.items()
            if name not in TWICE
        ),
        ("node", ["null", NODE], None),
    )


# These would define a name twice in one record.
TWICE: Final = frozenset({"optional_record", "union_of_records", "map_of_records", "record", "recursive"})


def check_json(data: bytes) -> None:
    """JSON for ``choreo send``: whole, and line by line as it may also be written."""
    text = text_of(data)
    for schema in (FLIGHT, wide_schema()):
        try:
            records = list(json_records(text, schema, "stdin"))
        except SchemaError as error:
            refused(error, "CH0204")
            continue
        for one in records:
            Encoder(0, schema).encode(one)
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and all(_is_object(line) for line in lines):
            pieces = [one for line in lines for one in json_records(line, schema, "stdin")]
            promised(plain(pieces) == plain(records), "whole and line by line differ")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def check_csv(data: bytes) -> None:
    text = text_of(data)
    try:
        for one in csv_records(text, FLIGHT, "flights.csv"):
            Encoder(0, FLIGHT).encode(one)
    except SchemaError as error:
        refused(error, "CH0204")


def check_case(data: bytes) -> None:
    """A test case's parts: values by schema, durations, moments, answers."""
    root, problems = read_nodes(text_of(data), "x.test.yaml")
    promised((root is None) <= bool(problems), "neither a mapping nor a problem")
    if root is None or problems:
        return
    for node in (root, *(entry.value for entry in root.entries.values())):
        for read in (cases._duration, cases._moment, cases._answer, cases._text):
            try:
                found = read(node)
                if isinstance(found, datetime):
                    promised(0 <= to_ms(found) <= TIME_MS_MAX, "a time that no header can carry")
                elif isinstance(found, timedelta):
                    rfc3339(to_ms(START + found))
            except ChoreoError as error:
                refused(error, "CH0102")
        for schema in (FLIGHT, wide_schema()):
            try:
                if isinstance(node, Mapping):
                    Encoder(0, schema).encode(cases._value(node, schema))
            except ChoreoError as error:
                refused(error, "CH0102", "CH0204")


FLIGHT_JSON: Final = json.dumps({**FLIGHT_VALUE, "at": "2013-01-01T05:17:00Z"})
WIDE_JSON: Final = json.dumps(
    {
        **{"null": None, "boolean": True, "int": 1, "long": -1, "float": 0.5, "double": 1e300, "bytes": "AAEC"},
        **{"string": "é", "enum": "red", "fixed": "AAECAw==", "timestamp_millis": "2013-01-01T05:17:00Z"},
        **{"timestamp_micros": "2013-01-01T05:17:00.000001+05:00", "local_timestamp_micros": "2013-01-01T05:17"},
        **{"date": "2013-01-01", "time_micros": "05:17", "uuid": "c0ffee00-0000-4000-8000-000000000001"},
        **{"decimal_bytes": "12.345", "decimal_fixed": "-1.25", "optional": None, "optional_instant": None},
        **{"union_of_plain": 1.5, "union_of_times": "2013-01-01", "array": [1], "array_of_optional": [None, 1]},
        **{"array_of_doubles": [0.1], "array_of_null": [None], "map": {"a": 1}},
        "node": {"label": "a", "next": {"label": "b", "next": None}, "children": []},
    }
)
DEEP_JSON: Final = WIDE_JSON.replace('"next": null', '"next": ' + '{"label": "c", "next": ' * 12 + "null" + "}" * 12)
JSON_WORDS: Final = (
    *TEXT,
    *(b'"%s":' % name.encode() for name in SCHEMAS),
    *word_of(WIDE_JSON),
    b'{"label":"x","next":' * 90,
)
CSV: Final = (
    b"tail,delay,distance,speed,landed,note,at,colour\nN1,1,2,3.5,yes,,2013-01-01T05:17:00Z,red\nN2,12.0,2,-1,0,x,,\n"
)
CASE: Final = f"""\
cases: {{tail: N1, delay: 1, distance: 2, speed: 3.5, landed: true, note: null, at: 2013-01-01T05:17:00Z, stops: [a]}}
flight: {FLIGHT_JSON}
wide: {WIDE_JSON}
advance: 10m
at: "2013-01-01T10:00:00Z"
answer: [fog, {{error: no such airport}}, 1, 1.5, true, ~]
"""


# Inputs that broke a promise once.
WINDOWED: Final = b'{"type":"record","name":"t.R","fields":[{"name":"w","type":"choreo.Window","window":{%s}}]}'
FOUND_AVSC: Final = (
    WINDOWED % b'"kind=__import__(\'os\').getcwd(), size":"5m"',
    WINDOWED % b'"class":"5m"',
    WINDOWED % b'"size":NaN',
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":"int","window":5}]}',
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":"double","default":NaN}]}',
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":"double","default":-Infinity}]}',
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":"double","default":1e400}]}',
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":' + b"9" * 5_000 + b"}]}",
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":"int","default":' + b"9" * 4_000 + b"}]}",
    b'{"type":"record","name":"t.R","doc":"\\u0000","fields":[{"name":"f","type":"int","doc":"\\u0000 a\\u000cb"}]}',
    b'{"type":"record","name":"t.R","fields":[{"name":"f","type":{"type":"int","logic\\ud800alType":"date"}}]}',
    b'{"type":"record","name":"t.R","doc":"' + b"x" * 110 + b'\\"' * 3 + b'print(1)","fields":[]}',
    b'{"type":"record","name":"t.R","doc":"a\\\\","fields":[]}',
    *(b'{"type":"record","name":"t.R","doc":"' + b'\\"' * count + b'","fields":[]}' for count in (1, 2, 3, 4, 7, 300)),
)
FOUND_LOCK: Final = (
    b'{"format": ' + b"[" * 3_000,
    b'{"format": 1, "schemas": {}, "subjects": {"a": [{"id": 1e400, "version": 1}]}}',
    b'{"format": 1, "schemas": {}, "subjects": {"a": [{"id": NaN, "version": 1}]}}',
)
FOUND_CASES: Final = (
    b"cases: {delay: " + b"9" * 5_000 + b"}",
    b"at: -" + b"9" * 5_000,
    b"at: 0001-01-01T00:00:00+14:00",
    b"at: 9999-12-31T23:59:59-14:00",
    b"at: 1969-12-31T23:59:59Z",
    b"advance: 999999999d",
)
FOUND_JSON: Final = (
    WIDE_JSON.replace('"next": null', '"next": ' + '{"label": "c", "next": ' * 300 + "null" + "}" * 300).encode(),
    WIDE_JSON.replace('"12.345"', '"1e999999999"').encode(),
    WIDE_JSON.replace('"12.345"', '"-1e-999999999"').encode(),
    WIDE_JSON.replace('"é"', '"\\ud800"').encode(),
)
FOUND_CSV: Final = (b"tail,delay\nN1,\x1c1\n", b"tail,delay\nN1," + b"9" * 5_000 + b"\n", "tail,delay\nN1,٣\n".encode())
FOUND_SETTINGS: Final[tuple[bytes, ...]] = ()


# -- settings ----------------------------------------------------------------------------------------------------------


def check_settings(data: bytes) -> None:
    """Values of the environment, one a line, in the order of the table."""
    lines = text_of(data).split("\n")
    variables = {setting.variable: value for setting, value in zip(SETTINGS, lines, strict=False)}
    try:
        found = Settings.read(variables)
    except HostError as error:
        refused(error, "CH0806")
        return
    promised(0 <= found.drain_ms <= 600_000 and 1_000 <= found.session_ms <= 1_800_000, found)


SETTINGS_SEEDS: Final = (
    b"127.0.0.1:9092,b:1\ntopologies/x.yaml\nprod\nfile\nworker-0\n.choreo\n10s\n10s",
    b"\n\n\nhttps://user:secret@registry:8081/apis/ccompat/v7/\n\n\n1m\n30m",
)
SETTINGS_WORDS: Final = (
    *TEXT,
    b":",
    b",",
    b"\n",
    b"ms",
    b"30m",
    b"[::1]:9092",
    b"https://",
    b":65536",
    b":0",
    b"a" * 101,
)


def targets() -> list[Target]:
    json_seeds = (
        FLIGHT_JSON,
        WIDE_JSON,
        DEEP_JSON,
        f"[{FLIGHT_JSON}, {FLIGHT_JSON}]",
        f"{FLIGHT_JSON}\n{FLIGHT_JSON}\n",
    )
    case_words = (*TEXT, *word_of(CASE), b"&a ", b"*a", b": ", b"{", b"}", b"[", b"]", b"9" * 5_000)
    return [
        # a schema is read once; its own bounds (20,000 values) hold before time is spent
        Target("project/avsc", check_avsc, avsc_seeds(), changing(avsc_words()), FOUND_AVSC, seconds_max=0.5),
        Target("project/lock", check_lock, lock_seeds(), changing((*avsc_words(), *LOCK_WORDS)), FOUND_LOCK, 0.5),
        Target("project/cases", check_case, (CASE.encode(),), changing(case_words), FOUND_CASES, seconds_max=0.5),
        Target(
            "send/json", check_json, tuple(one.encode() for one in json_seeds), changing(JSON_WORDS), FOUND_JSON, 0.2
        ),
        Target(
            "send/csv", check_csv, (CSV,), changing((*TEXT, *word_of(CSV.decode()), b",", b'"', b"\n")), FOUND_CSV, 0.2
        ),
        Target("settings", check_settings, SETTINGS_SEEDS, changing(SETTINGS_WORDS), FOUND_SETTINGS, SECONDS_MAX),
    ]


LOCK_WORDS: Final = (
    b'"id":',
    b'"version":',
    b'"schemas":',
    b'"subjects":',
    b'"fingerprint":',
    b'"1000":',
    b"1000",
    b"1e400",
)
