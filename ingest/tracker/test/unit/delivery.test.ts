import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { backoff, createDelivery, type Delivery } from "../../src/delivery";
import { createOutbox, type Outbox } from "../../src/outbox";
import type { Batch, ServerFrame } from "../../src/protocol";

const STREAM = "01a315e46800a1b2c3d4e5f6";

/** A WebSocket that the test plays the node's part of. */
class Socket {
  static all: Socket[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  sent: string[] = [];
  closed = false;
  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {
    Socket.all.push(this);
  }
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.closed = true;
  }
  says(frame: ServerFrame): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
  ends(code = 1006): void {
    this.onclose?.({ code });
  }
  welcome(token = "tok"): void {
    const limits = { batch_events: 256, batch_bytes: 65_536, idle_ms: 60_000 };
    this.says({ t: "welcome", token, node: "n", now: 0, limits });
  }
  batches(): Batch[] {
    return this.sent.map((text) => JSON.parse(text) as Batch);
  }
}

/** Requests that wait for the test to answer. */
interface Request {
  url: string;
  batch: Batch;
  answer(frame: ServerFrame): Promise<void>;
  fail(): Promise<void>;
}

let requests: Request[];
let beacons: Batch[];
let beaconTakes: boolean;
let clock: number;
let logged: unknown[][];
let outbox: Outbox;
let delivery: Delivery;

const turn = async () => {
  for (let i = 0; i < 5; i++) await Promise.resolve();
};
const pass = (ms: number) => {
  clock += ms;
  mock.timers.tick(ms);
};

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(Math, "random", () => 1);
  Socket.all = [];
  requests = [];
  beacons = [];
  logged = [];
  beaconTakes = true;
  clock = 0;
  const fetch = (url: string, { body }: { body: string }) =>
    new Promise((resolve, reject) => {
      requests.push({
        url,
        batch: JSON.parse(body) as Batch,
        answer: (frame) => (resolve({ json: () => Promise.resolve(frame) }), turn()),
        fail: () => (reject(new TypeError("network")), turn()),
      });
    });
  const sendBeacon = (_url: string, body: string) => {
    if (beaconTakes) beacons.push(JSON.parse(body) as Batch);
    return beaconTakes;
  };
  Object.assign(globalThis, { WebSocket: Socket, fetch });
  Object.defineProperty(globalThis, "navigator", { value: { sendBeacon }, configurable: true });
  outbox = createOutbox();
  delivery = createDelivery(outbox, {
    stream: STREAM,
    endpoint: "https://node",
    query: "?k=demo",
    ctx: { w: 1 },
    now: () => clock,
    log: (...what) => logged.push(what),
    reclaim: () => undefined,
    save: () => undefined,
  });
});
afterEach(() => mock.reset());

let seq = 0;
beforeEach(() => (seq = 0));
function issue(count = 1): void {
  for (let i = 0; i < count; i++) outbox.add({ stream: STREAM, seq: ++seq, token: "", at: clock, json: "{}", size: 2 });
  delivery.kick();
}
const last = () => Socket.all[Socket.all.length - 1]!;
const ack = (first: number, upto: number, token?: string): ServerFrame => ({
  t: "ack",
  stream: STREAM,
  first,
  upto,
  ...(token && { token }),
});
const span = ({ first, events }: Batch) => [first, first + events.length - 1];
const pending = () => outbox.list().map((entry) => entry.seq);

/** Two sockets fail, so that HTTP is next. */
function fallBack(): void {
  delivery.open();
  last().ends();
  pass(500);
  last().ends();
  pass(0);
}

test("nothing is sent before the welcome, everything right after it", () => {
  issue(2);
  delivery.open();
  assert.deepEqual(last().sent, []);
  last().welcome();
  assert.deepEqual(last().batches().map(span), [[1, 2]]);
  assert.equal(last().url, "wss://node/ws?k=demo");
  assert.equal(last().protocol, "footfall.v1");
});

