"""The jars of one Apache Kafka release: found on this machine, or downloaded once and checked.

Jars live where Maven keeps them (jgo's ``repo_cache``, normally ``~/.m2/repository``), so that a machine that has them
needs no network. The pinned release comes with a list of its jars and their SHA-256 (``kafka-VERSION.jars`` beside this
module): nothing is resolved at run time, and a jar that differs from the list is never put on a class path. Another
release can be asked for by number; its list is resolved by jgo once and then kept in the repository under ``.choreo``.

A download goes into ``.choreo/staging`` and moves to its place when it is whole and its checksum is right, under a file
lock. So an interrupted first run costs the jar it was at, several first runs at once download each jar once, and what
someone else left half-written in the repository is replaced.

To pin a newer release: change ``KAFKA_VERSION``, run the tests once (the list is resolved) and copy the list from
``.choreo`` beside this module.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from choreo.errors import HostError
from choreo.runtime.broker.progress import Progress, silent

KAFKA_VERSION: Final = "4.3.1"
SLF4J_VERSION: Final = "1.7.36"  # of the slf4j-api that Kafka 3 and 4 depend on

LOCK_WAIT_S: Final = 600.0  # another first run on a slow line; beyond it a person should look
LOCK_POLL_S: Final = 0.2
ATTEMPTS: Final = 3  # per jar, once the repository has answered at all


@dataclass(frozen=True)
class Jar:
    """One file of a release."""

    coordinate: str  # group:artifact:version
    size_bytes: int
    sha256: str

    def path_in(self, repository: Path) -> Path:
        """Where a Maven repository directory keeps the file."""
        group, artifact, version = self.coordinate.split(":")
        return repository.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")

    def is_at(self, path: Path) -> bool:
        """True if the file is there and is byte for byte what the list says."""
        return path.is_file() and path.stat().st_size == self.size_bytes and _sha256(path) == self.sha256


class JarSource(Protocol):
    """Where jars come from. Failures are OSErrors (the network, the disk) or RuntimeErrors (not found there)."""

    @property
    def repository(self) -> Path:
        """Directory of the jars on this machine, in Maven's layout."""
        ...

    def resolve(self, version: str, staging: Path) -> list[str]:
        """Coordinates of every jar that a release needs."""
        ...

    def fetch(self, coordinate: str, staging: Path, received: Callable[[int], None]) -> Path:
        """Download one jar below ``staging`` and return its path; ``received`` is told of each chunk's bytes."""
        ...


