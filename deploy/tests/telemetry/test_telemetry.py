"""What a node tells of itself arrives at a real OpenTelemetry collector, and is true."""

import json
import socket
import urllib.request

import pytest

from conftest import eventually, free_port
from receiver import attributes

EVENTS = 400
TOPIC = "footfall.events"


def by_name(receiver, name):
    return [span for span, _ in receiver.spans() if span.name == name]


def related(span):
    """The parent, and the spans that are linked."""
    return [(span.trace_id, span.parent_span_id)] + [(link.trace_id, link.span_id) for link in span.links]


@pytest.fixture(scope="module")
def told(start, collector, receiver):
    """A node's whole life, as the collector heard of it: events taken and refused, everything traced."""
    settings = """
        [telemetry]
        trace_ratio = 1.0
        log = "info,hyper_util=debug,reqwest=debug,librdkafka=warn"
        [aggregator]
        block_ms = 200
    """
    # Metrics are exported once a minute: what arrives is the flush of the end.
    node = start(
        settings,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector,
        OTEL_SERVICE_NAME="footfall-under-test",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    summary = node.load("--connections", "4", "--events", str(EVENTS), "--events-per-frame", "8")
    assert summary["acked"] == EVENTS, summary
    batch = {"t": "batch", "stream": "0" * 24, "first": 1, "sent": 1, "events": [{"k": "nonsense"}]}
    request = urllib.request.Request(
        f"{node.ready['ingest']}/e?k={node.ready['site']}", json.dumps(batch).encode(), method="POST"
    )
    urllib.request.urlopen(request).read()
    eventually("all events are in a traced block", lambda: rows_of_blocks(receiver) == EVENTS)
    node.stop()
    eventually("the last metrics are there", lambda: "process.uptime" in receiver.metrics())
    return receiver


def rows_of_blocks(receiver):
    return sum(attributes(span.attributes)["footfall.rows"] for span in by_name(receiver, f"process {TOPIC}"))


def test_every_batch_is_traced_from_the_socket_to_the_block(told):
    batches, records, blocks = (by_name(told, name) for name in ("batch", f"send {TOPIC}", f"process {TOPIC}"))
    taken = {(span.trace_id, span.span_id) for span in batches if attributes(span.attributes)["footfall.events"] > 1}
    assert sum(attributes(span.attributes)["footfall.events"] for span in batches) == EVENTS + 1

    assert sorted(place for span in records for place in related(span)) == sorted(taken)
    sent = {(span.trace_id, span.span_id) for span in records}
    assert sorted(place for span in blocks for place in related(span)) == sorted(sent)

    parents = {span.span_id: span for span in batches + records}
    for block in blocks:
        record = parents[block.parent_span_id]
        batch = parents[record.parent_span_id]
        assert block.trace_id == record.trace_id == batch.trace_id
        assert batch.parent_span_id == b""
        assert batch.start_time_unix_nano <= record.start_time_unix_nano <= block.start_time_unix_nano
        assert batch.end_time_unix_nano <= block.end_time_unix_nano
        assert (batch.kind, record.kind, block.kind) == (batch.SPAN_KIND_SERVER, 4, 5)


def test_the_metrics_say_what_was_sent(told):
    metrics = told.metrics()

    def total(name, **wanted):
        wanted = {key.replace("__", "."): value for key, value in wanted.items()}
        series = metrics[name][1].items()
        return sum(value for labels, value in series if wanted.items() <= dict(labels).items())

    of_site = {"footfall__site": "demo"}
    assert total("footfall.ingest.events.received", **of_site) == EVENTS + 1
    assert total("footfall.ingest.events.accepted", **of_site) == EVENTS
    assert total("footfall.ingest.events.refused", error__type="missing_field", **of_site) == 1
    assert total("footfall.ingest.events.in_flight") == 0
    assert total("footfall.ingest.socket.count") == 0
    assert total("footfall.aggregator.rows") == EVENTS
    records = len(by_name(told, f"send {TOPIC}"))
    assert total("messaging.client.sent.messages", messaging__destination__name=TOPIC) == records
    assert total("footfall.ingest.record.events") == records
    assert total("footfall.ingest.ack.duration") == len(by_name(told, "batch"))
    assert total("process.cpu.time", cpu__mode="user") > 0
    assert total("process.memory.usage") > 10_000_000
    units = {name: metrics[name][0] for name in ("footfall.ingest.ack.duration", "process.memory.usage")}
    assert units == {"footfall.ingest.ack.duration": "s", "process.memory.usage": "By"}


def test_logs_come_with_their_severity_and_without_those_of_the_exporters(told):
    records = list(told.logs())
    serves, scope, _ = next(entry for entry in records if entry[0].body.string_value == "ingest serves")
    assert (serves.severity_number, serves.severity_text) == (9, "INFO")
    assert attributes(serves.attributes)["address"].startswith("127.0.0.1:")
    scopes = {scope for _, scope, _ in records}
    assert scope == "footfall_ingest::run"
    assert not [scope for scope in scopes if scope.split("::")[0] in ("hyper_util", "reqwest", "opentelemetry_sdk")]


def test_everything_says_where_it_comes_from(told):
    resources = [resource for _, resource in told.spans()] + [resource for *_, resource in told.logs()]
    for request in told.requests["/v1/metrics"]:
        resources += [attributes(resource.resource.attributes) for resource in request.resource_metrics]
    assert resources
    for resource in resources:
        assert resource["service.name"] == "footfall-under-test"
        assert resource["deployment.environment.name"] == "test"
        assert resource["footfall.role"] == "standalone"
        assert resource["service.instance.id"] and resource["service.version"]


@pytest.fixture(params=["refuses", "is silent"])
def gone(request):
    """The address of a collector that is down, or that takes connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            silent.listen(64)
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
        else:
            yield f"http://127.0.0.1:{free_port()}"


def test_a_collector_that_is_gone_neither_slows_nor_keeps_the_node(start, gone):
    settings = f'[telemetry]\notlp_endpoint = "{gone}"\ntrace_ratio = 1.0\n'
    node = start(settings, OTEL_METRIC_EXPORT_INTERVAL="100", OTEL_BSP_MAX_QUEUE_SIZE="16")
    summary = node.load("--connections", "20", "--events", "4000", "--events-per-frame", "4")
    assert (summary["acked"], summary["nacked"]) == (4000, 0)
    assert summary["ack_p99_ms"] < 1000
    with urllib.request.urlopen(f"{node.ready['ingest']}/readyz") as answer:
        assert answer.status == 200
    # Its own drain takes up to a few seconds; the exporters may add three.
    assert node.stop() < 15
