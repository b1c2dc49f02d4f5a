import assert from "node:assert/strict";
import { test } from "node:test";
import type { Settings, TrackerEvent } from "../../src/protocol";
import { Page, type PageOptions } from "./page";

/** What has arrived, the view that the page began with included. */
const arrived = (page: Page): TrackerEvent[] => {
  page.pass(150);
  return page.socket.batches().flatMap(({ events }) => events);
};
function welcomed(options?: PageOptions, settings?: Settings): Page {
  const page = new Page(options);
  page.socket.welcome("tok", settings);
  return page;
}
const paths = (page: Page) => arrived(page).filter(({ k }) => k === "view").map(({ u }) => new URL(u).pathname);

test("a view says where, whence and how it is called; the query is cut off but for campaigns and click ids", () => {
  const url = "https://shop.example/a?token=secret&utm_source=news&gclid=1&notutm_x=2&q=utm_y&li_fat_id=3#part";
  const [view] = arrived(welcomed({ url, referrer: "https://search.example/?q=private", title: "Title" }));
  assert.deepEqual(view, { k: "view", at: 0, u: "https://shop.example/a?utm_source=news&gclid=1&li_fat_id=3", r: "https://search.example/", t: "Title" });
});

test("a title is cut between characters and never holds half of one", () => {
  const title = (text: string) => arrived(welcomed({ title: text }))[0]!.t!;
  assert.equal(title("🌿".repeat(200)), "🌿".repeat(128));
  assert.equal(title("half \ud83c of one"), "half ");
  assert.equal(title(""), "");
});

test("routes are views once each, with the attention that the one before got", () => {
  const page = welcomed();
  page.pass(2_000);
  page.scroll.y = 500;
  page.fires("scroll");
  page.scroll.y = 0;
  page.document.title = "Next";
  page.pushes("/next");
  page.pushes("/next");
  page.fires("popstate");
  const events = arrived(page);
  assert.deepEqual(events.map(({ k, u, d, s, pv, r, t }) => [k, new URL(u).pathname, d, s, pv, r, t]), [
    ["view", "/", undefined, undefined, undefined, undefined, "Shop"],
    ["engagement", "/", 2_000, 75, 1, undefined, undefined],
    ["view", "/next", undefined, undefined, undefined, "https://shop.example/", "Next"],
  ]);
});

test("an unchanged title is the last page's", () => {
  const page = welcomed();
  page.pushes("/next");
  assert.equal(arrived(page).at(-1)!.t, undefined);
});

test("a changed query is a view unless it was replaced", () => {
  const page = welcomed();
  page.pushes("/?page=2");
  (page.window.history as History).replaceState(null, "", "/?page=3");
  page.fires("popstate");
  assert.deepEqual(paths(page), ["/", "/"]);
});

test("only time that is visible and focused counts, the parts add up, and scrolling alone is no attention", () => {
  const page = welcomed();
  page.attends(false);
  page.pass(1_000);
  page.attends(true);
  page.pass(300);
  page.hides();
  page.pass(5_000);
  page.document.hidden = false;
  page.fires("visibilitychange");
  page.pass(200);
  page.hides();
  const engaged = arrived(page).filter(({ k }) => k === "engagement").map(({ d, pv }) => [d, pv]);
  assert.deepEqual(engaged, [[300, 1], [200, 1]]);
});

test("a page back from the back/forward cache counts a view, and the time in it counts for nobody", () => {
  const page = welcomed();
  page.socket.ack();
  page.pass(100);
  page.leaves();
  page.pass(60_000);
  page.document.hidden = false;
  page.fires("visibilitychange");
  page.fires("pageshow", { persisted: true });
  page.socket.welcome();
  page.pass(50);
  page.hides();
  const events = arrived(page);
  assert.deepEqual(events.map(({ k, d }) => [k, d]).filter(([k]) => k === "engagement"), [["engagement", 100], ["engagement", 50]]);
  assert.equal(events.filter(({ k }) => k === "view").length, 1);
});

test("calls made before the file has loaded are tracked after the view", () => {
  const page = welcomed({ stub: { q: [["early", { props: { a: true } }]] } });
  assert.deepEqual(arrived(page).map(({ k, n, p, pv }) => [n ?? k, p, pv]), [["view", undefined, undefined], ["early", { a: true }, 1]]);
});

