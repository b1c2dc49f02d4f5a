/** Autocapture in real Chromium: what it tells of what a person does, and what it must never tell. */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { launch, pause, until } from "./chromium";
import { Ingest } from "./ingest";

type Props = Record<string, boolean | number | string>;

const QUEUE = "<script>window.footfall = window.footfall || function () { (footfall.q = footfall.q || []).push(arguments) }</script>";
const MODULE = '<script defer src="/dist/f-autocapture.js"></script>';
/** Longer than a page may take to react. */
const DEAD_MS = 2_800;

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

/** A page of the site; an error in it fails the test. */
async function open(body: string, head = QUEUE): Promise<Page> {
  const page = await context.newPage();
  page.on("pageerror", (error) => ingest.broken.push(`the page saw ${String(error)}`));
  await page.route(`${url}/page*`, (route) => route.fulfill({ contentType: "text/html; charset=utf-8", body: `<!doctype html><title>Page</title>${head}${MODULE}<body>${body}` }));
  await page.goto(`${url}/page`);
  return page;
}
/** What was told so far, as name and properties. */
const told = (page: Page) =>
  page.evaluate(() =>
    Array.from((window.footfall as unknown as { q?: ArrayLike<unknown>[] }).q ?? [], (call) => [call[0], (call[1] as { props: unknown }).props]),
  ) as Promise<[string, Props][]>;
const names = async (page: Page) => (await told(page)).map(([name]) => name);

const clicks: [what: string, body: string, hit: string, expected: Props | undefined][] = [
  ["a button by what is in it", '<form id="letter"><p class="row"><button type="button" class="primary big wide"><b>Sign\n me up</b></button></p></form>', "b", { target: "form#letter > p.row > button.primary.big", text: "Sign me up" }],
  ["a link without its query", '<nav><a href="/page/shop?mail=me@example.com#x" onclick="return false">Shop</a></nav>', "a", { target: "nav > a", text: "Shop", href: "HOST/page/shop" }],
  ["a link to somebody's mail without the address", '<a href="mailto:me@example.com" onclick="return false">Write</a>', "a", { target: "a", text: "Write" }],
  ["a role", '<div role="tab" id="prices">Prices</div>', "div", { target: "div#prices" }],
  ["whatever has the pointer of a control", '<main><div class="card" style="cursor:pointer"><p>Text</p></div></main>', "p", { target: "main > div.card" }],
  ["a field, without a word of it", '<input id="name" value="secret">', "input", { target: "input#name" }],
  ["a button of input, without its value", '<input type="button" value="secret">', "input", { target: "input" }],
  ["the field of a label, once", '<label><span>Yes</span><input type="checkbox" name="yes"></label>', "span", { target: "label > input" }],
  ["names that hold no number of a row", '<ul><li id="user-83929" class="row-1234 row"><button>Go</button></li></ul>', "button", { target: "ul > li.row > button", text: "Go" }],
  ["a label of 64 characters at most", `<button>${"😀".repeat(70)}</button>`, "button", { target: "button", text: "😀".repeat(64) }],
  ["a path of 200 bytes at most", `<div class="${"a".repeat(190)}"><button class="b">x</button></div>`, "button", { target: "button.b", text: "x" }],
  ["no text that is to be ignored", '<button>Hello <i data-footfall-ignore>Ann</i>!</button>', "button", { target: "button", text: "Hello !" }],
  ["nothing of a paragraph", "<p>Text</p>", "p", undefined],
  ["nothing of an ignored element", "<button data-footfall-ignore>Go</button>", "button", undefined],
  ["nothing inside an ignored element", "<div data-footfall-ignore><p><button>Go</button></p></div>", "button", undefined],
  ["nothing of a password", '<input type="password">', "input", undefined],
  ["nothing where the visitor writes", '<div contenteditable><a href="/page/x">mine</a></div>', "a", undefined],
];
for (const [what, body, hit, expected] of clicks)
  test(`a click tells ${what}`, async () => {
    const page = await open(body);
    await page.click(hit, { position: { x: 3, y: 3 } });
    const { host } = new URL(url);
    const props = expected && { ...expected, ...(expected.href && { href: String(expected.href).replace("HOST", host) }) };
    assert.deepEqual(await told(page), props ? [["click", props]] : []);
  });

test("what a script clicks nobody did, and a key is a click", async () => {
  const page = await open("<button>Go</button>");
  await page.evaluate(() => document.querySelector("button")!.click());
  assert.deepEqual(await names(page), []);
  await page.focus("button");
  for (let i = 0; i < 3; i++) await page.keyboard.press("Enter");
  assert.deepEqual(await names(page), ["click", "click", "click"]);
});

test("five fast clicks in one place are one rage, and five more later another", async () => {
  const page = await open("<button>Go</button>");
  const five = async () => {
    for (let i = 0; i < 5; i++) await page.mouse.click(20 + i, 20);
  };
  const rages = async () => (await told(page)).filter(([name]) => name === "rage_click");
  await five();
  assert.deepEqual(await rages(), [["rage_click", { target: "button", text: "Go" }]]);
  await pause(1_100);
  await five();
  assert.equal((await rages()).length, 2);
});

