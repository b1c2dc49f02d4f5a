"""What a client written from the page alone sends arrives, each event once, over every transport."""

import json
import subprocess
import time
import urllib.request

import pytest
from conftest import ROOT, SECRET, eventually
from client import Refused, Server, Tracker, answer_of, event_id
from websockets.exceptions import ConnectionClosed

PAGE = "https://example.com"


def test_events_over_a_websocket_are_stored_once_however_often_they_are_sent(node):
    tracker = Tracker(node.base, "demo")
    with tracker.dial() as (socket, welcome):
        assert welcome["settings"] == {"mask_paths": ["/users/*"]}
        socket.send(json.dumps({"t": "here", "path": "/", "visible": True}))
        socket.send(json.dumps({"t": "from_the_future", "deep": [[1]]}))
        view = tracker.issue("view", f"{PAGE}/", t="Home")
        tracker.issue("custom", f"{PAGE}/", n="buy", p={"price": 12.5, "gift": True}, pv=view)
        tracker.issue("engagement", f"{PAGE}/", d=1200, s=80, pv=view)
        kept = dict(tracker.unsettled)
        ack = tracker.converse(socket)
        assert (ack["t"], ack["first"], ack["upto"]) == ("ack", 1, 3)
        assert not tracker.unsettled

    # As if the ack had been lost: another connection, the same numbers.
    tracker.unsettled = kept
    with tracker.dial() as (socket, _):
        assert tracker.converse(socket)["upto"] == 3
        tracker.issue("custom", f"{PAGE}/after", n="after")
        tracker.converse(socket)
    rows = node.stored(tracker.stream, 4)
    assert [row["kind"] for row in rows] == ["view", "custom", "engagement", "custom"]
    assert len({row["visitor"] for row in rows}) == 1


def test_one_bad_event_is_refused_by_its_number(node):
    tracker = Tracker(node.base, "demo")
    with tracker.dial() as (socket, _):
        tracker.issue("view", f"{PAGE}/good")
        bad = tracker.issue("view", "nonsense")
        ack = tracker.converse(socket)
        assert [(refusal["seq"], refusal["reason"]) for refusal in ack["refused"]] == [(bad, "bad_url")]
    assert [row["path"] for row in node.stored(tracker.stream, 1)] == ["/good"]
    sql = f"SELECT reason FROM dead_letters WHERE event_id = '{event_id(tracker.stream, bad)}'"
    assert eventually("its dead letter", lambda: node.rows(sql)) == [{"reason": "bad_url"}]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_the_same_batches_over_http(node, compress):
    tracker = Tracker(node.base, "demo")
    asked = tracker.post(empty=True, compress=compress)
    assert asked["first"] == asked["upto"] + 1 and asked["settings"] == {"mask_paths": ["/users/*"]}
    tracker.issue("view", f"{PAGE}/http")
    kept = dict(tracker.unsettled)
    assert tracker.post(compress=compress)["upto"] == 1
    # Again, over another transport.
    tracker.unsettled = kept
    with tracker.dial() as (socket, _):
        tracker.converse(socket)
        tracker.issue("view", f"{PAGE}/second")
        tracker.converse(socket)
    assert [row["path"] for row in node.stored(tracker.stream, 2)] == ["/http", "/second"]


def test_the_same_batches_as_a_pixel(node):
    tracker = Tracker(node.base, "demo")
    tracker.post(empty=True)
    tracker.issue("view", f"{PAGE}/pixel")
    assert tracker.pixel()["upto"] == 1
    assert [row["path"] for row in node.stored(tracker.stream, 1)] == ["/pixel"]


def test_a_page_without_scripts_is_seen_by_its_image(node):
    request = urllib.request.Request(f"{node.base}/e.gif?k=demo", headers={"referer": f"{PAGE}/noscript"})
    answer = answer_of(request)
    assert answer.headers["content-type"] == "image/gif" and "no-store" in answer.headers["cache-control"]
    ack = json.loads(answer.headers["footfall-answer"])
    assert [row["path"] for row in node.stored(ack["stream"], 1)] == ["/noscript"]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_what_a_server_signs_is_answered_event_by_event(node, compress):
    server = Server(node.base, "demo", SECRET)
    now = int(time.time() * 1000)
    key = f"order-{compress}-{now}"
    events = [
        {"k": "custom", "at": now - 86_400_000, "u": f"{PAGE}/paid", "n": "paid", "idempotency": key, "visitor": "c-42"},
        {"k": "view", "at": now - 8 * 86_400_000, "u": f"{PAGE}/", "idempotency": f"{key}-old", "visitor": "c-42"},
        {"k": "view", "at": now, "u": f"{PAGE}/", "visitor": "c-42"},
    ]
    for _ in range(2):
        accepted, old, nameless = server.send(events, compress)
        assert accepted == {"result": "accepted", "id": server.id_of(key)}
        assert (old["result"], old["reason"]) == ("refused", "too_old")
        assert (nameless["result"], nameless["reason"]) == ("refused", "missing_field")
    sql = f"SELECT event_id, dateDiff('second', event_time, received_at) AS age FROM events WHERE event_id = '{server.id_of(key)}'"
    (row,) = eventually("the event", lambda: node.rows(sql))
    assert abs(float(row["age"]) - 86_400) < 60
    # A witness behind it on the same partition (of the same visitor): the second copy has been passed.
    witness = {**events[0], "idempotency": f"{key}-witness"}
    server.send([witness])
    eventually("the witness", lambda: node.rows(f"SELECT 1 FROM events WHERE event_id = '{server.id_of(key + '-witness')}'"))
    assert len(node.rows(sql)) == 1


def test_who_does_not_sign_well_is_refused(node):
    event = {"k": "view", "at": int(time.time() * 1000), "u": f"{PAGE}/", "idempotency": "x", "visitor": "y"}
    for server, now, headers, status, reason in [
        (Server(node.base, "demo", "ff" * 32), None, {}, 401, "bad_signature"),
        (Server(node.base, "demo", SECRET), time.time() - 400, {}, 401, "bad_timestamp"),
        (Server(node.base, "demo", SECRET), None, {"origin": PAGE}, 403, "origin_denied"),
        (Server(node.base, "nowhere", SECRET), None, {}, 404, "unknown_site"),
    ]:
        with pytest.raises(Refused) as refused:
            server.send([event], now=now, **headers)
        assert (refused.value.status, json.loads(refused.value.body)["reason"]) == (status, reason)


def test_a_site_that_is_switched_off_tells_everybody_to_stop(node):
    tracker = Tracker(node.base, "closed")
    with tracker.dial() as (socket, first):
        assert (first["t"], first["reason"]) == ("stop", "site_disabled") and first["for_ms"] > 0
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd.code == 1008
        with pytest.raises(Refused) as refused:
            tracker.post(empty=True)
        assert refused.value.status == 403 and json.loads(refused.value.body)["t"] == "stop"


def test_the_signing_example_of_the_page_prints_what_it_says():
    page = (ROOT / "schemas/PROTOCOL.md").read_text()
    blocks = [block.split("\n", 1) for block in page.split("\n```")[1::2]]
    (script,) = [text for info, text in blocks if info == "sh" and "openssl" in text]
    (shown,) = [text for info, text in blocks if info == "" and text.startswith("v1=")]
    printed = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout == shown + "\n"
