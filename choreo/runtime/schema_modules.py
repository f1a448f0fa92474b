"""The generated classes on disk: what differs from the `.avsc` files, and making it the same."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from choreo.codec.generate import MARK, generate
from choreo.codec.schema import SchemaSet
from choreo.codec.types import records_of
from choreo.errors import HostError
from choreo.kernel.windows import WindowConfig


class Difference(NamedTuple):
    """What has to change in the directory; file names."""

    changed: dict[str, str]  # new text by file name
    stale: list[str]  # generated modules whose .avsc file is gone
    same: int

    def __bool__(self) -> bool:
        return bool(self.changed or self.stale)


def difference(directory: Path, texts: dict[str, str], schemas: SchemaSet) -> Difference:
    """Compares the generated modules of a directory with what its `.avsc` files say.

    Raises:
        SchemaError: CH0208, a schema that has no Python class; CH0202, a window that cannot be.
        HostError: CH0804, a module of that name was written by hand.
    """
    check_windows(schemas)
    wanted = generate(schemas, texts)
    changed = {}
    for name, text in wanted.items():
        file = directory / name
        current = file.read_text("utf-8") if file.is_file() else None
        if current == text:
            continue
        if current is not None and current.strip() and not _generated(current):
            raise HostError(
                "the file was not generated, so it is not overwritten",
                where=str(file),
                hint="move it elsewhere: this directory holds schemas and their classes",
                fault="user",
            )
        changed[name] = text
    stale = [
        file.name
        for file in sorted(directory.glob("*.py"))
        if file.name not in wanted and _generated(file.read_text("utf-8"))
    ]
    return Difference(changed, stale, len(wanted) - len(changed))


def check_windows(schemas: SchemaSet) -> None:
    """Refuses window fields whose configuration makes no window.

    Raises:
        SchemaError: CH0202 with file, record and field.
    """
    for schema in schemas:
        for record in records_of(schema.root):
            for field in record.fields:
                if field.window is not None:
                    WindowConfig.parse(field.window, f"{schemas.files[record.name]}: {record.name}.{field.name}")


def _generated(text: str) -> bool:
    return MARK.split(";", maxsplit=1)[0] in text[:400]


def make_same(directory: Path, found: Difference) -> None:
    """Writes and deletes what ``found`` names."""
    for name, text in found.changed.items():
        (directory / name).write_text(text, "utf-8")
    for name in found.stale:
        (directory / name).unlink()
