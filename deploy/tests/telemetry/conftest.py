"""A node, a collector that it reports to, and behind the collector a receiver that keeps what came through."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import sysconfig
import time

import pytest

from receiver import Receiver

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOOTFALL = os.environ.get("FOOTFALL_BIN", f"{ROOT}/target/debug/footfall")
DEADLINE = 90.0


def eventually(what, check, deadline=DEADLINE):
    """Asks until the answer is true; fails with the last answer's words otherwise."""
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


class Node:
    """`footfall standalone` on free ports."""

    def __init__(self, directory, settings="", **environment):
        self.directory = pathlib.Path(directory)
        (self.directory / "settings.toml").write_text(settings)
        ready = self.directory / "ready-test.json"
        free = "127.0.0.1:0"
        command = [FOOTFALL, "standalone", "--data-dir", self.directory / "data", "--ready-file", ready]
        command += ["--config", self.directory / "settings.toml"]
        for listener in ("--ingest", "--dashboard", "--clickhouse", "--kafka"):
            command += [listener, free]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        self.stderr = self.directory / "stderr.log"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=stderr, env=inherited | environment
            )

        def is_ready():
            assert self.process.poll() is None, f"footfall ended:\n{self.stderr.read_text()}"
            return ready.exists()

        eventually("the node is ready", is_ready)
        self.ready = json.loads(ready.read_text())

    def load(self, *arguments):
        """Runs synthetic visitors to their end; their summary."""
        command = [FOOTFALL, "load", "--ingest", self.ready["ingest"], "--site", self.ready["site"], "--json"]
        command += ["--ledger", self.directory / "ledger", *arguments]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def stop(self):
        """SIGTERM; how long it took."""
        began = time.monotonic()
        self.process.terminate()
        assert self.process.wait(timeout=DEADLINE) == 0, self.stderr.read_text()
        return time.monotonic() - began

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Starts nodes; what is left of them ends with the tests."""
    nodes = []

    def start(settings="", **environment):
        nodes.append(Node(tmp_path_factory.mktemp("node"), settings, **environment))
        return nodes[-1]

    yield start
    for node in nodes:
        node.kill()


@pytest.fixture(scope="session")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def collector(receiver, tmp_path_factory):
    """The address of an OpenTelemetry collector that sends on to the receiver."""
    if sys.version_info >= (3, 14):
        pytest.skip("rotel has no wheel for this Python")
    import rotel

    directory = tmp_path_factory.mktemp("collector")
    port = free_port()
    command = [pathlib.Path(rotel.__file__).parent / "rotel-agent", "start"]
    command += ["--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"]
    command += ["--exporter", "otlp", "--otlp-exporter-protocol", "http"]
    command += ["--otlp-exporter-endpoint", f"http://127.0.0.1:{receiver.port}", "--batch-timeout", "50ms"]
    # It is linked against the interpreter's library, which may lie where only the interpreter looks.
    environment = os.environ | {"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR")}
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory, env=environment)

    def listens():
        if process.poll() == 127 and os.environ.get("CI") != "true":
            pytest.skip(f"the collector does not start here: {log.read_text().strip()}")
        assert process.poll() is None, f"the collector ended:\n{log.read_text()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually("the collector listens", listens)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=DEADLINE)
