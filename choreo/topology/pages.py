"""Documentation and JSON schema of topology files, made from the field table and the rules. Checked in under docs/."""

from __future__ import annotations

import json
from typing import Final

from choreo.topology import spec
from choreo.topology.example import SCHEMAS, TOPOLOGY
from choreo.topology.fields import ABSENT, Entries, Field, JsonSchema, Section
from choreo.topology.lints import THEMES
from choreo.topology.rules import RULES, Rule

NOTICE: Final = "<!-- Written by docs/generate.py from the code; edit there. -->\n"


def json_schema() -> JsonSchema:
    """JSON schema (draft 2020-12) of a topology file, for editors and for checks in other languages."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "choreo topology",
        "description": "Who reads, writes and remembers what. `choreo lint` checks more than a schema can.",
        **spec.FILE.json_schema(),
    }


def json_schema_page() -> str:
    """docs/topology.schema.json."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def fields_page() -> str:
    """docs/topology.md: every field of the file."""
    lines = [
        NOTICE,
        "# The topology file",
        "",
        "One YAML file says who talks to whom. `choreo lint` checks it, `choreo plan` compares it with a cluster,",
        "`choreo apply` makes the cluster fit. Editors check it as you type with",
        "[topology.schema.json](topology.schema.json); put this on the first line:",
        "",
        "```yaml",
        "# yaml-language-server: $schema=../docs/topology.schema.json",
        "```",
        "",
        "```yaml",
        TOPOLOGY.rstrip(),
        "```",
        "",
        "- Durations are a number with a unit: `500ms`, `30s`, `5m`, `12h`, `7d`.",
        "- `${NAME}` is a variable of the environment, `${NAME:-default}` has a default, `$${` is a literal `${`.",
        "  In `{…}` a value with `${` needs quotes.",
        "- `x.prod.yaml` beside `x.yaml` is its overlay for the profile `prod` (`--profile`, `CHOREO_PROFILE`):",
        "  mappings merge, lists and single values are replaced. Messages point at the line that counts.",
        "- YAML is 1.2: `no` and `off` are text. Anchors and aliases work, merge keys (`<<`) and tags don't.",
    ]
    _section(lines, "The file", spec.FILE, [])
    return "\n".join(lines) + "\n"


def _section(lines: list[str], title: str, section: Section, path: list[str]) -> None:
    lines += ["", f"## {title}", "", "| field | value | default | meaning |", "|---|---|---|---|"]
    lines += [_row(one) for one in section.fields]
    for one in section.fields:
        inner = one.kind.section if isinstance(one.kind, Entries) else one.kind
        if isinstance(inner, Section):
            here = [*path, one.name, *(["NAME"] if isinstance(one.kind, Entries) else [])]
            _section(lines, f"`{'.'.join(here)}`", inner, here)


def _row(one: Field) -> str:
    default = "**required**" if one.required else one.shown_default or _default(one)
    return f"| `{one.name}` | {one.kind.words()} | {default} | {one.doc} |"


def _default(one: Field) -> str:
    if one.default is ABSENT or one.default == "":
        return ""
    if isinstance(one.default, bool):
        return f"`{str(one.default).lower()}`"
    return f"`{one.default}`"


def lints_page() -> str:
    """docs/lints.md: every lint with its examples."""
    lines = [
        NOTICE,
        "# Lints",
        "",
        f"`choreo lint` checks a topology with {len(RULES)} lints; it needs no cluster. Errors end with exit code 1",
        "and keep `plan` and `apply` from starting; warnings say what something costs. The codes are stable.",
        "",
        "What a single field can get wrong (unknown, missing, of the wrong kind) has the codes `CH0101` to `CH0105`:",
        "see [errors.md](errors.md) for those and [topology.md](topology.md) for the fields.",
        "",
        "The examples are fragments laid over this topology, as an overlay would be:",
        "",
        "```yaml",
        TOPOLOGY.rstrip(),
        "```",
        "",
        "<details><summary>Its schemas</summary>",
        "",
        "```json",
        *(text for text in SCHEMAS.values()),
        "```",
        "",
        "</details>",
    ]
    for module, heading in THEMES.items():
        lines += ["", f"## {heading}"]
        for rule in RULES.values():
            if rule.check.__module__ == module.__name__:
                lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> list[str]:
    lines = ["", f"### {rule.code} ({rule.severity})", "", _markdown(rule.title)]
    if rule.why:
        lines += ["", _markdown(rule.why)]
    for caption, fragment in (("Found", rule.bad), ("Right", rule.good)):
        lines += ["", f"{caption}:", "", "```yaml", fragment, "```"]
    return lines


def _markdown(text: str) -> str:
    """Docstrings mark code with two backquotes, Markdown with one."""
    return text.replace("``", "`")
