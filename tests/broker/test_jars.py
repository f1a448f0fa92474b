"""Jars are whole and right, or not used: interrupted, damaged, concurrent and impossible downloads."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from choreo.errors import HostError
from choreo.runtime.broker import jars
from choreo.runtime.broker.jars import KAFKA_VERSION, Jar, MavenSource, kafka_jars, read_list, write_list

VERSION = "0.0.1"  # no list ships for it: the source's answer becomes the list
CONTENT = {"org.example:one:1": b"first jar " * 500, "org.example.deep:two:2.0": b"second jar " * 700}
CHUNK_BYTES = 1000


class MemorySource:
    """Jars from a dict, in chunks; may fail before any chunk."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.content = dict(CONTENT)
        self.fetched: list[str] = []
        self.resolved = 0
        self.before_chunk: Callable[[str, int], None] = lambda coordinate, at: None

    def resolve(self, version: str, staging: Path) -> list[str]:
        self.resolved += 1
        return sorted(self.content)

    def fetch(self, coordinate: str, staging: Path, received: Callable[[int], None]) -> Path:
        self.fetched.append(coordinate)
        target = staging / f"{coordinate.replace(':', '-')}.jar"
        content = self.content[coordinate]
        with target.open("wb") as file:
            for at in range(0, len(content), CHUNK_BYTES):
                self.before_chunk(coordinate, at)
                chunk = content[at : at + CHUNK_BYTES]
                file.write(chunk)
                received(len(chunk))
        return target


@pytest.fixture
def source(tmp_path: Path) -> MemorySource:
    return MemorySource(tmp_path / "repository")


def whole(paths: tuple[Path, ...]) -> bool:
    return sorted(path.read_bytes() for path in paths) == sorted(CONTENT.values())


def test_jars_are_downloaded_once(source: MemorySource) -> None:
    first = kafka_jars(VERSION, source=source)
    assert whole(first)
    assert first[1] == source.repository / "org" / "example" / "one" / "1" / "one-1.jar"
    assert kafka_jars(VERSION, source=source) == first
    assert len(source.fetched) == len(CONTENT)
    assert source.resolved == 1


def test_progress_counts_bytes_up_to_the_total(source: MemorySource) -> None:
    kafka_jars(VERSION, source=source)
    for path in source.repository.rglob("*.jar"):
        path.unlink()
    seen: list[tuple[int, int]] = []
    kafka_jars(VERSION, source=source, progress=lambda step, done, total: seen.append((done, total)))
    total = sum(len(content) for content in CONTENT.values())
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_interrupted_download_leaves_no_broken_jar(source: MemorySource) -> None:
    def interrupt(coordinate: str, at: int) -> None:
        if coordinate == "org.example:one:1" and at >= 2 * CHUNK_BYTES:
            raise KeyboardInterrupt

    source.before_chunk = interrupt
    with pytest.raises(KeyboardInterrupt):
        kafka_jars(VERSION, source=source)
    kept = list(source.repository.rglob("*.jar"))
    assert [path.read_bytes() for path in kept] == [CONTENT["org.example.deep:two:2.0"]]
    source.before_chunk = lambda coordinate, at: None
    assert whole(kafka_jars(VERSION, source=source))


def test_killed_downloads_remains_are_swept_away(source: MemorySource) -> None:
    kafka_jars(VERSION, source=source)
    staging = source.repository / ".choreo" / "staging"
    staging.mkdir()
    (staging / "half.jar").write_bytes(b"half")
    next(source.repository.rglob("one-1.jar")).unlink()
    assert whole(kafka_jars(VERSION, source=source))
    assert not staging.exists()


@pytest.mark.parametrize("damage", [b"", CONTENT["org.example:one:1"][:-1], b"x" * len(CONTENT["org.example:one:1"])])
def test_damaged_jar_is_replaced(source: MemorySource, damage: bytes) -> None:
    paths = kafka_jars(VERSION, source=source)
    paths[1].write_bytes(damage)
    assert whole(kafka_jars(VERSION, source=source))