test("revenue is sent as properties", () => {
  const page = welcomed();
  page.custom("order", { props: { plan: "pro" }, revenue: { amount: 12.5, currency: "EUR" } });
  assert.deepEqual(arrived(page).at(-1)!.p, { plan: "pro", amount: 12.5, currency: "EUR" });
});

test("prerendered, a page counts when it is shown", () => {
  const page = new Page({ prerendering: true });
  assert.equal(page.sockets.length, 0);
  page.fires("prerenderingchange");
  assert.equal(page.sockets.length, 1);
});

test("loaded twice, the first one counts", () => {
  const page = welcomed();
  const { stream } = page.state();
  assert.equal(new Page({ stub: page.window.footfall }).sockets.length, 0);
  assert.equal(page.state().stream, stream);
});

test("errors do not reach the page, and are told to whom debugs", () => {
  const page = welcomed();
  const heard: unknown[] = [];
  page.window.footfall.debug = (what) => heard.push(what);
  page.custom("circular", { props: { get boom(): string { throw new Error("boom"); } } });
  assert.match(String(heard), /boom/);
});

test("?footfall_debug=1 writes every frame to the console", () => {
  const page = welcomed({ url: "https://shop.example/?footfall_debug=1" });
  page.socket.ack();
  assert.ok(page.said.some((text) => text.includes("welcome")) && page.said.some((text) => text.includes("batch")));
});

test("the settings of the site hold for what happened before they were known, too, and numbers have no gap", () => {
  const settings = { ignore_paths: ["/admin/**"], mask_paths: ["/users/*"], query_params: ["q"] };
  const page = new Page({ url: "https://shop.example/admin/secrets?q=1" });
  page.custom("on admin");
  page.pass(100);
  page.pushes("/users/4711?q=lamp&token=x#top");
  page.custom("on a user");
  page.socket.welcome("tok", settings);
  page.pushes("/admin");
  page.custom("on admin again");
  page.pushes("/users/4711/orders");
  const events = arrived(page);
  assert.deepEqual(events.map(({ k, n, u, pv }) => [n ?? k, u, pv]), [
    ["view", "https://shop.example/users/*?q=lamp", undefined],
    ["on a user", "https://shop.example/users/*?q=lamp", 1],
    ["view", "https://shop.example/users/4711/orders", undefined],
  ]);
  assert.deepEqual(page.socket.batches().map(({ first }) => first)[0], 1);
});

test("settings hold for what an earlier page left unsent, too", () => {
  const earlier = new Page({ url: "https://shop.example/admin" });
  earlier.pushes("/users/1?token=x");
  earlier.custom("left");
  earlier.leaves();
  const page = new Page({ storage: earlier.storage });
  page.socket.welcome("tok", { ignore_paths: ["/admin"], mask_paths: ["/users/*"] });
  const [left] = page.socket.batches();
  assert.equal(left!.stream, earlier.state().stream);
  assert.deepEqual(left!.events.map(({ k, n, u, pv }) => [n ?? k, u, pv]), [
    ["view", "https://shop.example/users/*", undefined],
    ["left", "https://shop.example/users/*", 1],
  ]);
});

test("settings that come with a later connection change no number and no view of what was sent before", () => {
  const page = welcomed();
  page.socket.ack();
  page.custom("of the first view");
  page.pass(150);
  page.pushes("/second");
  page.pass(150);
  const sent = page.socket.batches().slice(1).flatMap(({ first, events }) => events.map((event, index) => [first + index, event]));
  page.socket.ends();
  page.pass(1_000);
  page.socket.welcome("tok", { ignore_paths: ["/"] });
  const again = page.socket.batches().flatMap(({ first, events }) => events.map((event, index) => [first + index, event]));
  assert.deepEqual(again, sent);
  page.pushes("/");
  page.pass(150);
  assert.equal(page.socket.batches().flatMap(({ events }) => events).at(-1)!.u, "https://shop.example/second", "the new ones hold for what comes");
});

test("until the settings can be applied, nothing is sent", () => {
  const page = new Page();
  page.filesAreGone = true;
  page.socket.welcome("tok", { ignore_paths: ["/"] });
  assert.deepEqual(page.socket.sent, []);
});

