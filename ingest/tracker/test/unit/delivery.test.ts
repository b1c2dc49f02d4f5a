import assert from "node:assert/strict";
import { test } from "node:test";
import type { Batch } from "../../src/protocol";
import { Page, type PageOptions } from "./page";

const names = ({ events }: Batch) => events.map(({ k, n }) => n ?? k);
const span = ({ first, events }: Batch) => [first, first + events.length - 1];

/** A page that is connected and has had its view acked. */
function connected(options?: PageOptions): Page {
  const page = new Page(options);
  page.socket.welcome();
  page.socket.ack();
  return page;
}

/** A page whose WebSockets fail: on HTTP, with a token asked for. */
function overHttp(options?: PageOptions): Page {
  const page = new Page(options);
  page.socket.ends();
  page.pass(1_000);
  page.socket.ends();
  page.pass(2_000);
  return page;
}
const token = { t: "ack", stream: "", first: 1, upto: 0, token: "tok" } as const;
const ackOf = ({ stream, first, events }: Batch) => ({ t: "ack", stream, first, upto: first + events.length - 1 }) as const;

test("nothing is sent before the welcome, everything right after it", () => {
  const page = new Page();
  assert.equal(page.socket.url, "wss://node.example/ws?k=demo&t=");
  assert.equal(page.socket.protocol, "footfall.v1");
  page.custom();
  page.pass(5_000);
  assert.deepEqual(page.socket.sent, []);
  page.socket.welcome();
  assert.deepEqual(page.socket.frames().map(({ t }) => t), ["here", "batch"]);
  assert.deepEqual(names(page.socket.batches()[0]!), ["view", "event"]);
  assert.match(page.socket.batches()[0]!.stream, /^[0-9a-f]{24}$/);
  assert.equal(page.state().transport, "ws");
});

test("events that come together go together, and slow makes them wait longer, until the connection ends", () => {
  const page = connected();
  page.custom("a");
  page.pass(100);
  page.custom("b");
  assert.equal(page.socket.batches().length, 1);
  page.pass(50);
  assert.deepEqual(names(page.socket.batches()[1]!), ["a", "b"]);
  page.socket.ack();
  page.socket.says({ t: "slow", linger_ms: 2_000 });
  page.custom("c");
  page.pass(1_900);
  assert.equal(page.socket.batches().length, 2);
  page.pass(100);
  assert.deepEqual(names(page.socket.batches()[2]!), ["c"]);
  page.socket.ends(1012);
  page.pass(600);
  page.socket.welcome();
  page.socket.ack();
  page.custom("d");
  page.pass(150);
  assert.deepEqual(names(page.socket.batches()[1]!), ["d"]);
});

test("what was not acked goes again over the next connection, under the same numbers, for the same visitor", () => {
  const page = connected();
  page.custom();
  page.pass(150);
  page.socket.ends();
  page.pass(600);
  assert.equal(page.socket.url, "wss://node.example/ws?k=demo&t=tok");
  page.socket.welcome("renewed");
  const [first] = page.sockets;
  const again = page.socket.batches()[0]!;
  assert.deepEqual([again.stream, span(again), again.events], [first!.batches()[1]!.stream, [2, 2], first!.batches()[1]!.events]);
  page.socket.ack();
  assert.deepEqual([page.state().pending, page.state().acked], [0, 2]);
});

test("a socket that does not ack is given up after 10 to 20 seconds, one that is idle or acks is not", () => {
  const page = connected();
  page.pass(60_000);
  page.custom("acked");
  page.pass(1_000);
  page.socket.ack();
  page.pass(60_000);
  assert.equal(page.sockets.length, 1);
  page.custom("swallowed");
  page.pass(9_000);
  assert.equal(page.sockets.length, 1);
  page.pass(12_000);
  assert.equal(page.sockets.length, 2);
  assert.ok(page.sockets[0]!.closed);
  page.socket.welcome();
  assert.deepEqual(names(page.socket.batches()[0]!), ["swallowed"]);
});

test("a socket that never says welcome counts as failed", () => {
  const page = new Page();
  page.pass(21_000);
  assert.equal(page.sockets.length, 2);
  assert.ok(page.sockets[0]!.closed);
});

test("a nacked batch waits for the time told, and so does what comes meanwhile", () => {
  const page = connected();
  page.custom("a");
  page.pass(150);
  const { stream } = page.socket.batches()[1]!;
  page.socket.says({ t: "nack", stream, first: 2, upto: 2, reason: "overloaded", retry_ms: 3_000 });
  page.custom("b");
  page.pass(2_900);
  assert.equal(page.socket.batches().length, 2);
  page.pass(100);
  assert.deepEqual(names(page.socket.batches()[2]!), ["a", "b"]);
});

