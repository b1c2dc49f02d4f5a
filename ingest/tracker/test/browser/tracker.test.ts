/** The built tracker in real Chromium against a node that fails on demand. What arrives must be what was issued. */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import type { State } from "../../src/main";
import { launch, pause, until } from "./chromium";
import { Ingest } from "./ingest";

const DEADLINE_MS = 15_000;

let browser: Browser;
let context: BrowserContext;
let ingest: Ingest;
let url: string;

before(async () => {
  // Playwright turns the back/forward cache off.
  browser = await launch({ ignoreDefaultArgs: ["--disable-back-forward-cache"] });
});
after(() => browser.close());

beforeEach(async () => {
  ingest = new Ingest();
  url = await ingest.listen();
  context = await browser.newContext();
});
afterEach(async () => {
  await context.close();
  await ingest.close();
  assert.deepEqual(ingest.broken, []);
});

const state = (page: Page): Promise<State> => page.evaluate(() => window.footfall!.state());
const settled = (page: Page) => until("everything is settled", async () => (await state(page)).pending === 0);

async function open(path = "/demo/"): Promise<Page> {
  const page = await context.newPage();
  page.on("pageerror", (error) => ingest.broken.push(`the page saw ${String(error)}`));
  await page.goto(url + path);
  return page;
}
/** Closes a tab as a person does, and waits until it is gone: what it wrote to storage is then there for others. */
async function closeTab(page: Page): Promise<void> {
  const closed = page.waitForEvent("close");
  await page.close({ runBeforeUnload: true });
  await closed;
}
const custom = (page: Page, name: string) => page.evaluate((name) => window.footfall!(name, { props: { a: 1 } }), name);
const paths = () => ingest.events("view").map(({ u }) => new URL(u).pathname);
/** Ids of a stream's events, which must be 1, 2, 3 … without a gap. */
function assertNoGap(): void {
  const streams = new Map<string, number[]>();
  for (const id of ingest.stored.keys()) {
    const [stream = "", seq] = id.split("/");
    streams.set(stream, [...(streams.get(stream) ?? []), Number(seq)]);
  }
  for (const seqs of streams.values())
    assert.deepEqual(seqs.sort((a, b) => a - b), seqs.map((_, index) => index + 1));
}

test("a page view goes over WebSocket, is acked, and says who, what and where", async () => {
  const page = await open("/demo/?utm_source=news#top");
  await settled(page);
  const [view] = ingest.events("view");
  assert.ok(view);
  assert.equal(view.u, `${url}/demo/?utm_source=news`);
  assert.equal(view.t, "Larkspur & Moss: plants for dim rooms");
  const { ctx } = ingest.batches[0]!.batch;
  assert.equal(typeof ctx?.w, "number");
  assert.ok(ctx?.l && ctx.z);
  assert.deepEqual(ingest.here.at(-1), { t: "here", path: "/demo/", visible: true });
  assert.equal((await state(page)).transport, "ws");
  assert.deepEqual(await context.cookies(), []);
});

test("calls made before the tracker has loaded are tracked after the page view", async () => {
  const page = await context.newPage();
  await page.addInitScript(() => {
    const stub = (...call: never[]) => void (stub.q = [...stub.q, call]);
    stub.q = [] as never[][];
    Object.assign(window, { footfall: stub });
    stub("early" as never, { props: { a: true } } as never);
  });
  await page.goto(`${url}/demo/`);
  await settled(page);
  assert.deepEqual([...ingest.stored.values()].map(({ event }) => event.n ?? event.k), ["view", "early"]);
});

test("routes are page views once each, with the attention that the one before got", async () => {
  const page = await open("/demo/app/");
  await settled(page);
  await page.getByRole("link", { name: "This week" }).click();
  await page.getByRole("button", { name: "Done" }).click();
  await page.evaluate(() => history.replaceState(null, "", "/demo/app/week?sort=date"));
  await page.evaluate(() => history.pushState(null, "", location.href));
  await page.getByRole("link", { name: "Fern" }).click();
  await page.goBack();
  await settled(page);
  assert.deepEqual(paths(), ["/demo/app/", "/demo/app/week", "/demo/app/plants/fern", "/demo/app/week"]);
  const [done] = ingest.events("custom");
  assert.deepEqual([done?.n, done?.p, done?.pv], ["task_done", { task: "water" }, 3]);
  const engagements = ingest.events("engagement");
  assert.deepEqual(engagements.map(({ pv }) => pv), [1, 3, 6]);
  assert.ok(engagements.every(({ d }) => d! > 0 && d! < DEADLINE_MS));
  assert.equal(ingest.here.at(-1)?.path, "/demo/app/week");
  const titles = ingest.events("view").map(({ t }) => t?.split(":")[0]);
  assert.deepEqual(titles.slice(0, 3), ["Today", "This week", "Fern"]);
  assertNoGap();
});

