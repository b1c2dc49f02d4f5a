// What a site asks of its trackers, and what a visitor asks of them: in a real Chromium, by what ClickHouse has.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { launch, trackerState } from './browser.js';
import { FootfallNode, eventually } from './node.js';

const SETTINGS = `
[[sites]]
key = "shop"
origins = ["http://127.0.0.1:*"]
[sites.tracker]
respect_dnt = true
hash_routes = true
query_params = ["q"]
ignore_paths = ["/demo/app/**"]
mask_paths = ["/demo/lab/*"]
`;
/** Longer than a tracker that sends would take. */
const SILENCE_MS = 1_500;

let node, browser, context;

before(async () => {
  node = await FootfallNode.start(SETTINGS);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  assert.equal(await node?.stop(), 0, 'the node did not stop cleanly');
});
beforeEach(async () => {
  context = await browser.newContext();
});
afterEach(() => context.close());

/** A page of the site with the tracker, whose tag has these attributes too. */
async function open(path, attributes = 'data-include="localhost automation"') {
  const page = await context.newPage();
  const html = `<!doctype html><title>Page</title><script defer src="/f.js" data-site="shop" ${attributes}></script><a href="https://away.example/x?y=1">away</a>`;
  await page.route('**/demo/**', (route) => route.fulfill({ contentType: 'text/html', body: html }));
  await page.goto(node.ready.ingest + path);
  return page;
}
const settled = (page) => eventually('everything is settled', async () => (await trackerState(page)).pending === 0);
const tell = (page, name) => page.evaluate((name) => window.footfall(name), name);
/** Addresses and names of what has arrived of the page, all of it. */
async function arrived(page, count) {
  const { stream } = await trackerState(page);
  const sql = `SELECT kind, name, path FROM events WHERE startsWith(replaceAll(toString(event_id), '-', ''), '${stream}') AND kind != 'engagement' ORDER BY event_id`;
  const rows = await eventually(`${count} rows`, async () => {
    const rows = await node.query(sql);
    return rows.length >= count && rows;
  });
  return rows.map(({ kind, name, path }) => `${name || kind} ${path}`);
}
/** Nothing of the page may have gone anywhere: no row, and no request but for files. */
async function assertSilent(page) {
  const { stream } = await trackerState(page);
  await sleep(SILENCE_MS);
  assert.deepEqual(await node.query(`SELECT kind FROM events WHERE startsWith(replaceAll(toString(event_id), '-', ''), '${stream}')`), []);
}
/** Requests and sockets of a page besides its files. */
function contacts(page) {
  const seen = [];
  page.on('websocket', (socket) => seen.push(socket.url()));
  page.on('request', (request) => /\/e(\.gif)?\?/.test(request.url()) && seen.push(request.url()));
  return seen;
}

test('paths are ignored and masked, queries cut, the part behind # is a route', async () => {
  const page = await open('/demo/lab/4711?q=lamp&token=secret&utm_source=news#bed-1');
  await page.evaluate(() => history.pushState(null, '', '/demo/app/private'));
  await tell(page, 'private');
  await page.evaluate(() => history.pushState(null, '', '/demo/shop#a'));
  await settled(page);
  await page.evaluate(() => (location.hash = 'b'));
  await tell(page, 'public');
  await settled(page);
  assert.deepEqual(await arrived(page, 4), ['view /demo/lab/*', 'view /demo/shop', 'view /demo/shop', 'public /demo/shop']);
  const [{ secrets }] = await node.query("SELECT countIf(position(concat(path, toString(props)), 'secret') > 0 OR position(path, 'private') > 0) AS secrets FROM events");
  assert.equal(secrets, 0);
});

test('who asks not to be tracked is not', async () => {
  await context.addInitScript(() => Object.defineProperty(navigator, 'globalPrivacyControl', { value: true }));
  const page = await open('/demo/');
  await tell(page, 'unwanted');
  await assertSilent(page);
});

test('nothing leaves before consent; what happened meanwhile comes with it, and nothing after it is refused', async () => {
  const waiting = 'data-consent data-include="localhost automation"';
  const page = await open('/demo/', waiting);
  await tell(page, 'before');
  await assertSilent(page);
  await page.evaluate(() => window.footfall.consent(true));
  await settled(page);
  assert.deepEqual(await arrived(page, 2), ['view /demo/', 'before /demo/']);

  const refused = await open('/demo/', waiting);
  await refused.evaluate(() => window.footfall.consent(false));
  await tell(refused, 'after');
  await assertSilent(refused);
  assert.equal(await refused.evaluate(() => localStorage.length), 0);
});

test('a robot and a page of this machine are not counted unless the tag says so', async () => {
  const page = await context.newPage();
  const seen = contacts(page);
  const said = [];
  page.on('console', (message) => said.push(message.text()));
  await page.route('**/demo/', (route) => route.fulfill({ contentType: 'text/html', body: '<script defer src="/f.js" data-site="shop"></script>' }));
  await page.goto(`${node.ready.ingest}/demo/`);
  await eventually('it says why', () => said.some((text) => text.includes('data-include')));
  await sleep(SILENCE_MS);
  assert.deepEqual(seen, []);
});

test('#footfall-ignore excludes the browser until it is opened again', async () => {
  const dialogs = [];
  context.on('dialog', (dialog) => (dialogs.push(dialog.message()), dialog.accept()));
  const page = await open('/demo/#footfall-ignore');
  await eventually('it says so', () => dialogs.length === 1);
  await tell(page, 'mine');
  await assertSilent(page);
  const later = await open('/demo/');
  await assertSilent(later);
  const again = await open('/demo/#footfall-ignore');
  await settled(again);
  assert.deepEqual(await arrived(again, 1), ['view /demo/']);
  assert.match(dialogs.join(), /no longer counted.*counted again/);
});

test('without storage none is touched', async () => {
  await context.addInitScript(() => {
    window.touched = 0;
    const { get } = Object.getOwnPropertyDescriptor(Window.prototype, 'localStorage') ?? Object.getOwnPropertyDescriptor(window, 'localStorage');
    Object.defineProperty(window, 'localStorage', { get() { window.touched += 1; return get.call(window); } });
  });
  const page = await open('/demo/', 'data-storage="none" data-include="localhost automation"');
  await settled(page);
  assert.deepEqual(await arrived(page, 1), ['view /demo/']);
  assert.equal(await page.evaluate(() => window.touched), 0);
  assert.deepEqual(await context.cookies(), []);
});
