import assert from "node:assert/strict";
import { test } from "node:test";
import { createEngagement } from "../../src/engagement";

test("only attended time counts, and the parts add up", () => {
  const engagement = createEngagement();
  engagement.attend(true, 1_000);
  assert.deepEqual(engagement.take(3_500), { d: 2_500, s: 0 });
  engagement.attend(false, 4_000);
  engagement.attend(true, 9_000);
  assert.deepEqual(engagement.take(9_250), { d: 750, s: 0 });
});

test("nothing is reported without attention, however far the page was scrolled", () => {
  const engagement = createEngagement();
  engagement.scrolled(100);
  assert.equal(engagement.take(5_000), undefined);
});

test("the same change told twice counts once", () => {
  const engagement = createEngagement();
  engagement.attend(true, 0);
  engagement.attend(true, 10);
  engagement.attend(false, 20);
  engagement.attend(false, 30);
  assert.deepEqual(engagement.take(40), { d: 20, s: 0 });
});

for (const [name, depths, depth] of [
  ["is the largest", [10, 80, 30], 80],
  ["is rounded", [33.4], 33],
  ["ends at 100", [250], 100],
  ["is not below 0", [-20], 0],
  ["is 0 where a page has no height", [NaN], 0],
] as const)
  test(`the scroll depth ${name}`, () => {
    const engagement = createEngagement();
    engagement.attend(true, 0);
    for (const each of depths) engagement.scrolled(each);
    assert.equal(engagement.take(1)?.s, depth);
  });
