"""An ingest node as foreign programs meet it: the built binary, a broker of its own, sockets on loopback."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("FOOTFALL_BIN", f"{ROOT}/target/debug/footfall")
TOPICS = {
    "footfall.events": 4,
    "footfall.dead-letters": 1,
    "footfall.directory": 1,
    "footfall.presence": 1,
}
DEADLINE = 30.0


def eventually(what, check, deadline=DEADLINE):
    """Asks until the answer is true and returns it; fails with what was waited for otherwise."""
    end = time.monotonic() + deadline
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: still not so after {deadline} s"
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """The embedded broker as a process of its own, with the topics that a node writes to."""

    def __init__(self, directory):
        ready = directory / "broker.ready"
        command = [BINARY, "broker", "--data-dir", str(directory / "kafka"), "--ready-file", str(ready)]
        self.process = subprocess.Popen(command)

        def is_ready():
            assert self.process.poll() is None, f"{command} ended with {self.process.returncode}"
            return ready.exists() and ready.read_text()

        self.address = eventually("the broker is ready", is_ready)
        admin = AdminClient({"bootstrap.servers": self.address})
        for made in admin.create_topics([NewTopic(name, count) for name, count in TOPICS.items()]).values():
            made.result(DEADLINE)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(timeout=DEADLINE) == 0


class Node:
    """`footfall ingest` with the site `demo`. `settings` is TOML of the `[ingest]` table and of tables below it."""

    def __init__(self, broker, directory, settings="", listen=""):
        self.port = free_port()
        self.draining = False
        config = directory / "node.toml"
        config.write_text(
            f'node = "node-{self.port}"\nsecret = "{"ab" * 32}"\ndata_dir = "{directory}/data"\n'
            f'[listen]\ningest = "127.0.0.1:{self.port}"\n{listen}\n'
            f'[kafka]\nbrokers = "{broker.address}"\n'
            '[[sites]]\nkey = "demo"\norigins = ["http://localhost:*", "http://127.0.0.1:*"]\n'
            f"[ingest]\n{settings}\n"
        )
        self.log = directory / "node.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([BINARY, "ingest", "--config", str(config)], stderr=log)
        eventually("the node is ready", self.is_ready)

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz").status == 200
        except urllib.error.URLError:
            return False

    def get(self, path):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=DEADLINE)

    def terminate(self):
        """Asks the node to drain, once and without waiting: a second signal would end it at once."""
        if not self.draining:
            self.draining = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self):
        self.terminate()
        assert self.process.wait(timeout=DEADLINE) == 0, self.log.read_text()


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.stop()


@pytest.fixture
def start_node(broker, tmp_path):
    """Starts nodes that stop with the test."""
    nodes = []

    def start(settings="", listen=""):
        directory = tmp_path / f"node-{len(nodes)}"
        directory.mkdir()
        nodes.append(Node(broker, directory, settings, listen))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()


def batch(stream, first, paths):
    """A batch of page views as a tracker sends it."""
    views = [{"k": "view", "at": 1000, "u": f"http://localhost{path}"} for path in paths]
    return json.dumps({"t": "batch", "stream": f"{stream:024x}", "first": first, "sent": 1500, "events": views})
