"""Sets the small project up on a real cluster, and talks to it as an outsider would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import NewTopic

from choreo.runtime.preflight import admin_client, needed_topics
from choreo.runtime.project import Project
from choreo.runtime.supervisor import free_ports
from choreo.topology import names

WAIT_S = 20.0
LOG_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


def prepare(root: Path, bootstrap: str) -> Project:
    """Topics and schema ids for every agent of the project's topology."""
    project = Project.find(root, environment={"CHOREO_BROKERS": bootstrap})
    topology = project.load_topology()
    topics: dict[str, int | None] = {}
    registry, schemas = project.registry(topology), project.schemas()
    for agent in topology.agents.values():
        topics |= needed_topics(topology, agent)
        for table in agent.tables:
            subject = f"{names.changelog(topology.name, agent.name, table)}-value"
            registry.register(subject, schemas.by_name(topology.tables[table].schema))
    for topic in topology.topics.values():
        registry.register(f"{topic.name}-value", schemas.by_name(topic.schema))
    admin = admin_client(bootstrap, {})  # its requests end with it
    futures = admin.create_topics(
        [NewTopic(name, count or 1, 1, config=LOG_APPEND_TIME) for name, count in topics.items()]
    )
    for future in futures.values():
        future.result(30)
    return project


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value; fails with the description after a minute."""
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)
    return value


class RunningWorker:
    """A `faust worker` process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a page; status 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, None

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")


@contextmanager
def worker(root: Path, app: str, **environment: str) -> Iterator[RunningWorker]:
    """Runs a worker until the block ends; then it must stop by SIGTERM if it still runs."""
    (port,) = free_ports(1)
    log = root / f"{app}.{port}.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", app, "worker", "-l", "info", "-p", str(port)],
            cwd=root,
            env={**inherited, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield RunningWorker(process, port, log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
