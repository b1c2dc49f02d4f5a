import assert from "node:assert/strict";
import { test } from "node:test";
import { newStream } from "../../src/clock";
import { bytesOf, clip } from "../../src/text";

for (const [text, bytes, clipped] of [
  ["short", 10, "short"],
  ["abcdef", 3, "abc"],
  ["aé", 2, "a"],
  ["a😀b", 4, "a"],
  ["a😀b", 5, "a😀"],
  ["a\ud83d", 10, "a\ufffd"],
  ["", 5, ""],
] as const)
  test(`${JSON.stringify(text)} in ${bytes} bytes is ${JSON.stringify(clipped)}`, () => {
    assert.equal(clip(text, bytes), clipped);
    assert.ok(bytesOf(clipped) <= bytes);
  });

test("a stream is 48 bits of time and 48 random bits in hex", () => {
  const before = Date.now();
  const [one, two] = [newStream(), newStream()];
  assert.match(one, /^[0-9a-f]{24}$/);
  const loaded = parseInt(one.slice(0, 12), 16);
  assert.ok(loaded >= before && loaded <= Date.now());
  assert.notEqual(one.slice(12), two.slice(12));
});
