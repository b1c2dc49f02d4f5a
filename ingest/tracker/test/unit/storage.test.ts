import assert from "node:assert/strict";
import { test } from "node:test";
import type { Batch } from "../../src/protocol";
import { Page, type PageOptions } from "./page";

const names = ({ events }: Batch) => events.map(({ k, n }) => n ?? k).filter((name) => name !== "engagement");
const DAY_MS = 24 * 3_600_000;
const WALL = 1_800_000_000_000;

function connected(options?: PageOptions): Page {
  const page = new Page(options);
  page.socket.welcome();
  page.socket.ack();
  return page;
}
const keys = ({ storage }: Page) => Object.keys(storage);
/** The batches of a stream that is not the page's own. */
const leftOf = (page: Page) => page.socket.batches().filter(({ stream }) => stream !== page.state().stream);

test("leaving hands everything unsettled to a beacon and keeps it for the next page load, until it is acked", () => {
  const page = connected();
  page.custom("a");
  page.leaves();
  assert.deepEqual(page.beacons.map(names), [["a"]]);
  assert.equal(keys(page).length, 1);
  page.document.hidden = false;
  page.fires("pageshow", { persisted: true });
  page.socket.welcome();
  page.socket.ack();
  assert.deepEqual([page.state().pending, keys(page)], [0, []]);
});

test("a hidden page writes down what is in flight, and clears it when that is settled", () => {
  const page = connected();
  page.custom();
  page.hides();
  assert.equal(page.socket.batches().length, 2, "sent at once");
  assert.equal(keys(page).length, 1);
  page.socket.ack();
  assert.deepEqual(keys(page), []);
});

test("nothing is written while nothing would be lost", () => {
  const page = connected();
  page.attends(false);
  page.custom();
  page.pass(150);
  assert.deepEqual(keys(page), []);
  page.socket.ack();
  page.leaves();
  assert.deepEqual([keys(page), page.beacons], [[], []]);
});

test("leaving without a token leaves it to storage; without storage a beacon goes, and never again", () => {
  const page = new Page();
  page.leaves();
  assert.deepEqual([page.beacons.length, keys(page).length], [0, 1]);
  for (const options of [{ dataset: { storage: "none" } }, { forbidden: "storage" }, { forbidden: "writing" }] as const) {
    const bare = new Page(options);
    bare.leaves();
    assert.deepEqual([bare.beacons.map(names), keys(bare)], [[["view"]], []], JSON.stringify(options));
    bare.fires("pageshow", { persisted: true });
    bare.socket.welcome();
    assert.deepEqual(bare.socket.batches().map(names), [["view"]], "the view of the page that came back");
    assert.equal(bare.socket.batches()[0]!.first, 2);
  }
});

test("a beacon that the browser does not take leaves its events", () => {
  const page = connected({ dataset: { storage: "none" } });
  page.custom();
  page.beaconTakes = false;
  page.leaves();
  page.fires("pageshow", { persisted: true });
  page.socket.welcome();
  assert.deepEqual(page.socket.batches().flatMap(names), ["event", "view"]);
});

test("what a page left unsent is delivered by the next one under its ids, at its age, and then gone", () => {
  const earlier = new Page();
  earlier.pass(1_000);
  earlier.custom("left", { props: { a: 1 } });
  earlier.pass(500);
  earlier.leaves();
  const page = new Page({ storage: earlier.storage, wallAt: WALL + 3_600_000 });
  page.socket.welcome("tok2");
  const [left] = leftOf(page);
  assert.deepEqual([left!.stream, left!.first, names(left!), left!.token], [earlier.state().stream, 1, ["view", "left"], "tok2"]);
  assert.equal(left!.sent - left!.events[1]!.at, 3_600_000 - 1_000);
  assert.equal(left!.events[1]!.pv, 1);
  page.socket.says({ t: "ack", stream: left!.stream, first: 1, upto: 3 });
  assert.deepEqual(keys(page), []);
  assert.equal(page.state().acked, 0, "its own are not settled by it");
});