test("rage is told of what is no control, too", async () => {
  const page = await open('<img class="hero" alt="" width="200" height="200">');
  for (let i = 0; i < 3; i++) await page.mouse.click(50, 50);
  assert.deepEqual(await told(page), [["rage_click", { target: "img.hero" }]]);
});

test("slow clicks, clicks far apart and a selected paragraph are no rage", async () => {
  const page = await open('<button style="width:300px;height:60px">Go</button><p>A paragraph of some length.</p>');
  for (let i = 0; i < 3; i++) {
    await page.mouse.click(20, 20);
    await pause(550);
  }
  for (const x of [20, 120, 220]) await page.mouse.click(x, 20);
  await page.click("p", { clickCount: 3, position: { x: 20, y: 5 } });
  assert.equal(await page.evaluate(() => String(getSelection()).trim()), "A paragraph of some length.");
  assert.deepEqual(new Set(await names(page)), new Set(["click"]));
});

const TALL = '<div style="height:3000px"></div><input id="other">';
const reactions: [what: string, dead: boolean, control: string][] = [
  ["nothing", true, "<button class='x'>Go</button>"],
  ["nothing, on what looks like a control", true, "<div class='x' style='cursor:pointer'>Go</div>"],
  ["nothing, on a link to nowhere", true, "<a class='x' href='#' onclick='event.preventDefault()'>Go</a>"],
  ["nothing, on a link whose default a script prevents", true, "<a class='x' href='/page/2'>Go</a><script>document.querySelector('a').addEventListener('click', event => event.preventDefault())</script>"],
  ["nothing but a clock that is ignored", true, "<button class='x'>Go</button><p data-footfall-ignore>0</p><script>setInterval(() => document.querySelector('p').firstChild.data += 1, 100)</script>"],
  ["a mutation two seconds later", false, "<button class='x' onclick='setTimeout(() => this.title = 1, 2000)'>Go</button>"],
  ["a mutation when the mouse goes down", false, "<button class='x' onpointerdown='this.title = 1'>Go</button>"],
  ["a route", false, "<button class='x' onclick='history.pushState(null, 0, `/page/2`)'>Go</button>"],
  ["a link that leads to no page", false, "<a class='x' href='/nothing'>Go</a>"],
  ["a scroll", false, "<button class='x' onclick='window.scrollTo(0, 500)'>Go</button>"],
  ["a focus", false, "<button class='x' onclick='other.focus({ preventScroll: true })'>Go</button>"],
  ["a selection", false, "<button class='x' onclick='getSelection().selectAllChildren(this)'>Go</button>"],
  ["a changed box", false, "<input class='x' type='checkbox'>"],
  ["a caret", false, "<input class='x'>"],
  ["an ignored element's nothing", false, "<button class='x' data-footfall-ignore>Go</button>"],
];
test("a click is dead when nothing comes of it, and only then", async () => {
  const found = await Promise.all(
    reactions.map(async ([what, , control]) => {
      const page = await open(control + TALL);
      await page.route(`${url}/nothing`, (route) => route.fulfill({ status: 204 }));
      await page.click(".x");
      assert.ok(!(await names(page)).includes("dead_click"), `${what}: too early`);
      await pause(DEAD_MS);
      return [what, (await told(page)).some(([name, { target }]) => name === "dead_click" && /\.x$/.test(String(target)))];
    }),
  );
  assert.deepEqual(Object.fromEntries(found), Object.fromEntries(reactions.map(([what, dead]) => [what, dead])));
});

test("a second click on a control under watch is not watched again", async () => {
  const page = await open("<button>Go</button>");
  for (let i = 0; i < 4; i++) await page.click("button");
  await pause(DEAD_MS);
  assert.deepEqual((await names(page)).filter((name) => name === "dead_click"), ["dead_click"]);
});

test("a submitted form tells its name and where it goes, never its fields", async () => {
  const page = await open(
    '<form name="login" action="/page/in?token=1" onsubmit="return false"><input name="id" value="secret"><input name="action" value="secret"><input type="password" value="secret"><button>In</button></form>',
  );
  await page.click("button");
  assert.deepEqual((await told(page)).filter(([name]) => name === "form_submit"), [["form_submit", { target: "form", form: "login", action: "/page/in" }]]);
  assert.doesNotMatch(JSON.stringify(await told(page)), /secret|token/);
});

test("what it tells reaches the node through the tracker", async () => {
  const page = await open("<button>Go</button>", '<script defer src="/f.js" data-site="demo" data-include="localhost automation"></script>');
  await page.click("button");
  await until("the click came", () => ingest.events("custom").length === 1);
  const [click] = ingest.events("custom");
  assert.deepEqual([click?.n, click?.p], ["click", { target: "button", text: "Go" }]);
});

test("a tracker that throws is not the page's trouble", async () => {
  const page = await open("<button onclick='this.title = 1'>Go</button>", "<script>window.footfall = () => { window.called = true; throw new Error('broken') }</script>");
  await page.click("button");
  assert.deepEqual(await page.evaluate(() => [document.querySelector("button")!.title, "called" in window]), ["1", true]);
});