test("events that come together go together, and slow makes them wait longer", () => {
  delivery.open();
  last().welcome();
  issue();
  pass(100);
  issue();
  assert.equal(last().batches().length, 0);
  pass(50);
  assert.deepEqual(last().batches().map(span), [[1, 2]]);
  last().says({ t: "slow", linger_ms: 2_000 });
  issue();
  pass(1_999);
  assert.equal(last().batches().length, 1);
  pass(1);
  assert.equal(last().batches().length, 2);
});

test("a resend names the token of its first copy when the connection has another", () => {
  issue();
  delivery.open();
  last().welcome("one");
  assert.equal(last().batches()[0]?.token, undefined);
  last().ends();
  pass(500);
  issue();
  assert.equal(last().url, "wss://node/ws?k=demo&t=one");
  last().welcome("two");
  assert.deepEqual(last().batches().map(({ token, first }) => [first, token]), [[1, "one"], [2, undefined]]);
});

test("a socket that does not ack for 10 seconds is given up, and the events go again over another", () => {
  issue();
  delivery.open();
  last().welcome();
  pass(9_999);
  assert.equal(last().closed, false);
  pass(1);
  assert.equal(Socket.all[0]?.closed, true);
  pass(500);
  assert.equal(Socket.all.length, 2);
  last().welcome();
  assert.deepEqual(last().batches().map(span), [[1, 1]]);
});

test("an idle socket is left alone", () => {
  issue();
  delivery.open();
  last().welcome();
  last().says(ack(1, 1));
  pass(3_600_000);
  assert.equal(Socket.all.length, 1);
  assert.equal(last().closed, false);
});

test("each ack gives the rest another 10 seconds", () => {
  issue();
  delivery.open();
  last().welcome();
  issue();
  pass(9_000);
  last().says(ack(1, 1));
  pass(9_000);
  assert.equal(last().closed, false);
  pass(1_000);
  assert.equal(last().closed, true);
});

test("a nacked batch waits for the time told, and so does what comes meanwhile", () => {
  issue();
  delivery.open();
  last().welcome();
  last().says({ t: "nack", stream: STREAM, first: 1, upto: 1, reason: "overloaded", retry_ms: 3_000 });
  issue();
  pass(2_999);
  assert.equal(last().batches().length, 1);
  pass(1);
  assert.deepEqual(last().batches().map(span), [[1, 1], [1, 2]]);
});

test("a pause holds when the page is hidden", () => {
  issue();
  delivery.open();
  last().welcome();
  last().says({ t: "nack", stream: STREAM, first: 1, upto: 1, reason: "overloaded", retry_ms: 3_000 });
  delivery.flush();
  assert.equal(last().batches().length, 1);
});

test("a socket that was given up does no harm when it closes", () => {
  issue();
  delivery.open();
  last().welcome();
  pass(10_000);
  pass(500);
  last().welcome();
  Socket.all[0]?.ends();
  assert.equal(delivery.state(), "ws");
});

test("a request that was given up does no harm when it fails", async () => {
  issue();
  fallBack();
  await requests[0]?.answer(ack(1, 0, "tok"));
  pass(10_000);
  pass(500 * 2 ** 2);
  last().welcome();
  await requests[1]?.fail();
  assert.equal(delivery.state(), "ws");
});

test("a welcome forgets earlier failures, so that one more does not lead to HTTP", () => {
  delivery.open();
  last().ends();
  pass(500);
  last().welcome();
  last().ends();
  pass(1_000);
  last().ends();
  pass(2_000);
  assert.deepEqual([Socket.all.length, requests.length], [4, 0]);
});

test("an ack makes the next wait short again", () => {
  issue();
  delivery.open();
  for (const wait of [500, 1_000, 2_000]) {
    last().welcome();
    last().ends();
    pass(wait);
  }
  last().welcome();
  last().says(ack(1, 1));
  last().ends();
  pass(500);
  assert.equal(Socket.all.length, 5);
});

