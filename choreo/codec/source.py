"""From the JSON of `.avsc` texts to one self-contained JSON document per record.

Avro lets a schema use a type that another file defines. Registries, other languages' readers and old data want one
document that stands alone, so every record is *inlined*: a named type is written out where it is first used and named
everywhere else, always with its full name. The inlined text is what is registered and what the fingerprint covers.

Attributes that Avro does not know (``window``, a team's own) are kept; ``doc`` is kept in the text and left out of the
fingerprint, so that a better sentence is not a new version.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn

from choreo.codec.types import LOGICAL, PRIMITIVES
from choreo.errors import SchemaError

# A schema is written by people; the deepest in public collections nest fewer than 20 types. Deeper is a generated bomb.
_NESTING_MAX: Final = 64
# Conversions of decimals are quadratic in their length; 1,000 digits are above any ledger's need and take microseconds.
DECIMAL_PRECISION_MAX: Final = 1_000
WINDOW_NAME: Final = "choreo.Window"
_WINDOW_DEFAULT: Final[Mapping[str, object]] = {"buckets": [], "watermark": -1}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMED: Final = frozenset({"record", "enum", "fixed"})
_ORDER: Final = ("type", "name", "aliases", "doc", "logicalType", "precision", "scale", "default", "symbols", "size")
_LAST: Final = ("items", "values", "fields")
Json = object


class Definition(NamedTuple):
    """A named type as written, with the namespace that surrounds it."""

    file: str
    body: Mapping[str, Json]
    namespace: str


def refuse(message: str, where: str, hint: str | None = None) -> NoReturn:
    """Raises SchemaError CH0202."""
    raise SchemaError(message, code="CH0202", where=where, hint=hint)


def load_json(text: str, file: str) -> Json:
    """The JSON of one text; a key that occurs twice is refused: JSON readers disagree about which one counts."""

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key, value in pairs:
            if key in found:
                refuse(f"the key {key!r} occurs twice in one object", file)
            found[key] = value
        return found

    def finite(number: str) -> float:
        found = float(number)
        if not math.isfinite(found):
            refuse(f"{number} is not a JSON number that a double can hold", file)
        return found

    try:
        loaded: Json = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except json.JSONDecodeError as error:
        refuse(f"not valid JSON: {error.msg}", f"{file}:{error.lineno}:{error.colno}")
    except RecursionError:
        refuse("types are nested too deeply", file)
    except ValueError:  # Python reads integers of up to 4,300 digits
        refuse("a number has thousands of digits", file)
    if "\\u" in text:
        try:
            compact(loaded).encode()
        except UnicodeEncodeError as error:
            refuse(f"not valid Unicode text: half a character ({error.object[error.start]!r})", file)
    return loaded


class Names:
    """Every named type that a set of texts defines."""

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}

    def collect(self, body: Json, namespace: str, file: str, depth: int = 0) -> str | None:
        """Notes the named types in ``body``. Returns the full name if ``body`` itself is one."""
        if depth > _NESTING_MAX:
            refuse(f"types are nested more than {_NESTING_MAX} deep", file)
        if isinstance(body, list):
            for branch in body:
                self.collect(branch, namespace, file, depth + 1)
            return None
        if not isinstance(body, dict):
            return None
        kind = body.get("type")
        if kind == "error":
            refuse("the type 'error' belongs to Avro RPC; write 'record'", file)
        full: str | None = None
        if isinstance(kind, str) and kind in _NAMED:
            full = full_name(body, namespace, file)
            known = self.definitions.get(full)
            if known is not None:
                both = f"{known.file} and {file}" if known.file != file else file
                refuse(f"{full} is defined twice ({both})", file, "keep one definition and refer to it by its name")
            namespace = full.rpartition(".")[0]
            self.definitions[full] = Definition(file, body, namespace)
        elif isinstance(kind, dict | list):
            self.collect(kind, namespace, file, depth + 1)
        for part in ("items", "values"):
            self.collect(body.get(part), namespace, file, depth + 1)
        fields = body.get("fields")
        if isinstance(fields, list):
            for one in fields:
                if isinstance(one, dict):
                    self.collect(one.get("type"), namespace, file, depth + 1)
        return full

    def resolve(self, name: str, namespace: str, where: str) -> str:
        """The full name that ``name`` means inside ``namespace``."""
        if "." not in name and namespace and f"{namespace}.{name}" in self.definitions:
            return f"{namespace}.{name}"
        if name in self.definitions:
            if "." not in name and namespace:
                refuse(
                    f"the type {name!r} has no namespace, so {namespace!r} cannot refer to it",
                    where,
                    "give it a namespace",
                )
            return name
        same_short = [full for full in self.definitions if full.rpartition(".")[2] == name]
        near = same_short or difflib.get_close_matches(name, [*self.definitions, *PRIMITIVES], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "define it in a .avsc file of the same directory"
        refuse(f"no file defines the type {name!r}", where, hint)

    def inlined(self, full: str) -> dict[str, Json]:
        """The definition of ``full`` with everything it uses written out."""
        body = _Inliner(self).named(full)
        assert isinstance(body, dict), "a named type is written out where it is first used"
        return body


def full_name(body: Mapping[str, Json], namespace: str, where: str) -> str:
    """Full name of a named type (Avro specification, section Names)."""
    name = body.get("name")
    if not isinstance(name, str):
        refuse(f"a {body.get('type')} has no name", where)
    own = body.get("namespace", namespace)
    if not isinstance(own, str):
        refuse(f"the namespace of {name!r} is not a string", where)
    full = name if "." in name or not own else f"{own}.{name}"
    for part in full.split("."):
        if not _NAME.fullmatch(part):
            refuse(f"{full!r} is not an Avro name", where, "letters, digits and underscores, not starting with a digit")
    if full in PRIMITIVES or full in _NAMED or full in ("array", "map", "union"):
        refuse(f"{full!r} is a name of Avro itself", where)
    return full


class _Inliner:
    def __init__(self, names: Names) -> None:
        self._names = names
        self._written: set[str] = set()

    def named(self, full: str) -> Json:
        if full in self._written:
            return full
        self._written.add(full)
        definition = self._names.definitions[full]
        body, namespace = definition.body, definition.namespace
        place = f"{definition.file}: {full}"
        out: dict[str, Json] = {"type": body["type"], "name": full}
        aliases = body.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(one, str) for one in aliases):
            refuse("aliases must be a list of names", place)
        if aliases:
            out["aliases"] = [one if "." in one or not namespace else f"{namespace}.{one}" for one in aliases]
        if body["type"] == "record":
            fields = body.get("fields")
            if not isinstance(fields, list):
                refuse(f"the record {full} has no list of fields", place)
            out["fields"] = [self._field(one, full, namespace, definition.file) for one in fields]
            written = [str(one["name"]) for one in out["fields"]]  # type: ignore[attr-defined]
            for name in written:
                if written.count(name) > 1:
                    refuse(f"the field {name!r} occurs twice", place)
        elif body["type"] == "enum":
            _check_enum(body, place)
        else:
            size = body.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                refuse(f"a fixed needs a size in bytes, saw {size!r}", place)
            _check_logical(body, "fixed", place)
        for key, value in body.items():
            if key not in ("type", "name", "namespace", "aliases", "fields"):
                out[key] = value
        return _ordered(out)

    def _field(self, body: Json, record: str, namespace: str, file: str) -> dict[str, Json]:
        if not isinstance(body, dict):
            refuse("a field is a JSON object", f"{file}: {record}")
        name = body.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            refuse(f"{name!r} is not a field name", f"{file}: {record}")
        place = f"{file}: {record}.{name}"
        if "type" not in body:
            refuse("the field has no type", place)
        if "logicalType" in body:
            refuse(
                "logicalType stands beside the field's type, where Avro ignores it",
                place,
                f'write "type": {{"type": {compact(body["type"])}, "logicalType": {compact(body["logicalType"])}}}',
            )
        if not isinstance(body.get("doc", ""), str):
            refuse("doc must be a string", place)
        aliases = body.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(one, str) for one in aliases):
            refuse("aliases must be a list of names", place)
        out = dict(body)
        out["type"] = inlined = self.type(body["type"], namespace, place)
        if _is_window(inlined):
            out.setdefault("default", _WINDOW_DEFAULT)  # a row from before the field gets an empty window
        return _ordered(out, first=("name", "type", "default", "aliases", "doc"))

    def type(self, body: Json, namespace: str, where: str) -> Json:
        if isinstance(body, str):
            return body if body in PRIMITIVES else self.named(self._names.resolve(body, namespace, where))
        if isinstance(body, list):
            return self._union(body, namespace, where)
        if not isinstance(body, dict):
            refuse(f"{body!r:.80} is not an Avro type", where)
        kind = body.get("type")
        if isinstance(kind, dict | list):
            return self.type(kind, namespace, where)
        if not isinstance(kind, str):
            refuse("a type object needs a 'type'", where)
        if kind in _NAMED:
            return self.named(full_name(body, namespace, where))
        if kind in ("array", "map"):
            part = "items" if kind == "array" else "values"
            if part not in body:
                refuse(f"the {kind} has no {part!r}", where)
            rest = {key: value for key, value in body.items() if key not in ("type", part)}
            inner = self.type(body[part], namespace, where)
            _refuse_window(inner, where)
            return _ordered({"type": kind, part: inner, **rest})
        if kind not in PRIMITIVES:
            return self.named(self._names.resolve(kind, namespace, where))
        if len(body) == 1:
            return kind
        _check_logical(body, kind, where)
        return _ordered(dict(body))

    def _union(self, body: list[Json], namespace: str, where: str) -> Json:
        if not body:
            refuse("a union without branches has no value", where)
        branches = [self.type(branch, namespace, where) for branch in body]
        kinds = []
        for branch in branches:
            _refuse_window(branch, where)
            if isinstance(branch, list):
                refuse("a union directly inside a union", where)
            if isinstance(branch, dict):
                kinds.append(branch["name"] if branch["type"] in _NAMED else branch["type"])
            else:
                kinds.append(branch)
        for kind in kinds:
            if kinds.count(kind) > 1:
                refuse(f"the union has two branches of type {kind}", where)
        return branches


def _is_window(inlined: Json) -> bool:
    return inlined == WINDOW_NAME or (isinstance(inlined, dict) and inlined.get("name") == WINDOW_NAME)


def _refuse_window(inlined: Json, where: str) -> None:
    if _is_window(inlined):
        refuse(
            f"{WINDOW_NAME} stands inside another type", where, "make the field itself a window: it is empty at first"
        )


def _check_enum(body: Mapping[str, Json], where: str) -> None:
    symbols = body.get("symbols")
    if not isinstance(symbols, list) or not symbols:
        refuse("an enum needs a list of symbols", where)
    for symbol in symbols:
        if not isinstance(symbol, str) or not _NAME.fullmatch(symbol):
            refuse(f"{symbol!r} is not an enum symbol", where, "letters, digits and underscores")
        if symbols.count(symbol) > 1:
            refuse(f"the enum symbol {symbol!r} occurs twice", where)
    if "default" in body and body["default"] not in symbols:
        refuse(f"the enum's default {body['default']!r} is none of its symbols", where)


def _check_logical(body: Mapping[str, Json], kind: str, where: str) -> None:
    name = body.get("logicalType")
    if not isinstance(name, str) or name not in LOGICAL:
        return
    if kind not in LOGICAL[name]:
        allowed = " or ".join(sorted(LOGICAL[name]))
        refuse(f"the logical type {name} annotates {allowed}, not {kind}", where)
    if name != "decimal":
        return
    precision, scale = body.get("precision"), body.get("scale", 0)
    if not isinstance(precision, int) or isinstance(precision, bool) or not 0 < precision <= DECIMAL_PRECISION_MAX:
        refuse(f"a decimal needs a precision from 1 to {DECIMAL_PRECISION_MAX}, saw {precision!r}", where)
    if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= precision:
        refuse(f"a decimal's scale lies between 0 and its precision {precision}, saw {scale!r}", where)
    size = body.get("size")
    if kind == "fixed" and isinstance(size, int) and 10**precision > 2 ** max(0, 8 * size - 1):
        refuse(f"a decimal of {precision} digits does not fit into {size} bytes", where)


def _ordered(body: dict[str, Json], first: tuple[str, ...] = _ORDER) -> dict[str, Json]:
    """Keys in one fixed order, so that the same schema is always the same text."""
    last = [key for key in _LAST if key in body]
    rest = sorted(key for key in body if key not in first and key not in last)
    return {key: body[key] for key in [*(key for key in first if key in body), *rest, *last]}


def without_docs(body: Json) -> Json:
    """A copy without ``doc``: what the fingerprint covers. Defaults are left alone (they may have a 'doc' key)."""
    if isinstance(body, list):
        return [without_docs(branch) for branch in body]
    if not isinstance(body, dict):
        return body
    out: dict[str, Json] = {}
    for key, value in body.items():
        if key == "doc":
            continue
        if key == "fields" and isinstance(value, list):
            out[key] = [without_docs(one) for one in value]
        elif key in ("type", "items", "values"):
            out[key] = without_docs(value)
        else:
            out[key] = value
    return out


def compact(body: Json) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
