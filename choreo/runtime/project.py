"""A user's project: where its files are, its topologies and schemas as values.

The one place that reads topology and schema files. A project is a directory with ``topologies/``, ``schemas/`` and
``agents/`` (this repository has the same shape); it is found by going up from the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from choreo.codec.schema import Schema, SchemaSet
from choreo.errors import HostError, TopologyError
from choreo.ports import Registry
from choreo.runtime.builtin_schemas import library_texts
from choreo.runtime.registry_choice import open_registry
from choreo.runtime.settings import Settings
from choreo.topology.model import Topology
from choreo.topology.parse import Parsed, parse
from choreo.topology.problems import Lint

TOPOLOGIES: Final = "topologies"
SCHEMAS: Final = "schemas"
# Larger files are a mistake (a data file under the wrong name), and would be read into memory whole.
FILE_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Project:
    """A project directory and the environment it is used in."""

    root: Path
    settings: Settings = field(default_factory=Settings)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def find(cls, start: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Project:
        """The project that holds a directory.

        Args:
            start: where to begin, the working directory if absent; its parents are tried in turn.
            environment: variables, those of this process if absent.

        Raises:
            HostError: CH0804, there is no ``topologies`` directory on the way up; CH0806, a bad setting.
        """
        variables = dict(os.environ if environment is None else environment)
        begin = (start or Path.cwd()).resolve()
        for folder in (begin, *begin.parents):
            if (folder / TOPOLOGIES).is_dir():
                return cls(folder, Settings.read(variables), variables)
        raise HostError(
            f"no project here: neither this directory nor one above it has a {TOPOLOGIES}/ folder",
            code="CH0804",
            where=str(begin),
            hint="change into a project, or make one with `choreo new NAME`",
            fault="user",
        )

    @property
    def state_dir(self) -> Path:
        """Directory for local state; relative settings count from the root."""
        return self.root / self.settings.state_dir

    def topology_files(self) -> list[Path]:
        """Topology files of the project, without overlays (``x.prod.yaml``) and cases (``x.test.yaml``)."""
        return sorted(file for file in (self.root / TOPOLOGIES).glob("*.yaml") if "." not in file.stem)

    def topology_path(self, path: str | Path | None = None) -> Path:
        """The topology file that is meant.

        Args:
            path: a path from the working directory or from the root, or a bare name (``logistics``). If absent,
                ``CHOREO_TOPOLOGY`` says, or the project's only topology.

        Raises:
            HostError: CH0804, no such file, or several to choose from.
        """
        wanted = path if path is not None else self.settings.topology
        if wanted is None:
            files = self.topology_files()
            if len(files) == 1:
                return files[0]
            names = ", ".join(file.stem for file in files) or "none"
            raise HostError(
                f"say which topology is meant; this project has: {names}",
                where=str(self.root / TOPOLOGIES),
                hint="give its path, or set CHOREO_TOPOLOGY",
                fault="user",
            )
        for candidate in (Path(wanted), self.root / wanted, self.root / TOPOLOGIES / f"{wanted}.yaml"):
            if candidate.is_file():
                return candidate.resolve()
        files_seen = ", ".join(self.shown(file) for file in self.topology_files()) or "none"
        raise HostError(
            "there is no such topology file",
            where=str(wanted),
            hint=f"paths count from {self.root}; it has: {files_seen}",
            fault="user",
        )

    def parse_topology(self, path: str | Path | None = None) -> Parsed:
        """A topology with its overlay, and every problem the parser found in them.

        Raises:
            HostError: CH0804, a file is missing, too large or not UTF-8.
        """
        file = self.topology_path(path)
        overlay = None
        if self.settings.profile is not None:
            other = file.with_name(f"{file.stem}.{self.settings.profile}.yaml")
            if not other.is_file():
                raise HostError(
                    "there is no such overlay",
                    where=self.shown(other),
                    hint="CHOREO_PROFILE names it; unset that or add the file",
                    fault="user",
                )
            overlay = (read_text(other), self.shown(other))
        return parse(read_text(file), self.shown(file), overlay=overlay, env=self.environment)

    def load_topology(self, path: str | Path | None = None) -> Topology:
        """A topology that can be used.

        Args:
            path: as for ``topology_path``.

        Raises:
            TopologyError: the file has errors, all of them are in the message.
            HostError: CH0804, there is no such file.
        """
        parsed = self.parse_topology(path)
        errors = [problem for problem in parsed.problems if problem.severity == "error"]
        if errors or parsed.topology is None:
            raise _unusable(errors, self.shown(self.topology_path(path)))
        return parsed.topology

    def schema_texts(self) -> dict[str, str]:
        """Texts of ``schemas/*.avsc`` by file name."""
        return {file.name: read_text(file) for file in sorted((self.root / SCHEMAS).glob("*.avsc"))}

    def schemas(self) -> SchemaSet:
        """The project's Avro records.

        Raises:
            SchemaError: CH0202, a file is not valid.
        """
        return SchemaSet.load(self.schema_texts(), library_texts())

    def bootstrap(self, topology: Topology) -> str:
        """Addresses of the cluster: ``CHOREO_BROKERS``, else what the topology says.

        Raises:
            HostError: CH0801, nobody says where Kafka is.
        """
        bootstrap = self.settings.brokers or topology.cluster.bootstrap
        if not bootstrap:
            raise HostError(
                "nobody said where Kafka is: no --brokers, no CHOREO_BROKERS, no cluster.bootstrap",
                code="CH0801",
                where=topology.file,
                hint="start one with `choreo broker` and set CHOREO_BROKERS to the address it prints",
                fault="user",
            )
        return bootstrap

    def registry_address(self, topology: Topology) -> str:
        """``file``, or the URL of the schema registry."""
        return self.settings.schema_registry or topology.cluster.schema_registry

    def registry(self, topology: Topology, known: Iterable[Schema] = ()) -> Registry:
        """The schema registry of a topology; connects when first asked. ``known``: ``schemas()``, if at hand."""
        return open_registry(self.registry_address(topology), self.root / SCHEMAS, known)

    def shown(self, file: Path) -> str:
        """A path as people type it: from the root if it lies below, else whole."""
        return str(file.relative_to(self.root)) if file.is_relative_to(self.root) else str(file)


def read_text(file: Path) -> str:
    """Text of a file.

    Raises:
        HostError: CH0804, it is missing, not readable, too large or not UTF-8.
    """
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise HostError(f"the file is larger than {FILE_BYTES_MAX} bytes", where=str(file), fault="user")
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise HostError(f"the file is not UTF-8 text: {error.reason} at byte {error.start}", where=str(file)) from error
    except OSError as error:
        raise HostError(error.strerror or "the file cannot be read", where=str(file)) from error


def _unusable(errors: Sequence[Lint], file: str) -> TopologyError:
    """All errors of a file as one: the first's code and place, the others line by line."""
    if not errors:
        return TopologyError("the file declares nothing that can be used", code="CH0101", where=file)
    first, *others = errors
    message = first.message
    if others:
        lines = "\n".join(f"  {problem.code} {problem.position}: {problem.message}" for problem in others)
        message = f"{first.message}; and {len(others)} more:\n{lines}"
    hint = first.hint or "`choreo lint` shows all with what was expected"
    return TopologyError(message, code=first.code, where=str(first.position), hint=hint)