test("an ack behind a nack settles nothing out of turn, and the resend settles all", () => {
  const page = connected();
  page.custom("a");
  page.pass(150);
  page.custom("b");
  page.pass(150);
  const { stream } = page.socket.batches()[1]!;
  page.socket.says({ t: "nack", stream, first: 2, upto: 2, reason: "overloaded", retry_ms: 500 });
  page.socket.says({ t: "ack", stream, first: 3, upto: 3 });
  assert.equal(page.state().pending, 2);
  page.pass(500);
  assert.deepEqual(span(page.socket.batches().at(-1)!), [2, 3]);
  page.socket.ack();
  assert.deepEqual([page.state().pending, page.state().acked], [0, 3]);
});

test("an ack may cover several batches, and the second of the same counts nothing", () => {
  const page = connected();
  page.custom("a");
  page.pass(150);
  page.custom("b");
  page.pass(150);
  const { stream } = page.socket.batches()[1]!;
  page.socket.says({ t: "ack", stream, first: 2, upto: 3 });
  page.socket.says({ t: "ack", stream, first: 3, upto: 3 });
  assert.deepEqual([page.state().pending, page.state().acked], [0, 3]);
});

test("a refused event is dropped, its siblings are acked", () => {
  const page = connected();
  page.custom("good");
  page.custom("bad");
  page.pass(150);
  page.socket.ack([{ seq: 3, reason: "bad_props", detail: "" }]);
  assert.deepEqual([page.state().acked, page.state().refused, page.state().pending], [2, 1, 0]);
});

test("a batch fits into a frame whatever its events hold, and a thousand events arrive in their order", () => {
  const page = new Page();
  for (let i = 0; i < 900; i++) page.custom(`e${i}`, { props: { text: "€".repeat(80) } });
  page.socket.welcome();
  const batches = page.socket.batches();
  assert.deepEqual(batches.flatMap(names), ["view", ...Array.from({ length: 900 }, (_, i) => `e${i}`)]);
  for (const text of page.socket.sent) assert.ok(Buffer.byteLength(text) <= 65_536, `${Buffer.byteLength(text)} bytes`);
  assert.ok(batches.every(({ events }) => events.length <= 256));
});

test("a full outbox evicts the oldest, counts it, and tells it in one batch until that is acked", () => {
  const page = new Page();
  for (let i = 0; i < 2_009; i++) page.custom(`e${i}`);
  assert.deepEqual([page.state().pending, page.state().evicted], [2_000, 10]);
  page.socket.welcome();
  const told = page.socket.batches();
  assert.equal(told[0]!.first, 11);
  assert.deepEqual(told.map(({ evicted }) => evicted).filter(Boolean), [10]);
  page.socket.ends();
  page.pass(1_000);
  page.socket.welcome();
  assert.deepEqual(page.socket.batches().map(({ evicted }) => evicted).filter(Boolean), [10], "told again");
  for (const { stream, first, events } of page.socket.batches()) page.socket.says({ t: "ack", stream, first, upto: first + events.length - 1 });
  page.custom();
  page.pass(150);
  assert.equal(page.socket.batches().at(-1)!.evicted, undefined);
});

test("an event over 8,192 units is refused on the spot, the others are not", () => {
  const page = connected();
  page.custom("big", { props: { text: "x".repeat(8_200) } });
  page.custom("small");
  page.pass(150);
  assert.deepEqual(names(page.socket.batches()[1]!), ["small"]);
  assert.equal(page.state().refused, 1);
});

test("bye tells how long to stay away", () => {
  const page = connected();
  page.socket.says({ t: "bye", retry_ms: 4_000 });
  page.socket.ends(1012);
  page.pass(3_900);
  assert.equal(page.sockets.length, 1);
  page.pass(200);
  assert.equal(page.sockets.length, 2);
});

