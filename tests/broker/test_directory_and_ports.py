"""What the machine refuses is said before Kafka starts: busy ports and other people's data directories."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from choreo.errors import HostError
from choreo.runtime.broker import EmbeddedBroker
from choreo.runtime.broker.config import DEFAULTS, Addresses, server_properties
from choreo.runtime.broker.directory import LOCK, MARK, DataDirectory
from choreo.runtime.broker.java import Java
from choreo.runtime.broker.ports import FREE_PORTS, free_port, is_free, owner, require_free

NO_JAVA = Java(Path("no-java"), ())


def test_busy_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(HostError) as caught:
            EmbeddedBroker(port).start()
    error = caught.value
    assert error.code == "CH0802"
    assert error.message.startswith(f"port {port} is in use by ")
    assert error.message.endswith(f"(pid {os.getpid()}), expected free")
    assert error.hint == "choose --port"


def test_port_taken_on_all_interfaces_is_busy_too() -> None:
    with socket.create_server(("", 0)) as other:
        assert not is_free(other.getsockname()[1])


def test_freed_port_is_free_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        connection, _ = server.accept()
        connection.close()  # the server's side closes first and lingers in TIME_WAIT
        client.close()
    require_free(port)
    assert owner(port) is None


def test_free_ports_are_none_that_outgoing_connections_get() -> None:
    """Else a client could take the port of a broker that is being restarted."""
    port = free_port()
    assert port in FREE_PORTS
    assert is_free(port)
    table = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if table.exists():
        assert FREE_PORTS.stop <= int(table.read_text("ascii").split()[0])


def test_directory_in_use_is_refused_with_its_holder(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path / "kafka")
    first.describe("the broker 127.0.0.1:9092 (pid 77)")
    with pytest.raises(
        HostError, match=r"in use by the broker 127\.0\.0\.1:9092 \(pid 77\), expected it unused"
    ) as caught:
        DataDirectory.open(tmp_path / "kafka")
    assert caught.value.code == "CH0804"
    first.close()
    DataDirectory.open(tmp_path / "kafka").close()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: (path.mkdir(), (path / "notes.txt").write_text("mine", "ascii")), "was not made by choreo"),
        (lambda path: path.write_text("a file", "ascii"), "this is a file, expected a directory"),
        (lambda path: path.parent.joinpath("a,b").mkdir(), "contains a comma"),
    ],
)
def test_unusable_directory_is_refused(tmp_path: Path, prepare: object, message: str) -> None:
    path = tmp_path / ("a,b" if "comma" in message else "kafka")
    assert callable(prepare)
    prepare(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HostError, match=message) as caught:
        DataDirectory.open(path)
    assert caught.value.code == "CH0804"
    assert caught.value.where == str(path)
    assert sorted(tmp_path.rglob("*")) == before, "nothing of others is touched"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HostError, match="Permission denied"):
        DataDirectory.open(tmp_path / "kafka")


@pytest.mark.parametrize("other", ["4.2.0", "3.9.1", "5.0.0"])
def test_directory_of_another_release_is_refused(tmp_path: Path, other: str) -> None:
    with_mark(tmp_path, json.dumps({"kafka": other, "cluster_id": "abc"}))
    directory = DataDirectory.open(tmp_path)
    with pytest.raises(HostError, match=rf"was written by Kafka {other}, expected 4\.3\.1") as caught:
        directory.format(NO_JAVA, tmp_path / "server.properties", "4.3.1")
    directory.close()
    assert caught.value.code == "CH0804"


def test_directory_of_another_patch_release_is_used(tmp_path: Path) -> None:
    with_mark(tmp_path, json.dumps({"kafka": "4.3.0", "cluster_id": "abc"}))
    directory = DataDirectory.open(tmp_path)
    assert directory.format(NO_JAVA, tmp_path / "server.properties", "4.3.1") == "abc"
    directory.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"kafka": "4.3.1"}'])
def test_damaged_mark_is_refused(tmp_path: Path, content: str) -> None:
    with_mark(tmp_path, content)
    directory = DataDirectory.open(tmp_path)
    with pytest.raises(HostError, match="the file is damaged") as caught:
        directory.format(NO_JAVA, tmp_path / "server.properties", "4.3.1")
    directory.close()
    assert caught.value.where == str(tmp_path / MARK)


def with_mark(path: Path, content: str) -> None:
    (path / LOCK).touch()
    (path / MARK).write_text(content, "ascii")


def test_temporary_directory_is_deleted_on_close() -> None:
    directory = DataDirectory.open(None)
    (directory.path / "log").mkdir()
    assert directory.path.is_dir()
    directory.close()
    assert not directory.path.exists()


def test_settings_override_defaults_and_are_escaped_for_java() -> None:
    text = server_properties(
        1, {1: Addresses(1, 2)}, logs=Path("/data/Größe\\x"), settings={"num.io.threads": "9", "x.y": "a\nb"}
    )
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["num.io.threads"] == "9"
    assert lines["x.y"] == "a\\nb"
    assert lines["log.dirs"] == "/data/Gr\\u00f6\\u00dfe\\\\x"
    assert lines["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert set(DEFAULTS) <= set(lines)


def test_broker_that_never_ran_says_so() -> None:
    broker = EmbeddedBroker()
    for ask in (lambda: broker.bootstrap, lambda: broker.pid, lambda: broker.cluster_id, lambda: broker.data_dir):
        with pytest.raises(HostError):
            ask()
    assert not broker.running
    broker.stop()
    broker.kill()
