import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { batchFrame, type Batch, type Here, type ServerFrame } from "../../src/protocol";

const golden = (name: string) =>
  readFileSync(new URL(`../../../../schemas/golden/${name}.json`, import.meta.url), "utf8").trim();

test("a batch is written byte for byte as in the golden file", () => {
  const text = golden("batch");
  const batch = JSON.parse(text) as Batch;
  const [view, custom, engagement] = batch.events;
  assert.ok(view && custom && engagement);
  const written = batchFrame(batch.stream, 3, 61_250, "", { w: 1440, l: "en-GB", z: "Europe/Berlin" }, 0, [
    JSON.stringify({ k: "view", at: 1200, u: view.u, r: "https://www.search.example/", t: "Shop" }),
    JSON.stringify({
      k: "custom",
      at: 45_000,
      u: "https://example.com/shop",
      n: "add_to_cart",
      p: { colour: "blue", gift: true, price: 12.5 },
      pv: 3,
    }),
    JSON.stringify({ k: "engagement", at: 61_200, u: engagement.u, d: 43_210, s: 80, pv: 3 }),
  ]);
  assert.equal(written, text);
});

test("an empty batch, and one with a token and evictions, are written byte for byte as in the golden files", () => {
  const stream = "01a315e46800a1b2c3d4e5f6";
  assert.equal(batchFrame(stream, 1, 12, "", {}, 0, []), golden("batch_empty"));
  const view = JSON.stringify({ k: "view", at: 1200, u: "https://example.com/" });
  assert.equal(batchFrame(stream, 1, 61_250, "AAECAwQFBgcICQoL.signature", {}, 4, [view]), golden("batch_token"));
});

test("a batch names its token and its evictions only when there are any", () => {
  const batch = JSON.parse(batchFrame("s", 1, 2, "tok", {}, 4, [])) as Batch;
  assert.deepEqual(batch, { t: "batch", stream: "s", first: 1, sent: 2, token: "tok", ctx: {}, evicted: 4, events: [] });
});

test("a here frame is written byte for byte as in the golden file", () => {
  const here: Here = { t: "here", path: "/shop", visible: true };
  assert.equal(JSON.stringify(here), golden("here"));
});

const frames: { [T in ServerFrame["t"]]: Extract<ServerFrame, { t: T }> } = {
  welcome: {
    t: "welcome",
    token: "AAECAwQFBgcICQoL.signature",
    node: "ingest-1",
    now: 1_800_000_000_000,
    limits: { batch_events: 256, batch_bytes: 65_536, idle_ms: 60_000 },
  },
  ack: {
    t: "ack",
    stream: "01a315e46800a1b2c3d4e5f6",
    first: 3,
    upto: 5,
    refused: [{ seq: 4, reason: "bad_props", detail: "p.colour: longer than 512 bytes; shorten it" }],
  },
  nack: { t: "nack", stream: "01a315e46800a1b2c3d4e5f6", first: 3, upto: 5, reason: "log_unavailable", retry_ms: 1500 },
  slow: { t: "slow", linger_ms: 2000 },
  sample: { t: "sample", drop_percent: 50, kinds: ["engagement"], for_ms: 10_000 },
  stop: { t: "stop", reason: "site_disabled", for_ms: 3_600_000 },
  error: { t: "error", reason: "malformed", detail: "expected value at line 1 column 1" },
  bye: { t: "bye", retry_ms: 2500 },
};

const variants: Record<string, ServerFrame> = {
  welcome_settings: {
    ...frames.welcome,
    settings: {
      respect_dnt: true,
      hash_routes: true,
      query_params: ["q"],
      ignore_paths: ["/admin/**"],
      mask_paths: ["/users/*"],
    },
  },
  ack_token: {
    t: "ack",
    stream: "01a315e46800a1b2c3d4e5f6",
    first: 1,
    upto: 0,
    token: "AAECAwQFBgcICQoL.signature",
    settings: { mask_paths: ["/users/*"] },
  },
};

for (const [name, frame] of Object.entries({ ...frames, ...variants }))
  test(`the golden ${name} is what the types say`, () => {
    assert.deepEqual(JSON.parse(golden(name)), frame);
    assert.equal(JSON.stringify(frame), golden(name));
  });
