"""`choreo new`: a working project with two agents and a test."""

from __future__ import annotations

import keyword
import re
import shutil
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from choreo.cli._output import emit_json, json_option
from choreo.errors import HostError

NAME_LENGTH_MAX: Final = 60  # it becomes part of topic names, which Kafka limits to 249 characters
RESERVED: Final = frozenset({"agents", "schemas", "topologies", "tests", "choreo"})


@click.command("new")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Make a project in the new directory NAME: topology, two agents, schemas, test. It passes and runs as it is."""
    folder = Path(name)
    topology = topology_name(folder.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HostError(
            "it exists already and is not empty", where=str(folder), hint="choose another name", fault="user"
        )
    existed = folder.exists()
    try:
        files = write_project(folder, topology)
    except BaseException:
        # half a project helps nobody, and would be in the way of the next attempt
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir()
        raise
    if as_json:
        emit_json({"project": str(folder), "topology": topology, "files": files})
    else:
        click.echo(f"made {folder} with {len(files)} files. Next:\n\n  cd {folder}\n  pytest\n  choreo run")


def topology_name(text: str) -> str:
    """Name of the topology for a project's directory: lower case, underscores.

    Raises:
        HostError: CH0807, it cannot be one.
    """
    name = text.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name in RESERVED:
        raise HostError(
            f"{text!r} cannot be the name of a project: expected letters, digits and dashes, beginning with a letter",
            code="CH0807",
            fault="user",
        )
    if len(name) > NAME_LENGTH_MAX:
        raise HostError(f"the name is longer than {NAME_LENGTH_MAX} characters", code="CH0807", fault="user")
    return name


def write_project(folder: Path, name: str) -> list[str]:
    """Write the files of a new project; returns their paths in it."""
    from choreo.codec.schema import SchemaSet
    from choreo.runtime.builtin_schemas import library_texts
    from choreo.runtime.project import SCHEMAS
    from choreo.runtime.schema_modules import difference, make_same

    words = {"@name@": name, "@dashed@": name.replace("_", "-"), "@version@": version("choreo")}
    _copy(resources.files("choreo.cli").joinpath("_new"), folder, words)
    schemas = folder / SCHEMAS
    texts = {file.name: file.read_text("utf-8") for file in sorted(schemas.glob("*.avsc"))}
    make_same(schemas, difference(schemas, texts, SchemaSet.load(texts, library_texts())))
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _copy(source: Traversable, target: Path, words: dict[str, str]) -> None:
    """Copy a template: `.txt` is dropped from names, words are replaced in names and texts."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        name = _filled(entry.name.removesuffix(".txt"), words)
        if entry.is_dir():
            _copy(entry, target / name, words)
        else:
            (target / name).write_text(_filled(entry.read_text("utf-8"), words), "utf-8")


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