def test_jar_that_differs_from_the_list_is_refused(source: MemorySource) -> None:
    paths = kafka_jars(VERSION, source=source)
    paths[1].unlink()
    source.content["org.example:one:1"] = b"tampered with"
    with pytest.raises(HostError, match="another checksum") as caught:
        kafka_jars(VERSION, source=source)
    assert caught.value.code == "CH0803"
    assert not paths[1].exists()


def test_broken_connection_is_tried_again(source: MemorySource) -> None:
    paths = kafka_jars(VERSION, source=source)
    for path in paths:
        path.unlink()
    breaks = iter([True, False, True, False])

    def break_off(coordinate: str, at: int) -> None:
        if at == CHUNK_BYTES and next(breaks):
            raise OSError("connection broken")

    source.before_chunk = break_off
    assert whole(kafka_jars(VERSION, source=source))


def test_concurrent_first_runs_download_each_jar_once(source: MemorySource) -> None:
    results: list[tuple[Path, ...]] = []
    both = threading.Barrier(2, timeout=10)

    def first_run() -> None:
        both.wait()
        results.append(kafka_jars(VERSION, source=source))

    threads = [threading.Thread(target=first_run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [whole(paths) for paths in results] == [True, True]
    assert len(source.fetched) == len(CONTENT)


@pytest.mark.parametrize("listed", [True, False])
def test_no_network_and_no_cache_is_one_sentence(source: MemorySource, listed: bool) -> None:
    if listed:
        for path in kafka_jars(VERSION, source=source):
            path.unlink()
        source.fetched.clear()

    def no_network(coordinate: str, at: int) -> None:
        raise OSError("HTTPSConnectionPool(...): Max retries exceeded\nwith a page\nof causes")

    source.before_chunk = no_network
    with pytest.raises(HostError) as caught:
        kafka_jars(VERSION, source=source)
    error = caught.value
    assert error.code == "CH0803"
    assert error.message == (
        f"Apache Kafka {VERSION} is not in {source.repository} and could not be downloaded: "
        "the Maven repository cannot be reached"
    )
    assert "\n" not in str(error)
    assert len(source.fetched) == 1, "without a network nobody waits for further attempts"


def test_unreachable_repository_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through jgo: its own settings name a repository on a port where nobody listens."""
    settings = tmp_path / "jgo.conf"
    settings.write_text("[repositories]\ncentral = http://127.0.0.1:1/nobody\n", "ascii")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "repository"))
    for version in (KAFKA_VERSION, "4.0.0"):  # with a list, and to be resolved
        with pytest.raises(HostError, match=r"^CH0803 [^\n]*the Maven repository cannot be reached[^\n]*$"):
            kafka_jars(version, source=MavenSource())


def test_unwritable_repository_names_the_file(source: MemorySource) -> None:
    source.repository.parent.mkdir(exist_ok=True)
    source.repository.write_text("a file where the directory should be", "ascii")
    with pytest.raises(HostError, match=r"repository(/\.choreo)?: (Not a directory|File exists)") as caught:
        kafka_jars(VERSION, source=source)
    assert caught.value.code == "CH0803"


def test_list_round_trips() -> None:
    wanted = (Jar("a.b:c:1", 5, hashlib.sha256(b"12345").hexdigest()),)
    assert read_list(write_list("1", wanted)) == wanted


def test_list_of_the_pinned_release_ships_with_choreo() -> None:
    shipped = Path(jars.__file__).with_name(f"kafka-{KAFKA_VERSION}.jars")
    coordinates = {jar.coordinate for jar in read_list(shipped.read_text("ascii"))}
    assert {f"org.apache.kafka:{name}:{KAFKA_VERSION}" for name in ("kafka_2.13", "kafka-server", "kafka-tools")} <= (
        coordinates
    )
    assert all(len(jar.sha256) == 64 for jar in read_list(shipped.read_text("ascii")))