test("the part behind # is a route where the site says so", () => {
  const page = welcomed({ url: "https://shop.example/#/a" }, { hash_routes: true });
  page.location.hash = "#/b";
  page.fires("popstate");
  page.fires("hashchange");
  page.pushes("#/c");
  page.pushes("/other#/d");
  page.fires("hashchange");
  const views = arrived(page).filter(({ k }) => k === "view").map(({ u }) => u.replace("https://shop.example", ""));
  assert.deepEqual(views, ["/#/a", "/#/b", "/#/c", "/other#/d"]);
  const plain = welcomed({ url: "https://shop.example/#/a" });
  plain.location.hash = "#/b";
  plain.fires("popstate");
  plain.fires("hashchange");
  assert.equal(paths(plain).length, 1);
});

test("who does not want to be tracked is not, where the site says so", () => {
  assert.equal(arrived(welcomed({ doNotTrack: true }, { respect_dnt: true })).length, 0);
  assert.equal(arrived(welcomed({ doNotTrack: true })).length, 1);
  assert.equal(arrived(welcomed({}, { respect_dnt: true })).length, 1);
});

for (const [what, options, word] of [
  ["a robot", { webdriver: true }, "automation"],
  ["localhost", { url: "http://localhost:3000/" }, "localhost"],
  ["127.0.0.1", { url: "http://127.0.0.1/" }, "localhost"],
  ["[::1]", { url: "http://[::1]:8080/" }, "localhost"],
  ["a file", { url: "file:///tmp/index.html" }, "localhost"],
] as [string, PageOptions, string][])
  test(`${what} is not counted, is told why, and is counted when the tag says so`, () => {
    const page = new Page(options);
    page.pass(30_000);
    page.leaves();
    assert.deepEqual([page.sockets.length, page.beacons.length, page.storage], [0, 0, {}]);
    assert.match(String(page.said), new RegExp(`data-include="${word}"`));
    assert.equal(new Page({ ...options, dataset: { include: "localhost automation" } }).sockets.length, 1);
  });

test("a host that only begins like this machine's is counted", () => {
  assert.equal(new Page({ url: "https://localhost.example.com/" }).sockets.length, 1);
});

test("#footfall-ignore excludes this browser until it is opened again", () => {
  const storage = {};
  const page = new Page({ storage, url: "https://shop.example/#footfall-ignore" });
  assert.match(String(page.said), /no longer counted/);
  assert.equal(page.sockets.length, 0);
  assert.equal(new Page({ storage }).sockets.length, 0);
  assert.equal(new Page({ storage, url: "https://shop.example/#footfall-ignore" }).sockets.length, 1);
  assert.equal(new Page({ storage }).sockets.length, 1);
});

test("a site that the node does not know is told to whom looks into the console", () => {
  const page = welcomed();
  page.socket.says({ t: "error", reason: "unknown_site", detail: "no site has the key demo" });
  assert.match(String(page.said), /unknown_site: no site has the key demo/);
});

test("with data-consent nothing is sent or written before it is given, and what happened meanwhile is sent then", () => {
  const page = new Page({ dataset: { consent: "" } });
  page.custom("before");
  page.hides();
  page.fires("online");
  page.pass(60_000);
  assert.deepEqual([page.sockets.length, page.storage], [0, {}]);
  page.window.footfall.consent!(true);
  page.socket.welcome();
  assert.deepEqual(arrived(page).map(({ k, n }) => n ?? k).filter((name) => name !== "engagement"), ["view", "before"]);
});

test("consent that is refused forgets what was held and what earlier pages left", () => {
  const earlier = new Page();
  earlier.leaves();
  const page = new Page({ storage: earlier.storage, dataset: { consent: "" } });
  page.window.footfall.consent!(false);
  page.leaves();
  assert.deepEqual([page.sockets.length, page.beacons.length, page.storage, page.state().pending], [0, 0, {}, 0]);
});

test("consent that was told to the stub counts", () => {
  assert.equal(new Page({ dataset: { consent: "" }, stub: { given: true } }).sockets.length, 1);
  assert.equal(new Page({ dataset: { consent: "" }, stub: { given: false } }).sockets.length, 0);
});

test("data-modules loads the files, data-not-found tells of a page that is none, data-endpoint names the node", () => {
  const page = welcomed({ dataset: { modules: "links vitals", notFound: "", endpoint: "https://shop.example/stats" } });
  assert.deepEqual(page.loaded, ["f-more.js", "f-links.js", "f-vitals.js"]);
  assert.equal(arrived(page)[1]!.n, "not_found");
  assert.equal(page.socket.url, "wss://shop.example/stats/ws?k=demo&t=");
});