class MavenSource:
    """Jars from the Maven repositories that jgo is configured for (Maven Central if nothing else is said)."""

    def __init__(self) -> None:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL

        settings = GlobalSettings.load()
        self._remotes: dict[str, str] = {"central": MAVEN_CENTRAL_URL, **settings.repositories}
        self._repository = Path(settings.repo_cache).expanduser()

    @property
    def repository(self) -> Path:
        """Directory of the jars on this machine, in Maven's layout."""
        return self._repository

    def resolve(self, version: str, staging: Path) -> list[str]:
        """Coordinates of the server's run-time dependencies, the console tools and a logger, by their POMs."""
        from jgo.maven import MavenContext

        context = MavenContext(repo_cache=staging, remote_repos=self._remotes)
        roots = [context.create_dependency(f"{coordinate}:jar:compile") for coordinate in _roots(version)]
        server, logger, tools = roots
        inputs, transitive = context.resolver.resolve([server, logger])
        needed = [*inputs, *(one for one in transitive if one.scope in ("compile", "runtime"))]
        # Of the tools only their own jar: their dependencies would bring Kafka Connect with a web server.
        found = {f"{one.groupId}:{one.artifactId}:{one.version}" for one in [*needed, tools]}
        return sorted(found)

    def fetch(self, coordinate: str, staging: Path, received: Callable[[int], None]) -> Path:
        """Download one jar below ``staging``."""
        from jgo.maven import MavenContext, PythonResolver

        @contextmanager
        def watch(file_name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
            yield received

        resolver = PythonResolver(progress_callback=watch)
        context = MavenContext(resolver=resolver, repo_cache=staging, remote_repos=self._remotes)
        return Path(context.create_dependency(coordinate).artifact.resolve())


def kafka_jars(
    version: str = KAFKA_VERSION, *, source: JarSource | None = None, progress: Progress = silent
) -> tuple[Path, ...]:
    """The class path of a Kafka release, downloaded if it isn't on this machine yet.

    Args:
        version: release number; others than ``KAFKA_VERSION`` are for tests against older brokers.
        source: where jars come from; by default what jgo is configured for.
        progress: told about the download, if there is one.

    Returns:
        Paths of jars whose checksums are right, in the order of the list.

    Raises:
        HostError: CH0803, if a jar is neither here nor to be had.
    """
    origin: JarSource = source or MavenSource()
    jars = _known_list(version, origin.repository)
    if jars is not None and not _missing(jars, origin.repository):
        return tuple(jar.path_in(origin.repository) for jar in jars)
    try:
        with _sole_downloader(origin.repository, progress) as staging:
            jars = _known_list(version, origin.repository) or _resolve_list(version, origin, staging, progress)
            _download(version, jars, origin, staging, progress)
    except (OSError, RuntimeError) as error:
        raise _refusal(version, origin.repository, error) from error
    return tuple(jar.path_in(origin.repository) for jar in jars)


def read_list(text: str) -> tuple[Jar, ...]:
    """The jars of a list: a line each of coordinate, size in bytes and SHA-256; ``#`` starts a comment."""
    rows = (line.partition("#")[0].split() for line in text.splitlines())
    return tuple(Jar(coordinate, int(size), digest) for coordinate, size, digest in (row for row in rows if row))


def write_list(version: str, jars: Sequence[Jar]) -> str:
    """The text that ``read_list`` reads."""
    lines = [f"# Jars of Apache Kafka {version}: coordinate, size in bytes, SHA-256"]
    lines += [f"{jar.coordinate} {jar.size_bytes} {jar.sha256}" for jar in jars]
    return "\n".join(lines) + "\n"


def _roots(version: str) -> tuple[str, str, str]:
    """What a broker, its log and the console tools are made of."""
    return (
        f"org.apache.kafka:kafka_2.13:{version}",
        f"org.slf4j:slf4j-simple:{SLF4J_VERSION}",
        f"org.apache.kafka:kafka-tools:{version}",
    )


def _known_list(version: str, repository: Path) -> tuple[Jar, ...] | None:
    """The release's list: the one that ships with choreo, else the one resolved here earlier."""
    for file in (Path(__file__).with_name(f"kafka-{version}.jars"), _own(repository) / f"kafka-{version}.jars"):
        if file.is_file():
            return read_list(file.read_text("ascii"))
    return None


def _own(repository: Path) -> Path:
    """Our corner of the repository."""
    return repository / ".choreo"


def _missing(jars: Sequence[Jar], repository: Path) -> list[Jar]:
    return [jar for jar in jars if not jar.is_at(jar.path_in(repository))]


def _resolve_list(version: str, source: JarSource, staging: Path, progress: Progress) -> tuple[Jar, ...]:
    """Resolve a release that has no list, download it and write its list: from then on it is pinned here."""
    progress(f"resolving Kafka {version}", 0, 0)
    jars = []
    received_bytes = 0

    def received(chunk_bytes: int) -> None:
        nonlocal received_bytes
        received_bytes += chunk_bytes
        progress(f"downloading Kafka {version}", received_bytes, 0)

    for coordinate in source.resolve(version, staging):
        path = source.fetch(coordinate, staging, received)
        jar = Jar(coordinate, path.stat().st_size, _sha256(path))
        _move(path, jar.path_in(source.repository))
        jars.append(jar)
    draft = staging / "list"
    draft.write_text(write_list(version, jars), "ascii")
    _move(draft, _own(source.repository) / f"kafka-{version}.jars")
    return tuple(jars)


def _download(version: str, jars: Sequence[Jar], source: JarSource, staging: Path, progress: Progress) -> None:
    """Bring every jar that is missing or damaged into the repository."""
    missing = _missing(jars, source.repository)
    total_bytes = sum(jar.size_bytes for jar in missing)
    done_bytes = 0
    for place, jar in enumerate(missing):
        for attempt in range(1, ATTEMPTS + 1):
            done_before = done_bytes

            def received(chunk_bytes: int) -> None:
                nonlocal done_bytes
                done_bytes += chunk_bytes
                progress(f"downloading Kafka {version}", done_bytes, total_bytes)

            try:
                path = source.fetch(jar.coordinate, staging, received)
                if not jar.is_at(path):
                    path.unlink()
                    raise RuntimeError(f"{path.name} has another checksum than choreo's list")
                _move(path, jar.path_in(source.repository))
                break
            except (OSError, RuntimeError):
                # The very first request failed: there is no network, and trying on would only keep a person waiting.
                if attempt == ATTEMPTS or (place == 0 and done_bytes == done_before):
                    raise
                _empty(staging)
                done_bytes = done_before
        done_bytes = sum(one.size_bytes for one in missing[: place + 1])
    progress(f"downloading Kafka {version}", total_bytes, total_bytes)


@contextmanager
def _sole_downloader(repository: Path, progress: Progress) -> Iterator[Path]:
    """Hold the repository's lock, with an empty staging directory.

    The lock belongs to the open file, so it ends with its holder, however that one ends.
    """
    own = _own(repository)
    own.mkdir(parents=True, exist_ok=True)
    staging = own / "staging"
    with (own / "lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(lock.fileno()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"another process has been downloading into {repository} for {LOCK_WAIT_S:.0f} s")
            progress("waiting for another download of Kafka", 0, 0)
            time.sleep(LOCK_POLL_S)
        _empty(staging)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _empty(directory: Path) -> None:
    """Make it exist and be empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


def _move(source: Path, target: Path) -> None:
    """Put a finished file in its place in one step; a reader sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refusal(version: str, repository: Path, error: OSError | RuntimeError) -> HostError:
    """One sentence for a download that failed."""
    if isinstance(error, OSError) and error.errno is None:
        # The HTTP client's errors are OSErrors without a number, and their text is a page of nested causes.
        reason = "the Maven repository cannot be reached"
    elif isinstance(error, OSError):
        reason = f"{error.filename or repository}: {error.strerror}"
    else:
        reason = str(error).partition("\n")[0]
    return HostError(
        f"Apache Kafka {version} is not in {repository} and could not be downloaded: {reason}",
        code="CH0803",
        hint="the first start needs the network once; or name a running cluster with --brokers",
        retry="backoff",
    )
