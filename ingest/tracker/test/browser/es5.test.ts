/** The ES5 tracker in Chromium without what old browsers lack. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { parse } from "acorn";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { launch, pause, until } from "./chromium";
import { HttpNode } from "./http-node";

const LACKING = ["fetch", "WebSocket", "Promise", "Map", "Set", "WeakMap", "Symbol", "Proxy", "crypto", "TextEncoder", "URL", "URLSearchParams", "AbortController", "MutationObserver"];
const SCRIPT = '<script defer src="/f-es5.js" data-site="demo" data-include="localhost automation"></script>';
const QUEUE = "<script>window.footfall = window.footfall || function () { (footfall.q = footfall.q || []).push(arguments) }</script>";

let browser: Browser;
let context: BrowserContext;
let node: HttpNode;
let url: string;

before(async () => {
  browser = await launch();
});
after(() => browser.close());
beforeEach(async () => {
  node = new HttpNode();
  url = await node.listen();
  context = await browser.newContext();
});
afterEach(async () => {
  await context.close();
  await node.close();
  assert.deepEqual(node.broken, []);
});

async function open(body: string, path = "/page"): Promise<Page> {
  node.body = body;
  const page = await context.newPage();
  page.on("pageerror", (error) => node.broken.push(`the page saw ${String(error)}`));
  await page.goto(url + path);
  return page;
}
const custom = (page: Page, name: string) => page.evaluate((name) => (window.footfall as (name: string) => void)(name), name);
const names = () => node.customs().map(({ n }) => n);
const ids = () => [...node.stored.keys()].map((id) => Number(id.split("/")[1])).sort((a, b) => a - b);
const blockXhr = (page: BrowserContext) => page.route("**/e?*", (route) => route.abort());

test("it is ES5 throughout", () => {
  const read = (name: string) => readFileSync(new URL(`../../dist/${name}`, import.meta.url), "utf8");
  parse(read("f-es5.js"), { ecmaVersion: 5 });
  assert.throws(() => parse(read("f.js"), { ecmaVersion: 5 }));
});

test("a browser without anything of the last years sends views, routes and events, each once", async () => {
  await context.addInitScript((lacking) => {
    for (const name of lacking) Reflect.deleteProperty(window, name);
    Reflect.deleteProperty(Navigator.prototype, "sendBeacon");
    window.name = lacking.filter((name) => name in window).join() + ("sendBeacon" in navigator ? "sendBeacon" : "");
  }, LACKING);
  // Playwright cannot evaluate in such a page: the page itself does it all.
  await open(`${QUEUE}<script>footfall("early", { props: { a: true } })</script>${SCRIPT}
    <script>
      if (window.name) throw new Error("not lacking " + window.name);
      addEventListener("load", function () {
        history.pushState(null, "", "/page/two");
        document.title = "Two";
        history.replaceState(null, "", "/page/two?sort=date");
        footfall("signup", { props: { plan: "pro" }, revenue: { amount: 12.5, currency: "EUR" } });
      });
    </script>`, "/page?utm_source=news#top");
  await until("all four are stored", () => node.stored.size === 4);
  const events = [...node.stored.values()].map(({ event: { at, ...rest } }) => (assert.ok(at >= 0), rest));
  assert.deepEqual(events, [
    { k: "view", u: `${url}/page?utm_source=news`, t: "/page" },
    { k: "custom", u: `${url}/page?utm_source=news`, n: "early", p: { a: true }, pv: 1 },
    { k: "view", u: `${url}/page/two`, r: `${url}/page` },
    { k: "custom", u: `${url}/page/two`, n: "signup", p: { amount: 12.5, currency: "EUR", plan: "pro" }, pv: 3 },
  ]);
  assert.deepEqual(ids(), [1, 2, 3, 4]);
  const [first] = node.requests;
  assert.deepEqual([first?.batch.events, first?.batch.token], [[], undefined]);
  assert.equal(typeof first?.batch.ctx?.w, "number");
  assert.ok(node.requests.every(({ batch, way }) => way === "xhr" && (batch.token ?? !batch.events.length)));
  const time = parseInt([...node.stored.keys()][0]!.slice(0, 12), 16);
  assert.ok(Math.abs(Date.now() - time) < 60_000, "a stream begins with the time");
});

test("a batch that was not taken is sent again after the time told", async () => {
  node.fault = "nack";
  await open(SCRIPT);
  await until("it is stored", () => node.stored.size === 1);
  const [, refused, taken] = node.requests;
  assert.deepEqual(refused?.batch.events.length, 1);
  assert.ok(taken!.at - refused.at >= 780, `after ${taken!.at - refused.at} ms`);
});

