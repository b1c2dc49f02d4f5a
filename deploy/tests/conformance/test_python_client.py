"""The tracker's protocol by somebody else's WebSocket client, the Python package `websockets`."""

import asyncio
import json

import websockets
from conftest import batch

# A heartbeat every 200 ms; silent for a second: gone.
SHORT = "reconnect_spread_ms = 500\n[ingest.timeouts]\nping_ms = 200\nidle_ms = 1000"


def connect(node, **options):
    return websockets.connect(f"ws://127.0.0.1:{node.port}/ws?k=demo", ping_interval=None, **options)


async def hear(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), 30))


def test_is_welcomed_acked_kept_alive_and_told_to_come_back(start_node):
    node = start_node(SHORT)

    async def visit():
        async with connect(node, subprotocols=["footfall.v1"]) as socket:
            assert socket.subprotocol == "footfall.v1"
            assert (await hear(socket))["t"] == "welcome"
            await socket.send(batch(1, 1, ["/", "/pricing"]))
            assert await hear(socket) == {"t": "ack", "stream": f"{1:024x}", "first": 1, "upto": 2}
            # Three times the idle time-out: only the pongs that the client sends by itself keep it.
            await asyncio.sleep(3)
            await socket.send(batch(1, 3, ["/docs"]))
            assert (await hear(socket))["upto"] == 3
            node.terminate()
            bye = await hear(socket)
            assert bye["t"] == "bye" and 50 <= bye["retry_ms"] <= 500
            await asyncio.wait_for(socket.wait_closed(), 30)
            assert socket.close_code == 1012

    asyncio.run(visit())


def test_compression_is_declined(start_node):
    node = start_node()

    async def visit():
        async with connect(node, compression="deflate") as socket:
            assert (await hear(socket))["t"] == "welcome"
            assert "Sec-WebSocket-Extensions" not in socket.response.headers

    asyncio.run(visit())
