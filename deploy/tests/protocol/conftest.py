"""A node with three sites: one for all, one with a secret, one switched off."""

import json
import os
import pathlib
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOOTFALL = os.environ.get("FOOTFALL_BIN", f"{ROOT}/target/debug/footfall")
DEADLINE = 90.0
SECRET = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
SETTINGS = f"""
[[sites]]
key = "demo"
origins = ["https://example.com"]
secret = "{SECRET}"
[sites.tracker]
mask_paths = ["/users/*"]

[[sites]]
key = "closed"
origins = ["*"]
enabled = false
"""


def eventually(what, check, deadline=DEADLINE):
    """Asks until the answer is true; fails with the last answer's words otherwise."""
    end = time.monotonic() + deadline
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: still not so after {deadline} s"
        time.sleep(0.05)


class Node:
    """`footfall standalone` on free ports."""

    def __init__(self, directory):
        directory = pathlib.Path(directory)
        (directory / "settings.toml").write_text(SETTINGS)
        ready = directory / "ready-test.json"
        command = [FOOTFALL, "standalone", "--data-dir", directory / "data", "--ready-file", ready]
        command += ["--config", directory / "settings.toml"]
        for listener in ("--ingest", "--dashboard", "--clickhouse", "--kafka"):
            command += [listener, "127.0.0.1:0"]
        stderr = directory / "stderr.log"
        with stderr.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)

        def is_ready():
            assert self.process.poll() is None, f"footfall ended:\n{stderr.read_text()}"
            return ready.exists()

        eventually("the node is ready", is_ready)
        self.ready = json.loads(ready.read_text())
        self.base = self.ready["ingest"].rstrip("/")

    def rows(self, sql):
        """As any client of ClickHouse gets them."""
        store = self.ready["clickhouse"]
        query = urllib.parse.urlencode({"database": store["database"]})
        request = urllib.request.Request(f"{store['url']}/?{query}", data=f"{sql} FORMAT JSONEachRow".encode())
        request.add_header("X-ClickHouse-User", store["user"])
        request.add_header("X-ClickHouse-Key", store["password"])
        with urllib.request.urlopen(request, timeout=30) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]

    def stored(self, stream, count):
        """The events of a stream, by sequence, once there are so many."""
        head = f"{stream[:8]}-{stream[8:12]}-{stream[12:16]}-{stream[16:20]}-{stream[20:]}"
        sql = f"SELECT * FROM events WHERE startsWith(toString(event_id), '{head}') ORDER BY event_id"
        return eventually(f"{count} events of {stream}", lambda: enough(self.rows(sql), count))

    def stop(self):
        self.process.terminate()
        assert self.process.wait(timeout=DEADLINE) == 0


def enough(rows, count):
    return rows if len(rows) >= count else None


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("node"))
    yield node
    node.stop()
