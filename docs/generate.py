"""Writes the pages that come from tables in the code: `python docs/generate.py`, or `make docs`.

With `--check` nothing is written; the exit code is 1 if a page is stale. The fast tests do the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from choreo.errors import CATALOGUE
from choreo.runtime.settings import SETTINGS
from choreo.topology.pages import fields_page, json_schema_page, lints_page

HERE = Path(__file__).parent
NOTICE = "<!-- Written by docs/generate.py from the code; edit there. -->\n"
AREAS = {
    "01": ("Topology", "`choreo lint` shows them with line and column; more in [lints.md](lints.md)."),
    "02": ("Schemas and keys", "Undecodable input becomes a dead letter with the original bytes."),
    "03": ("Engine", "What a worker met while it ran; the worker says where, the dead letter says why."),
    "04": ("Effects", "Tool calls."),
    "05": ("Policy", ""),
    "06": ("Models", ""),
    "07": ("Replay and lineage", ""),
    "08": ("Environment", "The machine, the network, settings, the command line."),
}


def errors_page() -> str:
    """docs/errors.md: every code and what it means."""
    lines = [
        NOTICE,
        "# Errors",
        "",
        "Every error is printed as `CODE place: what was seen and expected (what to do)`. The codes are stable:",
        "scripts and alerts may rely on them. With `--json` a failing command also prints",
        '`{"error": {"code", "message", "where", "hint"}}` on stdout.',
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | refused: the error says why |",
        "| 2 | `--check` found drift |",
        "| 64 | the command line was wrong |",
        "| 69 | Kafka cannot be reached |",
        "| 130 | interrupted with Ctrl-C |",
    ]
    for area, (title, remark) in AREAS.items():
        codes = {code: text for code, text in CATALOGUE.items() if code[2:4] == area}
        if codes:
            lines += ["", f"## {title}", ""]
            lines += [remark, ""] if remark else []
            lines += ["| code | meaning |", "|---|---|"]
            lines += [f"| `{code}` | {text} |" for code, text in sorted(codes.items())]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """docs/settings.md: every environment variable."""
    lines = [
        NOTICE,
        "# Settings",
        "",
        "Environment variables of workers and commands. A value that cannot be used is refused with `CH0806`; an empty",
        "one counts as absent. Faust's own variables (`WEB_PORT`, `WEB_BIND`, …) work too, as do its flags.",
        "",
        "| variable | meaning | default |",
        "|---|---|---|",
    ]
    lines += [f"| `{setting.variable}` | {setting.meaning} | {setting.shown} |" for setting in SETTINGS]
    lines += ["", "Durations are a number with a unit: `500ms`, `30s`, `5m`, `2h`, `7d`."]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "errors.md": errors_page,
    "lints.md": lints_page,
    "settings.md": settings_page,
    "topology.md": fields_page,
    "topology.schema.json": json_schema_page,
}


def stale() -> list[str]:
    """Names of pages that differ from what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (HERE / name).is_file() or (HERE / name).read_text("utf-8") != page()
    ]


def main(arguments: list[str]) -> int:
    """Write or check the pages."""
    found = stale()
    if "--check" in arguments:
        sys.stdout.writelines(f"docs/{name} is stale: run `make docs`\n" for name in found)
        return 1 if found else 0
    for name in found:
        (HERE / name).write_text(PAGES[name](), "utf-8")
        sys.stdout.write(f"docs/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
