import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { Batch, Here, ServerFrame } from "../../src/protocol";
import { Page } from "./page";

const read = (name: string) =>
  readFileSync(new URL(`../../../../schemas/golden/${name}.json`, import.meta.url), "utf8").trim();

/** Names in the order of the wire, also of what lies deeper. */
const shape = (value: unknown): unknown =>
  Array.isArray(value) ? value.map(shape) : value && typeof value === "object" ? Object.entries(value).map(([name, inner]) => [name, shape(inner)]) : typeof value;

test("a batch has the fields of the golden file, in its order", () => {
  const page = new Page({ url: "https://example.com/shop?utm_source=news", referrer: "https://www.search.example/" });
  page.socket.welcome();
  page.socket.ack();
  page.pushes("/shop/2");
  page.custom("add_to_cart", { props: { colour: "blue", gift: true, price: 12.5 } });
  page.pass(5_000);
  page.hides();
  const [view, , ...others] = page.socket.batches();
  const events = [...view!.events, ...others.flatMap(({ events }) => events), ...page.socket.batches()[1]!.events];
  const byKind = (kind: string) => events.find(({ k }) => k === kind)!;
  const golden = JSON.parse(read("batch")) as Batch;
  assert.deepEqual(shape({ ...view, events: [] }), shape({ ...golden, events: [] }));
  assert.equal(JSON.stringify({ ...view, stream: golden.stream, first: 3, sent: 61_250, ctx: { ...view!.ctx, z: "Europe/Berlin" }, events: golden.events }), read("batch"));
  for (const event of golden.events) assert.deepEqual(shape(byKind(event.k)), shape(event));
});

test("a here frame is written byte for byte as in the golden file", () => {
  const here: Here = { t: "here", path: "/shop", visible: true };
  assert.equal(JSON.stringify(here), read("here"));
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
    assert.deepEqual(JSON.parse(read(name)), frame);
    assert.equal(JSON.stringify(frame), read(name));
  });