test("one batch is under way at a time, however slow the node", async () => {
  node.delayMs = 400;
  const page = await open(SCRIPT);
  for (let i = 0; i < 5; i++) {
    await custom(page, "slow");
    await pause(200);
  }
  await until("all are stored", () => node.stored.size === 6);
  assert.ok(node.requests.length > 2);
});

test("an event whose answer was lost is sent again with its id and its token", async () => {
  node.fault = "lost_answer";
  await open(SCRIPT);
  await until("it came twice", () => [...node.stored.values()][0]?.copies === 2);
  assert.equal(node.stored.size, 1);
});

test("without XHR events go as images of at most 16, and one that brings no image is sent again", async () => {
  await blockXhr(context);
  node.fault = "nack";
  const page = await open(SCRIPT);
  await page.evaluate(() => {
    for (let i = 0; i < 40; i++) (window.footfall as (name: string) => void)(`e${i}`);
  });
  await until("all are stored", () => node.stored.size === 41);
  assert.deepEqual(names(), Array.from({ length: 40 }, (_, i) => `e${i}`));
  assert.ok(node.requests.every(({ batch, way, address }) => way === "pixel" && batch.events.length <= 16 && address <= 8_000));
  assert.ok([...node.stored.values()].every(({ copies }) => copies === 1));
  assert.equal(node.requests[0]?.batch.first, node.requests[1]?.batch.first);
});

test("an event too large for an image does not hold up the others", async () => {
  await blockXhr(context);
  const page = await open(SCRIPT);
  await page.evaluate(() => {
    const footfall = window.footfall as (name: string, options?: object) => void;
    footfall("large", { props: Object.fromEntries(Array.from({ length: 15 }, (_, i) => [`p${i}`, "é".repeat(200)])) });
    footfall("small");
  });
  await until("the small one is stored", () => names().includes("small"));
  assert.deepEqual(names(), ["small"]);
  assert.equal(node.requests.at(-1)?.batch.evicted, 1);
});

test("a node that comes back gets everything once", async () => {
  node.fault = "no_network";
  const page = await open(SCRIPT);
  await custom(page, "during");
  await pause(1_500);
  node.fault = "none";
  await until("both are stored", () => node.stored.size === 2);
  assert.deepEqual(ids(), [1, 2]);
});

test("a batch refused whole is taken apart, and only the bad event is given up", async () => {
  node.fault = "refuses_bad";
  const page = await open(SCRIPT);
  await page.evaluate(() => ["one", "bad", "two"].forEach((name) => (window.footfall as (name: string) => void)(name)));
  await until("the good ones are stored", () => node.stored.size === 3);
  assert.deepEqual(names(), ["one", "two"]);
  await until("nothing is left", () => page.evaluate(() => window.footfall!.state().pending === 0));
  assert.equal(await page.evaluate(() => window.footfall!.state().refused), 1);
});

test("a visit without a network is delivered by the next page, at its age", async () => {
  node.fault = "no_network";
  const page = await open(SCRIPT);
  await custom(page, "offline");
  await page.goto("about:blank");
  node.fault = "none";
  const next = await open(SCRIPT);
  await until("all are stored", () => node.stored.size === 3);
  assert.deepEqual(names(), ["offline"]);
  assert.ok(node.customs().every(({ at }) => at < 0), "before this page load began");
  assert.deepEqual(await next.evaluate(() => Object.keys(localStorage)), []);
});

test("an unknown site ends it", async () => {
  node.fault = "unknown_site";
  const page = await open(SCRIPT);
  await until("it stopped", () => page.evaluate(() => (window.footfall!.state().transport as string) === "stopped"));
  await custom(page, "ignored");
  await pause(800);
  assert.equal(node.requests.length, 1);
  assert.equal(await page.evaluate(() => window.footfall!.state().pending), 0);
});

test("without storage nothing is written", async () => {
  node.fault = "no_network";
  const page = await open(SCRIPT.replace("data-site", 'data-storage="none" data-site'));
  await custom(page, "kept_nowhere");
  node.body = "";
  await page.goto(`${url}/next`);
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage)), []);
});

test("without storage what is left when the page ends goes as an image", async () => {
  const page = await open(SCRIPT.replace("data-site", 'data-storage="none" data-site'));
  await until("the view is stored", () => node.stored.size === 1);
  await page.evaluate(() => {
    (window.footfall as (name: string) => void)("last_words");
    location.href = "about:blank";
  });
  await until("it is stored", () => names().includes("last_words"));
  assert.equal(node.requests.at(-1)?.way, "pixel");
});

test("on localhost nothing is sent unless the page asks for it", async () => {
  const page = await open(SCRIPT.replace(/ data-include="[^"]*"/, ""));
  await pause(800);
  assert.equal(await page.evaluate(() => "footfall" in window), false);
  assert.deepEqual(node.requests, []);
});