test("a refused event is dropped, its siblings are acked", () => {
  issue(2);
  delivery.open();
  last().welcome();
  last().says({ t: "ack", stream: STREAM, first: 1, upto: 2, refused: [{ seq: 1, reason: "bad_url", detail: "u" }] });
  assert.deepEqual(outbox.counts, { sent: 2, acked: 1, refused: 1, evicted: 0 });
});

test("bye tells how long to stay away", () => {
  delivery.open();
  last().welcome();
  last().says({ t: "bye", retry_ms: 4_000 });
  last().ends(1012);
  pass(3_999);
  assert.equal(Socket.all.length, 1);
  pass(1);
  assert.equal(Socket.all.length, 2);
});

for (const [name, code, wait] of [
  ["lost", 1006, 500],
  ["closed by a node that is full", 1013, 8_000],
] as const)
  test(`a connection that was ${name} is opened again within ${wait} ms`, () => {
    delivery.open();
    last().welcome();
    last().ends(code);
    pass(wait - 1);
    assert.equal(Socket.all.length, 1);
    pass(1);
    assert.equal(Socket.all.length, 2);
  });

test("closed by policy: nothing more on this page, and the events are kept for the next", () => {
  issue();
  delivery.open();
  last().welcome();
  last().ends(1008);
  pass(3_600_000);
  delivery.retry();
  assert.equal(Socket.all.length, 1);
  assert.equal(delivery.state(), "stopped");
  assert.deepEqual(pending(), [1]);
});

test("the network's return cuts the wait short", () => {
  delivery.open();
  last().ends();
  delivery.retry();
  assert.equal(Socket.all.length, 2);
  pass(9_999);
  assert.equal(Socket.all.length, 2);
});

test("two sockets without a welcome: HTTP asks for a token first, then sends with it", async () => {
  issue();
  fallBack();
  assert.equal(Socket.all.length, 2);
  assert.equal(requests.length, 1);
  assert.deepEqual([requests[0]?.url, requests[0]?.batch.events], ["https://node/e?k=demo", []]);
  await requests[0]?.answer(ack(1, 0, "tok"));
  assert.deepEqual([requests[1]?.batch.token, requests[1]?.batch.first], ["tok", 1]);
  await requests[1]?.answer(ack(1, 1, "tok"));
  assert.deepEqual(pending(), []);
  assert.equal(delivery.state(), "http");
});

test("a socket that never says welcome counts as failed", () => {
  delivery.open();
  pass(10_000);
  pass(500);
  pass(10_000);
  pass(0);
  assert.equal(requests.length, 1);
});

test("HTTP carries one batch at a time, and the next one as soon as it is acked", async () => {
  issue();
  fallBack();
  await requests[0]?.answer(ack(1, 0, "tok"));
  issue();
  pass(1_000);
  assert.equal(requests.length, 2);
  await requests[1]?.answer(ack(1, 1, "tok"));
  assert.deepEqual(requests.map(({ batch }) => span(batch)), [[1, 0], [1, 1], [2, 2]]);
});

test("after a minute on HTTP, WebSocket is tried again, and left again when it still fails", async () => {
  fallBack();
  await requests[0]?.answer(ack(1, 0, "tok"));
  pass(60_000);
  assert.equal(Socket.all.length, 3);
  last().ends();
  pass(0);
  assert.equal(delivery.state(), "http");
});

test("when HTTP fails too, WebSocket is next", async () => {
  issue();
  fallBack();
  await requests[0]?.fail();
  pass(30_000);
  assert.equal(Socket.all.length, 3);
  last().welcome();
  assert.deepEqual(last().batches().map(span), [[1, 1]]);
});

test("an ack that comes after its request was given up still counts", async () => {
  issue();
  fallBack();
  await requests[0]?.answer(ack(1, 0, "tok"));
  pass(10_000);
  await requests[1]?.answer(ack(1, 1, "tok"));
  assert.deepEqual(pending(), []);
});

