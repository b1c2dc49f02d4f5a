// The tracker in a real Chromium against a real node, with what goes wrong on the way: everything that a page issued is
// in ClickHouse once, and nothing else.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { launch, trackerState } from './browser.js';
import { FootfallNode, eventually } from './node.js';
import { FaultProxy } from './proxy.js';

let node, browser, proxy, context;
/** Of all pages of a test. */
let streams;

before(async () => {
  node = await FootfallNode.start();
  browser = await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
});
after(async () => {
  await browser?.close();
  assert.equal(await node?.stop(), 0, 'the node did not stop cleanly');
});
beforeEach(async () => {
  proxy = await FaultProxy.to(node.ready.ingest);
  context = await browser.newContext();
  streams = [];
});
afterEach(async () => {
  await context.close();
  await proxy.close();
});

async function open(path = '/demo/', options = {}) {
  const page = await context.newPage();
  page.on('pageerror', (error) => assert.fail(`the page saw ${error}`));
  if (options.before) await options.before(page);
  await page.goto(proxy.url + path);
  streams.push((await trackerState(page)).stream);
  return page;
}
const custom = (page, ...names) => page.evaluate((names) => names.forEach((name) => window.footfall(name, { props: { a: 1 } })), names);
const settled = (page) =>
  eventually('everything is settled', async () => {
    const state = await trackerState(page);
    return state.pending === 0 && state.acked > 0 && state;
  }, 60_000);
async function closeTab(page) {
  const closed = page.waitForEvent('close');
  await page.close({ runBeforeUnload: true });
  await closed;
}

/**
 * What must have arrived of the test's pages, and nothing else: so many views, these custom events. Every event once,
 * and of each stream the numbers 1, 2, 3 … without a gap.
 */
async function arrived({ views, events }) {
  const list = streams.map((stream) => `'${stream}'`).join();
  const rows = () =>
    node.query(
      `SELECT kind, name, event_time, left(replaceAll(toString(event_id), '-', ''), 24) AS stream,
         reinterpretAsUInt32(reverse(unhex(right(replaceAll(toString(event_id), '-', ''), 8)))) AS seq
       FROM events WHERE stream IN (${list}) ORDER BY stream, seq`,
    );
  const expected = [views, ...[...events].sort()].join();
  const found = await eventually(`${views} views and ${events.join(', ')}`, async () => {
    const got = await rows();
    const names = got.filter(({ kind }) => kind === 'custom').map(({ name }) => name);
    return [got.filter(({ kind }) => kind === 'view').length, ...names.sort()].join() === expected && got;
  });
  for (const stream of new Set(streams)) {
    const seqs = found.filter((row) => row.stream === stream).map(({ seq }) => seq);
    assert.deepEqual(seqs, seqs.map((_, index) => index + 1), `${stream} has gaps or doubles`);
  }
  return found;
}

test('where upgrades are stripped, events go over HTTP', async () => {
  proxy.fault = 'strip_upgrade';
  const page = await open();
  await custom(page, 'over_http');
  await settled(page);
  assert.equal((await trackerState(page)).transport, 'http');
  await arrived({ views: 1, events: ['over_http'] });
});

test('acks that are swallowed: the events go again, and count once', async () => {
  const page = await open();
  await settled(page);
  proxy.fault = 'swallow_acks';
  await custom(page, 'one', 'two');
  await arrived({ views: 1, events: ['one', 'two'] });
  assert.equal((await trackerState(page)).pending, 2);
  proxy.fault = 'none';
  proxy.cut();
  await settled(page);
  await arrived({ views: 1, events: ['one', 'two'] });
});

test('offline for half a minute, then online: what happened meanwhile is there, at its time', async () => {
  const page = await open();
  await settled(page);
  await context.setOffline(true);
  proxy.fault = 'refuse';
  proxy.cut();
  const at = Date.now();
  await custom(page, 'offline');
  await sleep(30_000);
  await custom(page, 'later');
  proxy.fault = 'none';
  await context.setOffline(false);
  await settled(page);
  const rows = await arrived({ views: 1, events: ['offline', 'later'] });
  const time = (name) => Date.parse(`${rows.find((row) => row.name === name).event_time.replace(' ', 'T')}Z`);
  assert.ok(Math.abs(time('offline') - at) < 5_000, `${rows.find(({ name }) => name === 'offline').event_time} for ${new Date(at).toISOString()}`);
  assert.ok(time('later') - time('offline') >= 29_000);
});

test('a tab closed with events in flight; the next visit settles them', async () => {
  const page = await open();
  await settled(page);
  proxy.fault = 'swallow_acks';
  await custom(page, 'last_words');
  await closeTab(page);
  proxy.fault = 'none';
  const next = await open('/demo/about.html');
  await settled(next);
  await eventually('storage is empty', () => next.evaluate(() => !localStorage.length));
  await arrived({ views: 2, events: ['last_words'] });
});

test('a visit without a network, then two tabs at once: each event once', async () => {
  const page = await open();
  await settled(page);
  proxy.fault = 'refuse';
  proxy.cut();
  await custom(page, 'nobody_heard');
  await closeTab(page);
  proxy.fault = 'none';
  const tabs = await Promise.all([open('/demo/about.html'), open('/demo/shop.html')]);
  for (const tab of tabs) await settled(tab);
  await arrived({ views: 3, events: ['nobody_heard'] });
  await eventually('storage is empty', () => tabs[0].evaluate(() => !localStorage.length));
});

test('a page back from the back/forward cache connects again and counts a view', async () => {
  const page = await open();
  await settled(page);
  await page.evaluate(() => (window.kept = true));
  await page.goto(`${proxy.url}/demo/about.html`);
  await settled(page);
  streams.push((await trackerState(page)).stream);
  await page.goBack({ waitUntil: 'commit' });
  await eventually('the page is back', async () => (await trackerState(page)).transport === 'ws');
  await settled(page);
  assert.ok(await page.evaluate(() => window.kept), 'the page was not taken from the cache');
  await arrived({ views: 3, events: [] });
});

test('a thousand events in a burst', async () => {
  const page = await open();
  await settled(page);
  const names = Array.from({ length: 1_000 }, (_, i) => `burst_${i}`);
  const ms = await page.evaluate((names) => {
    const from = performance.now();
    names.forEach((name) => window.footfall(name, { props: { a: 1 } }));
    return performance.now() - from;
  }, names);
  await settled(page);
  const rows = await arrived({ views: 1, events: names });
  assert.deepEqual(rows.filter(({ kind }) => kind === 'custom').map(({ name }) => name), names, 'in their order');
  // A tenth of it would be a long task; this bound only finds what grows with the square.
  assert.ok(ms < 2_000, `${ms} ms`);
});

test('a wall clock that is a day wrong does not move events', async () => {
  for (const days of [-1, 1]) {
    const page = await open('/demo/', { before: (page) => page.clock.setFixedTime(Date.now() + days * 86_400_000) });
    await custom(page, `clock_${days}`);
    await settled(page);
  }
  const rows = await arrived({ views: 2, events: ['clock_-1', 'clock_1'] });
  for (const { name, event_time } of rows) assert.ok(Math.abs(Date.parse(`${event_time.replace(' ', 'T')}Z`) - Date.now()) < 60_000, `${name} ${event_time}`);
});

test('where a policy allows images alone, pixels bring the events', async () => {
  proxy.headers = { 'content-security-policy': "default-src 'self'; connect-src 'none'" };
  const page = await open();
  await custom(page, 'by_pixel');
  await settled(page);
  assert.equal((await trackerState(page)).transport, 'pixel');
  await arrived({ views: 1, events: ['by_pixel'] });
});