test("events whose socket is cut before the ack are sent again with the same ids", async () => {
  const page = await open();
  await settled(page);
  ingest.fault = "kill_before_ack";
  for (const name of ["one", "two", "three"]) await custom(page, name);
  await until("the socket was cut", () => ingest.fault === "none");
  await settled(page);
  assert.deepEqual(ingest.events("custom").map(({ n }) => n), ["one", "two", "three"]);
  assert.ok([...ingest.stored.values()].some(({ copies }) => copies === 2));
  assert.ok(ingest.upgrades >= 2);
  assertNoGap();
});

test("a batch that was not taken is sent again after the time told", async () => {
  const page = await open();
  await settled(page);
  ingest.fault = "nack";
  await custom(page, "again");
  await settled(page);
  assert.equal(ingest.events("custom").length, 1);
  assert.equal(ingest.batches.filter(({ batch }) => batch.events[0]?.n === "again").length, 2);
});

test("without WebSocket events go over HTTP, acked alike", async () => {
  ingest.fault = "no_upgrade";
  const page = await open();
  await custom(page, "over_http");
  await settled(page);
  assert.equal((await state(page)).transport, "http");
  assert.equal(ingest.events("custom").length, 1);
  assert.deepEqual([...ingest.stored.values()].map(({ transports }) => [...transports]), [["http"], ["http"]]);
  assert.equal(ingest.upgrades, 2);
});

test("a node that comes back is found again and gets everything once", async () => {
  const page = await open();
  await settled(page);
  ingest.fault = "no_network";
  ingest.cut();
  await custom(page, "during");
  await until("an attempt failed", () => ingest.upgrades > 2);
  ingest.fault = "none";
  await settled(page);
  assert.equal(ingest.events("custom").length, 1);
  assertNoGap();
});

test("a thousand events in a burst arrive once each in frames within the limits", async () => {
  const page = await open();
  await page.evaluate(() => {
    for (let i = 0; i < 1_000; i++) window.footfall!("burst", { props: { i, text: "x".repeat(50) } });
  });
  await settled(page);
  assert.deepEqual(ingest.events("custom").map(({ p }) => p?.i), Array.from({ length: 1_000 }, (_, i) => i));
  assert.ok(ingest.batches.every(({ batch }) => batch.events.length <= 256));
  assertNoGap();
});

test("a tab closed with events in flight: the beacon brings them, and the next visit settles them", async () => {
  const page = await open();
  await settled(page);
  ingest.fault = "swallow_acks";
  await custom(page, "last_words");
  const { stream } = await state(page);
  await closeTab(page);
  await until("the beacon came", () => ingest.batches.some(({ transport }) => transport === "http"));
  assert.deepEqual(ingest.events("custom").map(({ n }) => n), ["last_words"]);

  ingest.fault = "none";
  const next = await open("/demo/about.html");
  await settled(next);
  await until("storage is empty", () => next.evaluate(() => !localStorage.length));
  const resent = ingest.batches.filter(({ batch, transport }) => batch.stream === stream && transport === "ws");
  assert.ok(resent.at(-1)?.batch.token, "a resend names the token that its events were first sent with");
  const again = ingest.stored.get(`${stream}/2`);
  assert.equal(again?.event.n, "last_words");
  assertNoGap();
});

test("a visit that never reached the node is delivered by the next one, at the time it happened", async () => {
  ingest.fault = "no_network";
  const page = await open();
  await custom(page, "offline");
  const { stream } = await state(page);
  await page.goto("about:blank");
  assert.equal(ingest.batches.length, 0);
  const away = 300;
  await pause(away);

  ingest.fault = "none";
  const next = await open("/demo/about.html");
  await settled(next);
  await until("the visit came", () => ingest.stored.has(`${stream}/2`));
  await until("storage is empty", () => next.evaluate(() => !localStorage.length));
  const { batch } = ingest.batches.find((each) => each.batch.stream === stream)!;
  assert.ok(batch.events.every(({ at }) => batch.sent - at >= away), "as old as it is");
  assertNoGap();
});

test("without storage nothing is kept, and the beacon is all there is", async () => {
  ingest.attribute = 'data-storage="none"';
  const page = await open();
  await settled(page);
  ingest.fault = "swallow_acks";
  await custom(page, "kept_nowhere");
  await page.goto(`${url}/demo/demo.css`);
  await until("the beacon came", () => ingest.events("custom").length === 1 && ingest.batches.some(({ transport }) => transport === "http"));
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage)), []);
});