const malformed: ServerFrame = { t: "error", reason: "malformed", detail: "" };

test("a batch that HTTP refuses as a whole is tried three times, then dropped and counted, and the next one goes", async () => {
  issue();
  fallBack();
  await requests[0]?.answer(ack(1, 0, "tok"));
  issue();
  for (const attempt of [1, 2, 3]) {
    assert.deepEqual([requests.length, span(requests[attempt]!.batch)], [attempt + 1, [1, 1]]);
    await requests[attempt]?.answer(malformed);
    pass(150);
  }
  assert.deepEqual([outbox.counts.refused, pending()], [1, [2]]);
  assert.deepEqual(requests[4] && span(requests[4].batch), [2, 2]);
});

test("a batch that WebSocket refuses as a whole is tried three times, apart from what comes after it", () => {
  issue(2);
  delivery.open();
  last().welcome();
  issue();
  for (const attempt of [1, 2, 3]) {
    assert.deepEqual(last().batches().map(span), Array.from({ length: attempt }, () => [1, 2]));
    last().says(malformed);
    pass(150);
  }
  assert.deepEqual([outbox.counts.refused, pending()], [2, [3]]);
  assert.deepEqual(logged.filter(([what]) => what === "given up"), [["given up", 2]]);
  assert.deepEqual(last().batches().slice(3).map(span), [[3, 3]]);
  last().says(ack(3, 3));
  assert.deepEqual([outbox.counts.acked, outbox.counts.refused, Socket.all.length], [1, 2, 1]);
});

test("batches in flight beside a refused one are settled, although nobody can tell which was meant", () => {
  delivery.open();
  last().welcome();
  issue();
  pass(150);
  issue();
  pass(150);
  assert.deepEqual(last().batches().map(span), [[1, 1], [2, 2]]);
  // The second is the bad one; the first's ack comes later, as acks wait for the log and errors do not.
  last().says(malformed);
  last().says(ack(1, 1));
  for (let attempt = 2; attempt <= 3; attempt += 1) {
    pass(150);
    assert.deepEqual(span(last().batches().at(-1)!), [2, 2]);
    last().says(malformed);
  }
  assert.deepEqual([outbox.counts.acked, outbox.counts.refused, pending()], [1, 1, []]);
});

test("what was in a refused batch and is taken the second time is stored, and all goes on as before", () => {
  issue();
  delivery.open();
  last().welcome();
  last().says(malformed);
  issue();
  pass(150);
  assert.deepEqual(last().batches().map(span), [[1, 1], [1, 1]]);
  last().says(ack(1, 1));
  assert.deepEqual(last().batches().map(span), [[1, 1], [1, 1], [2, 2]]);
  last().says(ack(2, 2));
  assert.deepEqual(outbox.counts, { sent: 3, acked: 2, refused: 0, evicted: 0 });
});

test("a batch that closes the socket for being too large three times is dropped", () => {
  issue();
  delivery.open();
  for (const wait of [500, 1_000, 2_000]) {
    last().welcome();
    assert.deepEqual(last().batches().map(span), [[1, 1]]);
    last().ends(1009);
    pass(wait);
  }
  last().welcome();
  assert.deepEqual([last().sent, outbox.counts.refused, pending()], [[], 1, []]);
});

test("a connection that is lost with a batch in flight says nothing about the batch", () => {
  issue();
  delivery.open();
  for (const wait of [500, 1_000, 2_000, 4_000]) {
    last().welcome();
    last().ends();
    pass(wait);
  }
  assert.deepEqual([outbox.counts.refused, pending()], [0, [1]]);
});

