"""`choreo broker` runs in the foreground, says where it answers, and ends cleanly."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from choreo.cli.broker import project_root
from tests.broker.test_guardian import alive, wait_until

END_WITHIN_S = 30  # a clean stop takes 0.3 s


def choreo(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", "from choreo.cli._main import main; main()", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=END_WITHIN_S)
    return process.returncode, output, errors


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_broker_prints_its_address_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "agents").mkdir()
    with choreo("broker", "--port", "0", cwd=tmp_path / "agents") as process:
        assert process.stdout is not None
        bootstrap = process.stdout.readline().strip()
        assert len(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=20).brokers) == 1
        process.send_signal(number)
        assert finish(process) == (0, "", "")
    logs = tmp_path / ".choreo" / "kafka" / "log"
    assert (logs / ".kafka_cleanshutdown").exists(), "the default directory is the project's, and was closed cleanly"


@pytest.mark.kafka
def test_json_is_one_line_and_an_ephemeral_broker_keeps_nothing(tmp_path: Path) -> None:
    with choreo("broker", "--port", "0", "--ephemeral", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert set(said) == {"bootstrap", "pid", "kafka", "cluster_id", "data"}
        assert said["data"] is None
        assert alive(said["pid"])
        process.terminate()
        assert finish(process) == (0, "", "")
    assert not alive(said["pid"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kafka
def test_broker_that_dies_ends_the_command_with_an_error(tmp_path: Path) -> None:
    with choreo("broker", "--port", "0", "--ephemeral", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        code, output, errors = finish(process)
    assert code == 1
    assert errors.startswith("CH0803 Kafka ended with exit code 137")
    assert json.loads(output)["error"]["code"] == "CH0803"


@pytest.mark.kafka
def test_killed_command_takes_its_broker_along(tmp_path: Path) -> None:
    with choreo("broker", "--port", "0", "--ephemeral", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        process.kill()
        wait_until(lambda: not alive(pid), "the broker is gone")


def test_busy_port_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with choreo("broker", "--port", str(port), cwd=tmp_path) as process:
            code, output, errors = finish(process)
    assert (code, output) == (1, "")
    assert errors.startswith(f"CH0802 port {port} is in use by ")
    assert errors.endswith(", expected free (choose --port)\n")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing is made before the port is known to be free"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--ephemeral", "--data", "x"), 64, "CH0807 --ephemeral and --data exclude each other"),
        (("--port", "65536"), 64, "CH0807 "),
        (("--port", "0", "--data", "file"), 1, "CH0804 "),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    (tmp_path / "file").touch()
    with choreo("broker", *arguments, cwd=tmp_path) as process:
        returned, output, errors = finish(process)
    assert (returned, output) == (code, "")
    assert errors.startswith(message)
    assert errors.count("\n") == 1


def test_project_root_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "topologies").mkdir()
    below = tmp_path / "agents" / "deep"
    below.mkdir(parents=True)
    assert project_root(below) == tmp_path
    assert project_root(tmp_path) == tmp_path
