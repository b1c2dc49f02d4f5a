import assert from "node:assert/strict";
import { test } from "node:test";
import { createKeep, type Keep } from "../../src/keep";
import { createOutbox, type Outbox } from "../../src/outbox";

const DAY = 86_400_000;
const WALL = 1_800_000_000_000;

/** What `localStorage` is to several pages: keys are its own properties, methods are not. */
class FakeStorage {
  [key: string]: unknown;
  getItem(key: string): string | null {
    return (this[key] as string | undefined) ?? null;
  }
  setItem(key: string, value: string): void {
    this[key] = value;
  }
  removeItem(key: string): void {
    // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
    delete this[key];
  }
}

interface Page {
  outbox: Outbox;
  keep: Keep;
}

function page(store: FakeStorage, stream: string): Page {
  const outbox = createOutbox();
  return { outbox, keep: createKeep(store as unknown as Storage, "footfall:demo:", stream, outbox) };
}
const add = ({ outbox }: Page, stream: string, seq: number, at: number, token = "") =>
  outbox.add({ stream, seq, token, at, json: JSON.stringify({ k: "view", at, u: "https://a/" }), size: 40 });
const ids = ({ outbox }: Page) => outbox.list().map(({ stream, seq }) => `${stream}${seq}`);

test("what a page leaves is found by the next one, with its ids, token and age", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 4_000, "tok");
  first.keep.save(5_000, WALL, 0);

  const next = page(store, "b");
  next.keep.restore(20, WALL + 60_000);
  const [entry] = next.outbox.list();
  assert.ok(entry);
  // A second before the first page left, which was a minute ago: 61 seconds before now, and now is 20 ms after load.
  assert.deepEqual([entry.stream, entry.seq, entry.token, entry.at], ["a", 1, "tok", 20 - 61_000]);
  assert.deepEqual(JSON.parse(entry.json), { k: "view", at: 20 - 61_000, u: "https://a/" });
});

test("nothing is left in storage once everything is settled", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 0, "tok");
  first.keep.save(0, WALL, 0);
  const next = page(store, "b");
  next.keep.restore(0, WALL);
  next.outbox.settle("a", 1, 1, 0);
  next.keep.save(0, WALL, WALL);
  assert.deepEqual(Object.keys(store), []);
});

test("a page that comes back and settles its events clears its own key", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 0, "tok");
  first.keep.save(0, WALL, 0);
  first.outbox.settle("a", 1, 1, 0);
  first.keep.save(1, WALL + 1, WALL + 1);
  assert.deepEqual(Object.keys(store), []);
  assert.equal(first.keep.reclaim(), false);
});

test("a page that dies after it took events over loses none", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 0, "tok");
  first.keep.save(0, WALL, 0);
  page(store, "b").keep.restore(0, WALL + 1);
  const third = page(store, "c");
  third.keep.restore(0, WALL + 60_000);
  assert.deepEqual(ids(third), ["a1"]);
});

test("two pages that load together do not both take the same events", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 0, "tok");
  first.keep.save(0, WALL, 0);
  const [one, two] = [page(store, "b"), page(store, "c")];
  one.keep.restore(0, WALL + 1);
  two.keep.restore(0, WALL + 2);
  assert.deepEqual([ids(one), ids(two)], [["a1"], []]);
});

test("what was taken over moves to the page's own key when it leaves too", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 0, "tok");
  first.keep.save(0, WALL, 0);
  const next = page(store, "b");
  next.keep.restore(0, WALL + 1);
  add(next, "b", 1, 0);
  next.keep.save(0, WALL + 2, 0);
  assert.deepEqual(Object.keys(store), ["footfall:demo:b"]);
  const third = page(store, "c");
  third.keep.restore(0, WALL + 3);
  assert.deepEqual(ids(third), ["a1", "b1"]);
});

test("an event that was never sent belongs to the page that took it over last", () => {
  const store = new FakeStorage();
  const cached = page(store, "a");
  add(cached, "a", 1, 0);
  add(cached, "a", 2, 0, "tok");
  cached.keep.save(0, WALL, 0);
  const next = page(store, "b");
  next.keep.restore(0, WALL + 1);
  add(cached, "a", 3, 0);
  cached.keep.reclaim();
  // The sent one has a token, so both may send it; the third was never in storage.
  assert.deepEqual(ids(cached), ["a2", "a3"]);
  assert.deepEqual(ids(next), ["a1", "a2"]);
});

test("a page back from the cache keeps what nobody took", () => {
  const store = new FakeStorage();
  const cached = page(store, "a");
  add(cached, "a", 1, 0);
  cached.keep.save(0, WALL, 0);
  assert.equal(cached.keep.reclaim(), true);
  assert.deepEqual(ids(cached), ["a1"]);
});

test("events older than the resend window are given up and counted", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  add(first, "a", 1, 0, "tok");
  add(first, "a", 2, 10, "tok");
  first.keep.save(0, WALL, 0);
  const next = page(store, "b");
  next.keep.restore(0, WALL + 7 * DAY + 5);
  assert.deepEqual(ids(next), ["a2"]);
  assert.equal(next.outbox.counts.evicted, 1);
});

test("evictions that nobody has heard of are told by the next page", () => {
  const store = new FakeStorage();
  const first = page(store, "a");
  first.outbox.evict(3);
  first.keep.save(0, WALL, 0);
  const next = page(store, "b");
  next.keep.restore(0, WALL + 1);
  assert.equal(next.outbox.report(), 3);
});

for (const [name, value] of [
  ["is cut off", '[0,0,[["a",1'],
  ["has another shape", '{"v":2}'],
  ["is null", "null"],
] as const)
  test(`a value that ${name} is removed and harms no other`, () => {
    const store = new FakeStorage();
    const first = page(store, "z");
    add(first, "z", 1, 0, "tok");
    first.keep.save(0, WALL, 0);
    store.setItem("footfall:demo:a", value);
    store.setItem("theirs", value);
    const next = page(store, "b");
    next.keep.restore(0, WALL + 1);
    assert.deepEqual(ids(next), ["z1"]);
    assert.deepEqual(Object.keys(store).sort(), ["footfall:demo:z", "theirs"]);
  });
