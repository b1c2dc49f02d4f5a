"""The node behind the proxies that people use, with the files that they copy (deploy/proxies)."""

import asyncio
import json
import time
import urllib.error
import urllib.request

import pytest
import websockets
from confluent_kafka import Consumer
from conftest import DEADLINE, batch, free_port
from proxies import Haproxy, Nginx

TRUSTED = 'trusted_proxies = ["127.0.0.1"]'
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"


@pytest.fixture
def in_front(tmp_path):
    """Puts a proxy in front of a node; it stops with the test."""
    started = []

    def start(kind, node, changes=None):
        directory = tmp_path / f"proxy-{len(started)}"
        directory.mkdir()
        started.append(kind(directory, node, changes or {}))
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


def connect(port, source="127.0.0.1", token=None):
    query = f"k=demo&t={token}" if token else "k=demo"
    return websockets.connect(
        f"ws://127.0.0.1:{port}/ws?{query}", ping_interval=None, local_addr=(source, 0), user_agent_header=AGENT, proxy=None
    )


async def hear(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), DEADLINE))


async def send(socket, stream, first=1):
    await socket.send(batch(stream, first, ["/"]))
    ack = await hear(socket)
    assert (ack["t"], ack["upto"]) == ("ack", first)


def visitors(broker, streams):
    """Visitor of each stream, as it is on Kafka."""
    consumer = Consumer(
        {"bootstrap.servers": broker.address, "group.id": f"look-{time.time_ns()}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["footfall.events"])
    found = {}
    end = time.monotonic() + DEADLINE
    while len(found) < len(streams):
        assert time.monotonic() < end, f"only {found} came"
        record = consumer.poll(0.2)
        if record is None or record.error():
            continue
        for line in record.value().splitlines():
            event = json.loads(line)
            stream = event["event_id"].replace("-", "")[:24]
            if stream in streams:
                found[stream] = event["visitor"]
    consumer.close()
    return found


@pytest.mark.parametrize("kind", [Nginx, Haproxy])
def test_sockets_pass_and_visitors_stay_apart(kind, broker, start_node, in_front):
    node = start_node(TRUSTED)
    proxy = in_front(kind, node)
    first = time.time_ns()

    async def visits():
        for number in range(3):
            # The third is the first one again.
            async with connect(proxy.port, f"127.0.0.{2 + number % 2}") as socket:
                assert (await hear(socket))["t"] == "welcome"
                await send(socket, first + number)

    asyncio.run(visits())
    streams = [f"{first + number:024x}" for number in range(3)]
    found = visitors(broker, streams)
    one, other, again = (found[stream] for stream in streams)
    assert one == again != other


def test_a_site_serves_the_tracker_under_names_of_its_own(start_node, in_front):
    node = start_node(TRUSTED)
    proxy = in_front(Nginx, node)
    home = f"127.0.0.1:{proxy.port}/stats"

    def get(path, **headers):
        return urllib.request.urlopen(urllib.request.Request(f"http://{home}{path}", headers=headers), timeout=DEADLINE)

    script = get("/s.js")
    assert script.read() == node.get("/f.js").read()
    assert "max-age" in script.headers["cache-control"]
    packed = get("/s.js", **{"accept-encoding": "gzip, br"})
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("br", "Accept-Encoding")
    with pytest.raises(urllib.error.HTTPError) as known:
        get("/s.js", **{"if-none-match": script.headers["etag"]})
    assert known.value.code == 304

    async def visit():
        async with websockets.connect(f"ws://{home}/ws?k=demo", ping_interval=None, proxy=None) as socket:
            assert (await hear(socket))["t"] == "welcome"
            await send(socket, time.time_ns())

    asyncio.run(visit())
    origin = {"content-type": "text/plain", "origin": "http://localhost"}
    body = batch(time.time_ns(), 1, ["/"]).encode()
    posted = urllib.request.urlopen(urllib.request.Request(f"http://{home}/e?k=demo", body, origin), timeout=DEADLINE)
    assert json.load(posted)["t"] == "ack"
    pixel = get("/e.gif?k=demo", referer="http://localhost/")
    assert pixel.headers["content-type"] == "image/gif"


def test_without_trust_all_that_come_by_a_proxy_are_one(broker, start_node, in_front):
    node = start_node()
    proxy = in_front(Nginx, node)
    first = time.time_ns()

    async def visits():
        for number in range(2):
            async with connect(proxy.port, f"127.0.0.{2 + number}") as socket:
                await hear(socket)
                await send(socket, first + number)

    asyncio.run(visits())
    found = visitors(broker, [f"{first + number:024x}" for number in range(2)])
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_nginx_that_strips_the_upgrade_still_brings_the_acks_of_the_fallback(buffering, start_node, in_front):
    node = start_node(TRUSTED)
    stripped = {
        "        proxy_set_header Upgrade $http_upgrade;\n": "",
        "        proxy_set_header Connection $http_connection;\n": "",
        "    proxy_http_version 1.1;\n": f"    proxy_http_version 1.1;\n    proxy_buffering {buffering};\n",
    }
    proxy = in_front(Nginx, node, stripped)

    async def upgrade():
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(proxy.port)
        assert refused.value.response.status_code == 426

    asyncio.run(upgrade())
    for first in (1, 2):
        request = urllib.request.Request(
            f"http://127.0.0.1:{proxy.port}/e?k=demo",
            data=batch(time.time_ns(), first, ["/"]).encode(),
            headers={"content-type": "text/plain", "origin": "http://localhost"},
        )
        ack = json.load(urllib.request.urlopen(request, timeout=DEADLINE))
        assert (ack["t"], ack["upto"]) == ("ack", first)


@pytest.mark.parametrize("ping_ms, kept", [(300, True), (10_000, False)])
def test_haproxy_cuts_silent_sockets_and_a_heartbeat_is_not_silence(ping_ms, kept, start_node, in_front):
    node = start_node(f"[ingest.timeouts]\nping_ms = {ping_ms}\nidle_ms = 20000")
    proxy = in_front(Haproxy, node, {"timeout tunnel 75s": "timeout tunnel 1s"})

    async def visit():
        async with connect(proxy.port) as socket:
            await hear(socket)
            await send(socket, time.time_ns())
            try:
                await asyncio.wait_for(socket.wait_closed(), 3)
                return False
            except TimeoutError:
                await send(socket, time.time_ns())
                return True

    assert asyncio.run(visit()) == kept


def test_a_token_keeps_the_visitor_whichever_node_answers(broker, start_node, in_front):
    nodes = [start_node(TRUSTED), start_node(TRUSTED)]
    servers = "".join(f"    server node{node.port} 127.0.0.1:{node.port} check\n" for node in nodes)
    changes = {"balance leastconn": "balance roundrobin", "    server node1 127.0.0.1:8080 check\n": servers}
    proxy = in_front(Haproxy, nodes[0], changes)
    first = time.time_ns()

    async def visits():
        answered, token = set(), None
        for number in range(4):
            # From another address each time, as a phone does.
            async with connect(proxy.port, f"127.0.0.{2 + number}", token) as socket:
                welcome = await hear(socket)
                answered.add(welcome["node"])
                token = token or welcome["token"]
                await send(socket, first + number)
        return answered

    assert len(asyncio.run(visits())) == 2
    found = visitors(broker, [f"{first + number:024x}" for number in range(4)])
    assert len(set(found.values())) == 1


def test_haproxy_learns_that_a_node_drains(start_node, in_front):
    node = start_node()
    proxy = in_front(Haproxy, node, {"check\n": "check inter 100ms fall 1\n"})

    async def visit():
        async with connect(proxy.port) as socket:
            await hear(socket)
            node.terminate()
            assert (await hear(socket))["t"] == "bye"
            await asyncio.wait_for(socket.wait_closed(), DEADLINE)
            assert socket.close_code == 1012

    asyncio.run(visit())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/healthz", timeout=DEADLINE)
    assert refused.value.code == 503


def test_haproxy_names_the_client_by_the_proxy_protocol(broker, start_node, in_front):
    port = free_port()
    node = start_node(TRUSTED, listen=f'ingest_proxy = "127.0.0.1:{port}"')
    changes = {
        "    option forwardfor\n": "",
        "server node1 127.0.0.1:8080 check\n": f"server node1 127.0.0.1:{port} send-proxy-v2 check port {node.port}\n",
    }
    proxy = in_front(Haproxy, node, changes)
    first = time.time_ns()

    async def visits():
        for number in range(3):
            async with connect(proxy.port, f"127.0.0.{2 + number % 2}") as socket:
                await hear(socket)
                await send(socket, first + number)

    asyncio.run(visits())
    streams = [f"{first + number:024x}" for number in range(3)]
    found = visitors(broker, streams)
    one, other, again = (found[stream] for stream in streams)
    assert one == again != other
