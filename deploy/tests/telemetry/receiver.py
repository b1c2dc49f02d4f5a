"""Takes OTLP over HTTP and keeps what came, decoded."""

import gzip
import http.server
import threading

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


def plain(value):
    """An AnyValue as Python says it."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def attributes(pairs):
    return {pair.key: plain(pair.value) for pair in pairs}


class Receiver:
    def __init__(self):
        self.requests = {path: [] for path in REQUESTS}
        requests = self.requests

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                requests[self.path].append(REQUESTS[self.path].FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        """Spans as protobuf has them, each with its resource's attributes."""
        for request in list(self.requests["/v1/traces"]):
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        yield span, attributes(resource.resource.attributes)

    def logs(self):
        """(record, name of its scope, its resource's attributes)"""
        for request in list(self.requests["/v1/logs"]):
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        yield record, scope.scope.name, attributes(resource.resource.attributes)

    def metrics(self):
        """The last value of every series: name → unit and {attributes: value}; of histograms the count."""
        last = {}
        for request in list(self.requests["/v1/metrics"]):
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        shape = getattr(metric, metric.WhichOneof("data"))
                        for point in shape.data_points:
                            key = (metric.name, frozenset(attributes(point.attributes).items()))
                            when = point.time_unix_nano
                            if key not in last or last[key][0] <= when:
                                last[key] = (when, metric.unit, number(point))
        metrics = {}
        for (name, series), (_, unit, value) in last.items():
            metrics.setdefault(name, (unit, {}))[1][series] = value
        return metrics


def number(point):
    if hasattr(point, "bucket_counts"):
        return point.count
    return getattr(point, point.WhichOneof("value"))