test("waits grow with full jitter up to 30 s, and an ack makes them short again", () => {
  const page = connected({ random: () => 0.999 });
  const waits: number[] = [];
  for (let i = 0; i < 9; i++) {
    const before = page.sockets.length;
    page.socket.ends();
    const from = page.clock;
    while (page.sockets.length === before) page.pass(10);
    waits.push(page.clock - from);
    page.socket.welcome();
  }
  assert.deepEqual(waits.map((ms) => Math.round(ms / 500)), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
  page.custom();
  page.pass(150);
  page.socket.ack();
  page.socket.ends();
  const before = page.sockets.length;
  page.pass(510);
  assert.equal(page.sockets.length, before + 1);
});

test("the network's return cuts the wait short", () => {
  const page = connected();
  page.socket.ends();
  page.pass(600);
  page.socket.ends();
  const before = page.sockets.length;
  page.fires("online");
  assert.equal(page.sockets.length, before + 1);
});

test("two sockets without a welcome: HTTP asks for a token first, then sends with it, one batch at a time", async () => {
  const page = overHttp();
  assert.equal(page.request.url, "https://node.example/e?k=demo&t=");
  assert.deepEqual([page.request.batch.events, page.request.batch.first], [[], 1]);
  page.custom("a");
  await page.request.answer({ ...token, stream: page.request.batch.stream });
  assert.equal(page.state().transport, "http");
  assert.equal(page.request.url, "https://node.example/e?k=demo&t=tok");
  assert.deepEqual(names(page.request.batch), ["view", "a"]);
  page.custom("b");
  page.pass(1_000);
  assert.equal(page.requests.length, 2);
  await page.request.answer({ ...ackOf(page.request.batch), token: "renewed" });
  assert.deepEqual([names(page.request.batch), page.request.url], [["b"], "https://node.example/e?k=demo&t=renewed"]);
});

test("a node that refuses to give a token costs no event", async () => {
  const page = overHttp();
  page.custom("kept");
  for (let i = 0; i < 3; i++) {
    await page.request.answer({ t: "error", reason: "malformed", detail: "" });
    page.pass(31_000);
  }
  assert.deepEqual([page.state().pending, page.state().refused], [2, 0]);
});

test("after a minute on HTTP, WebSocket is tried again with the token", async () => {
  const page = overHttp();
  await page.request.answer({ ...token, stream: page.request.batch.stream });
  await page.request.answer(ackOf(page.request.batch));
  page.pass(61_000);
  assert.equal(page.sockets.length, 3);
  assert.equal(page.socket.url, "wss://node.example/ws?k=demo&t=tok");
  page.socket.welcome();
  assert.equal(page.state().transport, "ws");
});

test("a request that fails leaves its events; a late ack still counts", async () => {
  const page = overHttp();
  await page.request.answer({ ...token, stream: page.request.batch.stream });
  const lost = page.request;
  page.pass(21_000);
  assert.equal(page.state().transport, "none");
  await lost.answer(ackOf(lost.batch));
  assert.deepEqual([page.state().acked, page.state().pending], [1, 0]);
});

test("HTTP that fails twice, too, leads to pixels of at most 16 events, acked by their arrival", async () => {
  const page = overHttp();
  for (let i = 0; i < 20; i++) page.custom(`e${i}`, { props: { text: "ä&=" } });
  await page.request.fail();
  page.pass(10_000);
  await page.request.fail();
  page.pass(10_000);
  assert.equal(page.state().transport, "pixel");
  const batchOf = (src: string) => JSON.parse(new URL(src).searchParams.get("b")!) as Batch;
  const [first] = page.images;
  assert.match(first!.src, /^https:\/\/node\.example\/e\.gif\?k=demo&t=&b=/);
  assert.deepEqual(span(batchOf(first!.src)), [1, 16]);
  first!.onload!();
  assert.deepEqual([page.images.length, page.state().acked], [2, 16]);
  page.images[1]!.onerror!();
  page.pass(10_000);
  assert.equal(page.sockets.length, 3, "WebSocket is next");
});

test("a pixel's address stays within what a node reads", async () => {
  const page = overHttp();
  for (let i = 0; i < 3; i++) page.custom(`e${i}`, { props: { text: "x".repeat(3_000), more: "y".repeat(3_000) } });
  page.custom("huge", { props: { text: "€".repeat(2_600) } });
  page.custom("last");
  for (let i = 0; i < 2; i++) {
    await page.request.fail();
    page.pass(10_000);
  }
  for (let i = 0; page.state().pending && i < 10; i++) page.images.at(-1)!.onload!();
  assert.ok(page.images.every(({ src }) => src.length <= 12_000), String(page.images.map(({ src }) => src.length)));
  assert.deepEqual([page.state().acked, page.state().refused, page.state().pending], [5, 1, 0]);
});

test("a batch that is refused as a whole is sent one by one, and what is refused alone is given up", () => {
  const page = connected();
  page.custom("a");
  page.custom("poison");
  page.custom("b");
  page.pass(150);
  for (let i = 0; i < 10 && page.state().pending; i++) {
    if (names(page.socket.batches().at(-1)!).includes("poison")) page.socket.says({ t: "error", reason: "malformed", detail: "" });
    else page.socket.ack();
  }
  assert.deepEqual([page.state().acked, page.state().refused, page.state().pending], [3, 1, 0]);
});

test("so is one that closes the socket because it is too large", () => {
  const page = connected();
  page.custom("a");
  page.custom("large");
  page.pass(150);
  for (let i = 0; i < 10 && page.state().pending; i++) {
    if (!page.socket.batches().length) page.socket.welcome();
    if (names(page.socket.batches().at(-1)!).includes("large")) {
      page.socket.ends(1009);
      page.pass(1_000 * 2 ** i);
    } else page.socket.ack();
  }
  assert.deepEqual([page.state().acked, page.state().refused, page.state().pending], [2, 1, 0]);
});

for (const [what, ends] of [
  ["told to stop", (page: Page) => page.socket.says({ t: "stop", reason: "site_disabled", for_ms: 3_600_000 })],
  ["closed by policy", (page: Page) => page.socket.ends(1008)],
  ["of an unknown site", (page: Page) => page.socket.says({ t: "error", reason: "unknown_site", detail: "" })],
  ["of a denied origin", (page: Page) => page.socket.says({ t: "error", reason: "origin_denied", detail: "" })],
] as const)
  test(`${what}, it forgets what it holds and is silent for the rest of the page's life`, () => {
    const page = connected({ storage: { "footfall:other:x": "[]" } });
    page.custom();
    page.hides();
    ends(page);
    page.custom();
    page.pass(200_000);
    page.fires("online");
    page.fires("pageshow", { persisted: true });
    page.leaves();
    assert.deepEqual([page.sockets.length, page.beacons.length, page.requests.length], [1, 0, 0]);
    assert.deepEqual(Object.keys(page.storage).filter((key) => key.startsWith("footfall:demo")), []);
  });

test("the next page stays away for the time that it was told", () => {
  const page = connected();
  page.socket.says({ t: "stop", reason: "site_disabled", for_ms: 3_600_000 });
  const { storage } = page;
  const soon = new Page({ storage, wallAt: 1_800_000_000_000 + 3_000_000 });
  soon.pass(60_000);
  assert.equal(soon.sockets.length, 0);
  assert.equal(new Page({ storage, wallAt: 1_800_000_000_000 + 3_700_000 }).sockets.length, 1);
});

test("sample drops that share of these kinds before they are numbered, counts them, and ends", () => {
  let random = 0.4;
  const page = connected({ random: () => random });
  page.socket.says({ t: "sample", drop_percent: 50, kinds: ["custom"], for_ms: 10_000 });
  page.custom("dropped");
  random = 0.6;
  page.custom("kept");
  page.pass(150);
  const batch = page.socket.batches().at(-1)!;
  assert.deepEqual([names(batch), batch.first, batch.evicted], [["kept"], 2, 1]);
  page.pass(10_000);
  random = 0;
  page.custom("after");
  page.pass(150);
  assert.deepEqual(names(page.socket.batches().at(-1)!), ["after"]);
});

test("what happens on a view that was sampled out belongs to no view", async () => {
  const page = connected({ random: () => 0 });
  page.socket.says({ t: "sample", drop_percent: 100, kinds: ["view"], for_ms: 10_000 });
  page.pushes("/dropped");
  page.custom();
  await Promise.resolve();
  page.pass(150);
  const [event] = page.socket.batches().at(-1)!.events;
  assert.deepEqual([event!.n, event!.pv], ["event", undefined]);
});

test("frames of a newer node are ignored", () => {
  const page = connected();
  page.socket.says({ t: "from_the_future" } as never);
  page.socket.says({ t: "welcome2", x: [1] } as never);
  page.custom();
  page.pass(150);
  page.socket.ack();
  assert.equal(page.state().acked, 2);
});

test("a constructor that throws is a connection that failed", () => {
  const page = new Page();
  page.socketsThrow = true;
  page.socket.ends();
  page.pass(60_000);
  assert.equal(page.requests.length > 0, true);
});

test("which page is shown is told on every WebSocket and when it changes, not over HTTP", async () => {
  const page = connected();
  const here = (socket = page.socket) => socket.frames().filter((frame) => frame.t === "here").map(({ path, visible }) => [path, visible]);
  page.pushes("/b");
  page.hides();
  assert.deepEqual(here(), [["/", true], ["/b", true], ["/b", false]]);
  page.socket.ends();
  page.pass(600);
  page.socket.welcome();
  assert.deepEqual(here(), [["/b", false]]);
  const http = overHttp();
  await http.request.answer({ ...token, stream: http.request.batch.stream });
  http.pushes("/c");
  assert.ok(!http.requests.some(({ batch }) => "path" in batch));
});

test("a page that needs the other file to begin asks for it until it comes", () => {
  const page = new Page({ dataset: { modules: "links" }, filesAreGone: true });
  page.pass(25_000);
  assert.deepEqual([page.loaded.length, page.sockets.length], [3, 0]);
  page.filesAreGone = false;
  page.pass(10_000);
  page.socket.welcome();
  assert.deepEqual(names(page.socket.batches()[0]!), ["view"]);
});

test("without its other file nothing is lost: hints are not heard, events go on", () => {
  const page = connected();
  page.filesAreGone = true;
  page.socket.says({ t: "slow", linger_ms: 2_000 });
  page.custom();
  page.pass(150);
  page.socket.ack();
  assert.equal(page.state().acked, 2);
});