for (const reason of ["unknown_site", "origin_denied"] as const) {
  test(`${reason} over HTTP ends it: all refused, nothing tried again`, async () => {
    issue(2);
    fallBack();
    await requests[0]?.answer({ t: "error", reason, detail: "" });
    issue();
    pass(3_600_000);
    delivery.retry();
    assert.deepEqual([requests.length, Socket.all.length], [1, 2]);
    assert.deepEqual([outbox.counts.refused, delivery.state()], [3, "stopped"]);
  });

  test(`${reason} over WebSocket ends it: all refused, nothing tried again`, () => {
    issue(2);
    delivery.open();
    last().welcome();
    last().says({ t: "error", reason, detail: "" });
    issue();
    pass(3_600_000);
    delivery.retry();
    assert.deepEqual([requests.length, Socket.all.length, last().closed, last().batches().length], [0, 1, true, 1]);
    assert.deepEqual([outbox.counts.refused, delivery.state()], [3, "stopped"]);
  });
}

test("told to stop, it drops what it holds and does not come back", () => {
  issue(2);
  delivery.open();
  last().welcome();
  last().says({ t: "stop", reason: "site_disabled", for_ms: 3_600_000 });
  issue();
  pass(3_600_000);
  delivery.retry();
  assert.deepEqual([Socket.all.length, last().closed, last().batches().length], [1, true, 1]);
  assert.deepEqual([outbox.counts.refused, delivery.state()], [3, "stopped"]);
});

test("frames of a newer node are ignored", () => {
  issue();
  delivery.open();
  last().welcome();
  last().says({ t: "sample", rate: 0.5 } as unknown as ServerFrame);
  assert.deepEqual([delivery.state(), pending()], ["ws", [1]]);
});

test("which page is shown is told on every connection", () => {
  delivery.show("here");
  delivery.open();
  last().welcome();
  last().ends();
  pass(500);
  last().welcome();
  delivery.show("there");
  assert.deepEqual(Socket.all.map(({ sent }) => sent), [["here"], ["here", "there"]]);
});

test("HTTP does not carry which page is shown", async () => {
  delivery.show('{"t":"here"}');
  fallBack();
  await requests[0]?.answer(ack(1, 0, "tok"));
  delivery.show('{"t":"here"}');
  pass(1_000);
  assert.equal(requests.length, 1);
  assert.ok(Socket.all.every(({ sent }) => !sent.length));
});

test("leaving hands everything unsettled to a beacon and keeps it until it is acked", () => {
  issue();
  delivery.open();
  last().welcome();
  issue();
  delivery.leave(() => true);
  assert.deepEqual(beacons.map((batch) => [...span(batch), batch.token]), [[1, 2, "tok"]]);
  assert.deepEqual(pending(), [1, 2]);
  assert.equal(last().closed, true);
  delivery.open();
  last().welcome("tok");
  assert.deepEqual(last().batches().map(span), [[1, 2]]);
});

test("leaving without a token leaves it to storage", () => {
  issue();
  delivery.open();
  delivery.leave(() => true);
  assert.deepEqual([beacons.length, pending()], [0, [1]]);
});

test("leaving without a token and storage sends a beacon, and never again", () => {
  issue();
  delivery.open();
  delivery.leave(() => false);
  assert.deepEqual(beacons.map(({ token, events }) => [token, events.length]), [[undefined, 1]]);
  assert.deepEqual(pending(), []);
});

test("a beacon that the browser does not take leaves its events", () => {
  beaconTakes = false;
  issue();
  delivery.open();
  delivery.leave(() => false);
  assert.deepEqual(pending(), [1]);
});

test("what storage holds has the token that the beacon used", () => {
  delivery.open();
  last().welcome();
  issue();
  let token: string | undefined;
  delivery.leave(() => {
    token = outbox.list()[0]?.token;
    return true;
  });
  assert.equal(token, "tok");
});

for (const [attempt, random, ms] of [
  [0, 1, 500],
  [0, 0, 0],
  [3, 1, 4_000],
  [3, 0.5, 2_000],
  [6, 1, 30_000],
  [60, 1, 30_000],
] as const)
  test(`attempt ${attempt} with luck ${random} waits ${ms} ms`, () => assert.equal(backoff(attempt, random), ms));