for (const transport of ["ws", "http"] as const)
  test(`a node of another origin is reached over ${transport}`, async () => {
    const node = new Ingest();
    const endpoint = await node.listen();
    try {
      if (transport === "http") node.fault = "no_upgrade";
      ingest.attribute = `data-endpoint="${endpoint}"`;
      ingest.policy = `default-src 'self'; connect-src ${endpoint} ${endpoint.replace("http", "ws")}`;
      const page = await open();
      await settled(page);
      assert.equal((await state(page)).transport, transport);
      assert.deepEqual([node.events("view").length, ingest.batches.length, node.broken.length], [1, 0, 0]);
    } finally {
      await node.close();
    }
  });

test("a policy that forbids every connection leaves the page unharmed and the events for later", async () => {
  ingest.policy = "default-src 'self'; connect-src 'none'";
  const page = await open();
  await custom(page, "forbidden");
  await page.goto("about:blank");
  ingest.policy = "default-src 'self'";
  assert.equal(ingest.batches.length, 0);
  const next = await open("/demo/about.html");
  await settled(next);
  await until("the visit came", () => ingest.events("custom").length === 1);
  assertNoGap();
});

test("two tabs that open after a visit without a network deliver it once each event", async () => {
  ingest.fault = "no_network";
  const page = await open();
  await custom(page, "offline");
  const { stream } = await state(page);
  await closeTab(page);
  ingest.fault = "none";
  const tabs = await Promise.all([open("/demo/about.html"), open("/demo/shop.html")]);
  for (const tab of tabs) await settled(tab);
  await until("the visit came", () => ingest.stored.has(`${stream}/2`));
  assert.equal(paths().length, 3);
  assertNoGap();
});

test("an unknown site ends in silence, and the page does not notice", async () => {
  ingest.fault = "unknown_site";
  const said: string[] = [];
  context.on("console", (message) => said.push(message.text()));
  const page = await open();
  await until("it says why", () => said.some((text) => text.includes("unknown_site")));
  await custom(page, "ignored");
  const upgrades = ingest.upgrades;
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  assert.deepEqual([ingest.upgrades, ingest.batches.length], [upgrades, 0]);
});

test("where a policy allows images alone, pixels bring the events", async () => {
  ingest.policy = "default-src 'self'; connect-src 'none'; img-src 'self'";
  const page = await open();
  await custom(page, "by_pixel");
  await until("pixels go", async () => (await state(page)).transport === "pixel");
  await settled(page);
  assert.deepEqual([...ingest.stored.values()].map(({ event, transports }) => [event.n ?? event.k, ...transports]), [["view", "pixel"], ["by_pixel", "pixel"]]);
});

test("links that lead away, downloads, named elements and forms tell of themselves", async () => {
  const page = await open();
  await page.evaluate(() => {
    document.body.insertAdjacentHTML(
      "beforeend",
      `<a id="away" href="https://elsewhere.example/a?secret=1">away</a> <a id="file" href="/files/price%20list.pdf?x=1">file</a>
       <a id="inside" href="/demo/">inside</a> <button id="named" data-footfall-event="signup" data-footfall-plan="pro"><b>go</b></button>
       <form id="form" data-footfall-event="letter" data-footfall-place="end"><button>send</button></form>`,
    );
    addEventListener("click", (event) => (event.target as Element).closest("a") && event.preventDefault());
    addEventListener("submit", (event) => event.preventDefault());
  });
  for (const id of ["away", "file", "inside", "named b", "form button"]) await page.click(`#${id}`);
  await settled(page);
  assert.deepEqual(ingest.events("custom").map(({ n, p }) => [n, p]), [
    ["outbound_link", { url: "elsewhere.example/a" }],
    ["file_download", { url: `${new URL(url).host}/files/price%20list.pdf` }],
    ["signup", { plan: "pro" }],
    ["letter", { place: "end" }],
  ]);
});

test("a page back from the back/forward cache connects again and counts a view", async () => {
  const page = await open();
  await settled(page);
  await page.evaluate(() => Object.assign(window, { kept: true }));
  await page.goto(`${url}/demo/about.html`);
  await settled(page);
  await page.goBack({ waitUntil: "commit" });
  await until("the page is back", async () => (await state(page)).transport === "ws");
  await settled(page);
  assert.ok(await page.evaluate(() => "kept" in window), "the page was not taken from the cache");
  assert.deepEqual(paths(), ["/demo/", "/demo/about.html", "/demo/"]);
  assertNoGap();
});
