"""Grafana's dashboard and Prometheus' alerts ask only for what a node tells."""

import base64
import json
import os
import re
import socket
import urllib.error
import urllib.parse
import urllib.request

import promql_parser
import pytest
import yaml

from conftest import ROOT, eventually

GRAFANA = ROOT / "deploy" / "grafana"


def dashboard():
    panels = json.loads((GRAFANA / "footfall.json").read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield f"panel {panel['title']}", re.sub(r"\$\w+", ".*", expression)


def alerts():
    for group in yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


QUERIES = [*dashboard(), *alerts()]


def selectors(node):
    """Every (metric, labels that are asked of it) in a parsed query; labels of `by` are asked of all in it."""
    found = []
    if isinstance(node, promql_parser.VectorSelector):
        return [(node.name, {matcher.name for matcher in node.matchers.matchers})]
    for part in ("expr", "lhs", "rhs", "vector_selector"):
        if getattr(node, part, None) is not None:
            found += selectors(getattr(node, part))
    for argument in getattr(node, "args", None) or []:
        found += selectors(argument)
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
        found = [(name, labels | set(modifier.labels)) for name, labels in found]
    return found


@pytest.fixture(scope="module")
def told(start):
    """What /metrics says of a node that had a bit of everything: metric → labels seen on it."""
    node = start("[aggregator]\nblock_ms = 200\naudit_ms = 500\n")
    ingest = node.ready["ingest"]
    assert node.load("--connections", "2", "--events", "100")["acked"] == 100
    # An event that is refused, a request that is denied, and a socket that is closed.
    batch = {"t": "batch", "stream": "0" * 24, "first": 1, "sent": 1, "events": [{"k": "nonsense"}]}
    post = urllib.request.Request(f"{ingest}/e?k=demo", json.dumps(batch).encode(), method="POST")
    urllib.request.urlopen(post).read()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(f"{ingest}/e?k=unknown", b"{}", method="POST"))
    send_a_binary_frame(urllib.parse.urlsplit(ingest))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(f"{node.ready['dashboard']}/login", b"token=x", method="POST"))

    def metrics():
        text = urllib.request.urlopen(f"{ingest}/metrics").read().decode()
        seen = {}
        for line in text.splitlines():
            series = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line)
            if series and not line.startswith("#"):
                labels = re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', series[2] or "")
                seen.setdefault(series[1], set()).update(labels)
        return seen

    yield eventually(
        "rows, an audit, a refusal and a close are told",
        lambda: (
            "footfall_aggregator_block_duration_seconds_bucket" in (seen := metrics())
            and "footfall_aggregator_audit_clean_seconds" in seen
            and "footfall_dashboard_hub_lag_seconds_bucket" in seen
            and "footfall_close_code" in seen["footfall_ingest_closes_total"]
            and "error_type" in seen["footfall_ingest_events_refused_total"]
            and seen
        ),
    )


def send_a_binary_frame(url):
    """Closed with 1003: trackers speak text."""
    with socket.create_connection((url.hostname, url.port)) as stream:
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /ws?k=demo HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        stream.sendall(head.encode() + bytes([0x82, 0x81, 0, 0, 0, 0, 7]))
        answer = b""
        while chunk := stream.recv(4096):
            answer += chunk
    assert b" 101 " in answer


@pytest.mark.parametrize("where,query", QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_asks_for_what_is_told(told, where, query):
    asked = selectors(promql_parser.parse(query))
    assert asked, query
    # Prometheus adds it to what it scrapes.
    given = {"instance"}
    # Of what did not happen here.
    rare = {
        ("messaging_client_sent_messages_total", "error_type"),
        ("footfall_ingest_events_retried_total", "error_type"),
        ("footfall_aggregator_failures_total", "messaging_destination_partition_id"),
        ("footfall_aggregator_alerts_total", "footfall_alert_kind"),
        ("footfall_aggregator_alerts_total", "footfall_alert_state"),
        ("footfall_aggregator_webhooks_total", "footfall_outcome"),
        ("footfall_dashboard_closes_total", "footfall_close_code"),
        ("footfall_dashboard_history_total", "footfall_outcome"),
        ("footfall_dashboard_filter_queries_total", "footfall_outcome"),
    }
    for name, labels in asked:
        assert name in told, f"{where}: no node tells {name}"
        missing = {label for label in labels - given - told[name] if (name, label) not in rare}
        assert not missing, f"{where}: {name} has no {missing}"


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(told):
    asked = {name for _, query in QUERIES for name, _ in selectors(promql_parser.parse(query))}
    asked = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in told if name.startswith("footfall_")}
    assert ours - asked == set()
