// One person visits the demo site, another watches; SQL has exactly what happened, once each.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, logIn, openPage, rows, shown, trackerState } from './browser.js';
import { FootfallNode, eventually } from './node.js';

let node, visitors, watchers;

before(async () => {
  node = await FootfallNode.start();
  visitors = await launch();
  watchers = await launch();
});

after(async () => {
  await visitors?.close();
  await watchers?.close();
  assert.equal(await node?.stop(), 0, 'the node did not stop cleanly');
});

/** Everything this page's tracker issued is acked; gives its stream and how many that were. */
const settled = (page) =>
  eventually('everything acked', async () => {
    const state = await trackerState(page);
    return state.pending === 0 && state.acked > 0 && state;
  });

/** Rows of a stream; a UUID starts with the stream's 24 digits. */
const stored = (streams) =>
  node.query(
    `SELECT substring(replaceAll(toString(event_id), '-', ''), 1, 24) AS stream, kind, name, path, visitor, session
     FROM events WHERE stream IN (${streams.map((stream) => `'${stream}'`).join(', ')}) ORDER BY event_time, event_id`,
  );

test('a visit moves the live page without a reload, and is in ClickHouse once', async () => {
  const watcher = await openPage(watchers);
  await logIn(watcher, node.ready.login);
  await watcher.evaluate(() => (window.notReloaded = true));
  assert.deepEqual(await shown(watcher), { online: 0, active: 0, views: 0 });

  const page = await openPage(visitors);
  const streams = new Map();
  const remember = async () => {
    const state = await settled(page);
    streams.set(state.stream, state.acked);
  };
  await page.goto(node.ready.demo);
  await remember();
  await eventually('the visitor is online', async () => (await shown(watcher)).online === 1);
  await eventually('the visitor is active', async () => (await shown(watcher)).active === 1);
  await eventually('the view is counted', async () => (await shown(watcher)).views === 1);

  // Another page: another page load, hence another stream.
  const demo = new URL(node.ready.demo).pathname;
  await page.locator(`a[href^="${demo}"]:not([href="${demo}"])`).first().click();
  await page.waitForLoadState();
  await remember();
  // The page with routes of its own.
  await page.goto(`${node.ready.demo}app/`);
  await remember();
  const route = page.locator('[data-route]').nth(1);
  await route.click();
  await eventually('the route is another', () => new URL(page.url()).pathname !== `${demo}app/`);
  const routed = new URL(page.url()).pathname;
  // An event of the site's own.
  await page.evaluate(() => window.footfall('end_to_end', { props: { plan: 'team', seats: 3, trial: true } }));
  await remember();

  await eventually('all views are counted', async () => (await shown(watcher)).views === 4);
  await eventually('the route is listed', async () => (await rows(watcher, 'page'))[routed] >= 1);
  await eventually('the event is listed', async () => (await rows(watcher, 'event')).end_to_end === 1);
  assert.equal((await shown(watcher)).active, 1, 'one person is one visitor, whatever they open');

  await page.close({ runBeforeUnload: true });
  await eventually('the visitor is gone', async () => (await shown(watcher)).online === 0);
  assert.equal(await watcher.evaluate(() => window.notReloaded), true, 'the live page was reloaded');
  assert.deepEqual(watcher.faults, []);
  assert.deepEqual(page.faults, []);

  // Leaving adds engagement, so the streams may hold more than was counted before, never less.
  const names = [...streams.keys()];
  const found = await eventually('the rows', async () => {
    const found = await stored(names);
    return found.filter((row) => row.kind === 'view').length >= 4 && found.some((row) => row.name === 'end_to_end') && found;
  });
  assert.equal(found.filter((row) => row.kind === 'view').length, 4);
  assert.equal(found.filter((row) => row.kind === 'custom').length, 1);
  assert.equal(new Set(found.map((row) => row.visitor)).size, 1);
  assert.equal(new Set(found.map((row) => row.session)).size, 1);
  const copies = await node.query('SELECT count() AS rows, uniqExact(event_id) AS events FROM events');
  assert.equal(copies[0].rows, copies[0].events);
  // Nobody but this visitor was there: nothing was stored that was not sent.
  assert.equal(copies[0].rows, (await stored(names)).length);
  const props = await node.query("SELECT props FROM events WHERE name = 'end_to_end'");
  assert.deepEqual(props[0].props, { plan: 'team', seats: '3', trial: 'true' });
});

test('what the live page shows equals what SQL returns for the same window', async () => {
  const watcher = await openPage(watchers);
  await logIn(watcher, node.login());
  await eventually('screen and SQL agree', async () => {
    const sql = `SELECT countIf(kind = 'view') AS views, uniqExact(visitor) AS visitors FROM events
      WHERE event_time > toStartOfMinute(now()) - INTERVAL 29 MINUTE - INTERVAL 1 SECOND`;
    const [{ views }] = await node.query(sql);
    const pages = await node.query(
      "SELECT path, count() AS views FROM events WHERE kind = 'view' AND event_time > now() - INTERVAL 25 MINUTE GROUP BY path",
    );
    const listed = await rows(watcher, 'page');
    return views > 0 && (await shown(watcher)).views === views && pages.every(({ path, views }) => listed[path] === views);
  });
});

test('a login link works once, and says so', async () => {
  const page = await openPage(watchers);
  await page.goto(node.ready.login);
  await page.getByText(/footfall login/).waitFor();
  assert.equal(await page.getByRole('button').count(), 0);
  await page.goto(node.ready.dashboard);
  await page.getByText(/set-up link/).first().waitFor();
  assert.equal(await page.getByTestId('online').count(), 0);
});
