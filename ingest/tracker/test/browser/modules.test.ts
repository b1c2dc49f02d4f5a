/** The built modules in real Chromium, with the built tracker and a node, or with the queue in the tracker's place. */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { launch, until } from "./chromium";
import { Ingest } from "./ingest";

type Call = [name: string, options: { props: Record<string, boolean | number | string> }];

const TRACKER = '<script defer src="/f.js" data-site="demo" data-include="localhost automation"></script>';
const QUEUE = "<script>window.footfall = window.footfall || function () { (footfall.q = footfall.q || []).push(arguments) }</script>";

let browser: Browser;
let context: BrowserContext;
let ingest: Ingest;
let url: string;

before(async () => {
  browser = await launch();
});
after(() => browser.close());
beforeEach(async () => {
  ingest = new Ingest();
  url = await ingest.listen();
  context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
});
afterEach(async () => {
  await context.close();
  await ingest.close();
  assert.deepEqual(ingest.broken, []);
});

/** A page of the site with `head` and `body`; an error in it fails the test. */
async function open(head: string, body: string): Promise<Page> {
  const page = await context.newPage();
  page.on("pageerror", (error) => ingest.broken.push(`the page saw ${String(error)}`));
  await page.route(`${url}/page`, (route) => route.fulfill({ contentType: "text/html", body: `<!doctype html><title>Page</title>${head}<body>${body}` }));
  await page.goto(`${url}/page`);
  return page;
}
const queued = (page: Page) => page.evaluate(() => [...((window.footfall as { q?: ArrayLike<unknown>[] } | undefined)?.q ?? [])].map((call) => [...Array.from(call)])) as Promise<Call[]>;
const customs = (name: string) => ingest.events("custom").filter(({ n }) => n === name).map(({ p }) => p ?? {});

const JERKY = `
  <h1>A headline that is the largest thing here</h1>
  <button onclick="const end = performance.now() + 120; while (performance.now() < end);">Slow</button>
  <p>below</p>
  <script>setTimeout(() => document.querySelector("h1").style.marginTop = "300px", 300)</script>`;

test("each web vital is reported once, the late ones when the page is left", async () => {
  const page = await open(`${TRACKER}<script defer src="/dist/f-vitals.js"></script>`, JERKY);
  // What an input moves within half a second is no unexpected shift.
  await page.waitForFunction(() => document.querySelector("h1")!.style.marginTop && performance.now() > 900);
  await page.click("button");
  await page.evaluate(() => new Promise((frame) => requestAnimationFrame(() => setTimeout(frame))));
  // A page is hidden after pagehide, when the tracker has closed: beacons bring the last ones.
  await until("the tracker is connected", () => page.evaluate(() => window.footfall?.state().transport !== "none"));
  await page.goto("about:blank");
  await until("all five came", () => customs("web_vital").length >= 5);
  const vitals = customs("web_vital");
  assert.deepEqual(vitals.map(({ metric }) => metric).sort(), ["CLS", "FCP", "INP", "LCP", "TTFB"]);
  for (const { metric, value, rating, navigation, ...more } of vitals) {
    assert.ok(typeof value === "number" && value > 0, `${metric} is ${value}`);
    assert.ok(metric === "CLS" ? value < 1 && value === Number(value.toFixed(4)) : Number.isInteger(value), `${metric} is ${value}`);
    assert.ok(["good", "needs-improvement", "poor"].includes(String(rating)));
    assert.equal(navigation, "navigate");
    assert.deepEqual(more, {});
  }
  assert.ok(Number(vitals.find(({ metric }) => metric === "INP")?.value) >= 120);
});

test("web vitals wait in the page's queue when the tracker has not loaded", async () => {
  const page = await open(`${QUEUE}<script defer src="/dist/f-vitals.js"></script>`, JERKY);
  await until("two are queued", async () => (await queued(page)).length >= 2);
  const calls = await queued(page);
  assert.ok(calls.every(([name]) => name === "web_vital"));
  assert.ok(calls.some(([, { props }]) => props.metric === "TTFB"));
});

test("without tracker and queue a module leaves the page alone", async () => {
  const page = await open('<script defer src="/dist/f-vitals.js"></script>', JERKY);
  await page.click("button");
  assert.equal(await page.evaluate(() => "footfall" in window), false);
});
