"""A client of `footfall.v1`, written from schemas/PROTOCOL.md alone: it knows nothing else of Footfall."""

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request

from websockets.sync.client import connect


def new_stream():
    """48 bits of time and 48 random bits, in hex."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(6)}"


def event_id(stream, sequence):
    digits = f"{stream}{sequence:08x}"
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Tracker:
    """One page load."""

    def __init__(self, base, site):
        self.base = base
        self.site = site
        self.stream = new_stream()
        self.started = time.monotonic()
        self.sequence = 0
        self.unsettled = {}
        self.token = None

    def clock(self):
        return round((time.monotonic() - self.started) * 1000)

    def issue(self, kind, url, **fields):
        """Numbers an event and keeps it until it is settled."""
        self.sequence += 1
        self.unsettled[self.sequence] = {"k": kind, "at": self.clock(), "u": url, **fields}
        return self.sequence

    def batch(self, empty=False):
        """Everything that is not settled. It was issued in one go, so it is consecutive."""
        events = {} if empty else self.unsettled
        return {
            "t": "batch",
            "stream": self.stream,
            "first": min(events, default=1),
            "sent": self.clock(),
            "ctx": {"w": 1440, "l": "en-GB", "z": "Europe/Berlin"},
            "events": [events[sequence] for sequence in sorted(events)],
        }

    def hear(self, frame):
        if frame["t"] == "ack":
            self.token = frame.get("token", self.token)
            for sequence in range(frame["first"], frame["upto"] + 1):
                self.unsettled.pop(sequence)
        return frame

    @contextlib.contextmanager
    def dial(self):
        """A WebSocket and the first frame on it."""
        query = {"k": self.site} | ({"t": self.token} if self.token else {})
        base = self.base.replace("http", "ws", 1)
        with connect(f"{base}/ws?{urllib.parse.urlencode(query)}", subprotocols=["footfall.v1"]) as socket:
            first = json.loads(socket.recv(timeout=10))
            if first["t"] == "welcome":
                self.token = first["token"]
            yield socket, first

    def converse(self, socket):
        """Sends what is not settled and hears what becomes of it."""
        socket.send(json.dumps(self.batch()))
        while True:
            frame = json.loads(socket.recv(timeout=30))
            if frame["t"] in ("ack", "nack", "error", "stop"):
                return self.hear(frame)

    def post(self, empty=False, compress=False):
        """A batch over HTTP."""
        query = {"k": self.site} | ({"t": self.token} if self.token else {})
        body = json.dumps(self.batch(empty)).encode()
        headers = {"content-type": "text/plain"}
        if compress:
            body = gzip.compress(body)
            headers["content-encoding"] = "gzip"
        request = urllib.request.Request(
            f"{self.base}/e?{urllib.parse.urlencode(query)}", data=body, headers=headers
        )
        return self.hear(json.loads(answer_of(request).read()))

    def pixel(self):
        """A batch as the address of an image."""
        batch = base64.urlsafe_b64encode(json.dumps(self.batch()).encode()).rstrip(b"=").decode()
        query = {"k": self.site, "t": self.token, "b": batch}
        answer = answer_of(urllib.request.Request(f"{self.base}/e.gif?{urllib.parse.urlencode(query)}"))
        assert answer.read().startswith(b"GIF89a")
        return self.hear(json.loads(answer.headers["footfall-answer"]))


class Server:
    """A site's own server."""

    def __init__(self, base, site, secret):
        self.base = base
        self.site = site
        self.secret = bytes.fromhex(secret)

    def send(self, events, compress=False, now=None, **headers):
        body = json.dumps({"events": events}).encode()
        if compress:
            body = gzip.compress(body)
            headers["content-encoding"] = "gzip"
        timestamp = str(int(time.time() if now is None else now))
        signed = f"{self.site}\n{timestamp}\n".encode() + body
        headers |= {
            "footfall-site": self.site,
            "footfall-timestamp": timestamp,
            "footfall-signature": "v1=" + hmac.new(self.secret, signed, hashlib.sha256).hexdigest(),
        }
        request = urllib.request.Request(f"{self.base}/api/v1/events", data=body, headers=headers)
        return json.loads(answer_of(request).read())["results"]

    def id_of(self, idempotency):
        """The id that a key stands for."""
        digest = hashlib.sha256(self.site.encode() + b"\0" + idempotency.encode()).hexdigest()
        digits = "0" * 12 + digest[:20]
        return event_id(digits[:24], int(digits[24:], 16))


def answer_of(request):
    try:
        return urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        raise Refused(error.code, error.read().decode()) from error
