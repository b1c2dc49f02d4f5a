"""The broker under test.

With FOOTFALL_TEST_KAFKA=host:port it is the one that runs there, Apache Kafka for example. Otherwise the embedded
broker is started from FOOTFALL_BROKER_CMD (by default the debug build's `footfall broker`), which takes
--data-dir, --listen, --ready-file and --maintenance-ms.
"""

import os
import pathlib
import shlex
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = os.environ.get("FOOTFALL_BROKER_CMD", f"{ROOT}/target/debug/footfall broker")
DEADLINE = 30.0


def eventually(what, check, deadline=DEADLINE):
    """Asks until the answer is true; fails with the last answer's words otherwise."""
    end = time.monotonic() + deadline
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: still not so after {deadline} s"
        time.sleep(0.02)


class EmbeddedBroker:
    """Our broker as a child process that can be killed and started again on the same data and port."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.address = "127.0.0.1:0"
        self.process = None
        self.start()

    def start(self):
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        command = shlex.split(COMMAND) + ["--data-dir", str(self.directory / "data"), "--listen", self.address]
        command += ["--ready-file", str(ready), "--maintenance-ms", "200"]
        self.process = subprocess.Popen(command)

        def is_ready():
            assert self.process.poll() is None, f"{command} ended with {self.process.returncode}"
            return ready.exists()

        eventually("the broker is ready", is_ready)
        self.address = ready.read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(timeout=DEADLINE) == 0


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    external = os.environ.get("FOOTFALL_TEST_KAFKA")
    if external:
        yield external
        return
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    yield broker.address
    broker.stop()


@pytest.fixture
def own_broker(tmp_path):
    """A broker of the test's own, to kill."""
    if os.environ.get("FOOTFALL_TEST_KAFKA"):
        pytest.skip("kill -9 is for our own broker only; FOOTFALL_TEST_KAFKA names another one")
    broker = EmbeddedBroker(tmp_path)
    yield broker
    broker.stop()