test("what was sent before is sent again for the same visitor, whatever token the page has", () => {
  const earlier = connected();
  earlier.custom("left");
  earlier.leaves();
  const page = new Page({ storage: earlier.storage });
  page.socket.welcome("tok2");
  assert.deepEqual(leftOf(page).map((batch) => [batch.token, batch.first, names(batch)]), [["tok", 2, ["left"]]]);
});

test("pages that open together send the same ids for one visitor", () => {
  const earlier = new Page();
  earlier.leaves();
  const a = new Page({ storage: earlier.storage });
  const b = new Page({ storage: earlier.storage });
  a.socket.welcome("tokA");
  b.socket.welcome("tokB");
  const [ofA, ofB] = [leftOf(a)[0]!, leftOf(b)[0]!];
  assert.deepEqual([ofA.stream, ofA.first, ofA.events, ofA.token], [ofB.stream, ofB.first, ofB.events, "tokA"]);
  assert.equal(ofB.token, "tokA", "it was this visitor's when the second page saw it");
  b.socket.says({ t: "ack", stream: ofB.stream, first: 1, upto: 1 });
  a.socket.says({ t: "ack", stream: ofA.stream, first: 1, upto: 1 });
  assert.deepEqual(keys(a), []);
});

test("a page that dies after it sent what was left loses none of it", () => {
  const earlier = new Page();
  earlier.custom("left");
  earlier.leaves();
  const { storage } = earlier;
  new Page({ storage }).socket.welcome("first");
  const page = new Page({ storage });
  page.socket.welcome("second");
  assert.deepEqual(leftOf(page).map((batch) => [batch.token, names(batch)]), [["first", ["view", "left"]]]);
});

test("an ack of a part leaves the rest, and the next connection sends that", () => {
  const earlier = new Page();
  for (let i = 0; i < 400; i++) earlier.custom(`e${i}`);
  earlier.leaves();
  const page = new Page({ storage: earlier.storage });
  page.socket.welcome();
  const batches = leftOf(page);
  assert.ok(batches.length > 1);
  assert.deepEqual(batches.flatMap(names), ["view", ...Array.from({ length: 400 }, (_, i) => `e${i}`)]);
  const { stream, events } = batches[0]!;
  page.socket.says({ t: "ack", stream, first: 1, upto: events.length });
  page.socket.ends();
  page.pass(1_000);
  page.socket.welcome();
  assert.equal(leftOf(page)[0]!.first, events.length + 1);
});

test("events older than the resend window are given up and counted", () => {
  const earlier = new Page();
  earlier.custom();
  earlier.leaves();
  const page = new Page({ storage: earlier.storage, wallAt: WALL + 8 * DAY_MS });
  page.socket.welcome();
  assert.deepEqual([leftOf(page), page.state().evicted, keys(page)], [[], 2, []]);
});

test("evictions that nobody has heard of are told by the next page", () => {
  const earlier = new Page();
  for (let i = 0; i < 2_004; i++) earlier.custom(`e${i}`);
  earlier.leaves();
  const page = new Page({ storage: earlier.storage });
  page.socket.welcome();
  assert.deepEqual(leftOf(page).map(({ evicted }) => evicted).filter(Boolean), [5]);
});

test("what cannot be read is removed, what is another's is left alone", () => {
  const page = new Page({ storage: { "footfall:demo:x": "{", "footfall:demo:y": '"text"', "footfall:other:x": "{", mine: "1" } });
  page.socket.welcome();
  assert.deepEqual(keys(page), ["footfall:other:x", "mine"]);
  page.socket.ack();
  assert.equal(page.state().acked, 1);
});

test("without storage nothing is read", () => {
  const earlier = new Page();
  earlier.leaves();
  const page = new Page({ storage: earlier.storage, dataset: { storage: "none" } });
  page.socket.welcome();
  assert.deepEqual(leftOf(page), []);
});
