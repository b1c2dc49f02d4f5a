import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createOutbox, type Entry, type Outbox } from "../../src/outbox";

const entry = (seq: number, more: Partial<Entry> = {}): Entry => ({
  stream: "a",
  seq,
  token: "",
  at: 0,
  json: "{}",
  size: 2,
  ...more,
});

function filled(...entries: Entry[]): Outbox {
  const outbox = createOutbox();
  for (const each of entries) outbox.add(each);
  return outbox;
}
const seqs = (entries: Entry[]) => entries.map(({ seq }) => seq);

describe("the next batch", () => {
  const cases: [name: string, entries: Entry[], batches: number[][]][] = [
    ["holds consecutive events", [entry(1), entry(2), entry(3)], [[1, 2, 3]]],
    ["ends before a gap in the sequence", [entry(1), entry(2), entry(4)], [[1, 2], [4]]],
    ["holds one stream", [entry(1), entry(2, { stream: "b" })], [[1], [2]]],
    ["holds one token", [entry(1, { token: "x" }), entry(2), entry(3)], [[1], [2, 3]]],
    ["passes over what is in flight", [entry(1, { flying: true }), entry(2)], [[2]]],
    ["ends before what is in flight", [entry(1), entry(2, { flying: true }), entry(3)], [[1], [3]]],
    ["holds 4 events at most", [1, 2, 3, 4, 5].map((seq) => entry(seq)), [[1, 2, 3, 4], [5]]],
    ["holds 100 bytes at most", [entry(1, { size: 50 }), entry(2, { size: 48 }), entry(3)], [[1, 2], [3]]],
    ["holds one event however large it is", [entry(1, { size: 500 }), entry(2)], [[1], [2]]],
    ["is empty when there is nothing", [], []],
  ];
  for (const [name, entries, batches] of cases)
    test(name, () => {
      const outbox = filled(...entries);
      const taken: number[][] = [];
      for (let run; (run = outbox.take("t", 4, 100)).length; ) taken.push(seqs(run));
      assert.deepEqual(taken, batches);
    });
});

test("an event keeps the token that it was first sent with", () => {
  const outbox = filled(entry(1), entry(2, { token: "before" }));
  assert.deepEqual(outbox.take("now").map(({ token }) => token), ["now"]);
  outbox.release();
  assert.deepEqual(outbox.take("later").map(({ token }) => token), ["now"]);
  assert.deepEqual(outbox.take("later").map(({ token }) => token), ["before"]);
});

test("an ack settles its range of its stream alone", () => {
  const outbox = filled(entry(1), entry(2), entry(3), entry(2, { stream: "b" }));
  outbox.settle("a", 1, 2, 0);
  assert.deepEqual(outbox.list().map(({ stream, seq }) => `${stream}${seq}`), ["a3", "b2"]);
  assert.equal(outbox.counts.acked, 2);
});

test("refused events are settled and counted apart", () => {
  const outbox = filled(entry(1), entry(2), entry(3));
  outbox.settle("a", 1, 3, 1);
  assert.deepEqual(outbox.counts, { sent: 0, acked: 2, refused: 1, evicted: 0 });
});

test("a second ack of the same events counts nothing", () => {
  const outbox = filled(entry(1));
  outbox.settle("a", 1, 1, 0);
  outbox.settle("a", 1, 1, 1);
  assert.deepEqual(outbox.counts, { sent: 0, acked: 1, refused: 0, evicted: 0 });
});

test("a nack lets its events be sent again with the same ids, and no others", () => {
  const outbox = filled(entry(1), entry(2), entry(3));
  outbox.take("t", 2);
  outbox.take("t", 2);
  outbox.release("a", 1, 2);
  assert.deepEqual(seqs(outbox.take("t")), [1, 2]);
  assert.equal(outbox.counts.sent, 5);
});

test("a lost connection lets everything unsettled be sent again, in order", () => {
  const outbox = filled(entry(1), entry(2), entry(3));
  outbox.take("t");
  outbox.settle("a", 1, 1, 0);
  outbox.release();
  assert.deepEqual(seqs(outbox.take("t")), [2, 3]);
});

test("a full outbox evicts the oldest by count and says so", () => {
  const outbox = createOutbox(2);
  for (const seq of [1, 2, 3]) outbox.add(entry(seq));
  assert.deepEqual(seqs(outbox.list()), [2, 3]);
  assert.equal(outbox.counts.evicted, 1);
});

test("a full outbox evicts the oldest by bytes, and settling makes room", () => {
  const outbox = createOutbox(10, 700);
  for (const seq of [1, 2, 3]) outbox.add(entry(seq, { size: 300 }));
  assert.deepEqual(seqs(outbox.list()), [2, 3]);
  outbox.settle("a", 2, 2, 0);
  outbox.add(entry(4, { size: 300 }));
  assert.deepEqual(seqs(outbox.list()), [3, 4]);
  assert.equal(outbox.counts.evicted, 1);
});

test("evictions are told with one batch, and again when that batch is not answered", () => {
  const outbox = createOutbox(1);
  outbox.add(entry(1));
  outbox.add(entry(2));
  assert.equal(outbox.report(), 1);
  assert.equal(outbox.report(), 0);
  outbox.release();
  assert.equal(outbox.report(), 1);
  outbox.settle("a", 2, 2, 0);
  assert.equal(outbox.report(), 0);
  assert.equal(outbox.unreported(), 0);
});

test("a shut outbox refuses what it has and what comes", () => {
  const outbox = filled(entry(1), entry(2));
  outbox.shut();
  outbox.add(entry(3));
  assert.deepEqual(outbox.list(), []);
  assert.equal(outbox.counts.refused, 3);
});
