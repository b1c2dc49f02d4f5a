// kill -9 of the whole process while a browser is on the page: the tracker comes back by itself, what it sent is there
// once, and the live page heals without a reload.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, logIn, openPage, rows, shown, trackerState } from './browser.js';
import { FootfallNode, eventually } from './node.js';

let node, browser;

before(async () => {
  node = await FootfallNode.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await node?.stop();
});

const fire = (page, from, count) =>
  page.evaluate(([from, count]) => {
    for (let number = from; number < from + count; number += 1) window.footfall('tick', { props: { number } });
  }, [from, count]);

const acked = (page, atLeast) =>
  eventually(`${atLeast} acked`, async () => (await trackerState(page)).acked >= atLeast, 60_000);

test('kill -9 in the middle loses nothing, doubles nothing, and heals by itself', async () => {
  const watcher = await openPage(browser);
  await logIn(watcher, node.ready.login);
  await watcher.evaluate(() => (window.notReloaded = true));
  const page = await openPage(browser);
  await page.goto(node.ready.demo);
  await fire(page, 0, 20);
  await acked(page, 21);

  // Some of these are acked, some in flight, some not sent when the process dies.
  await fire(page, 20, 30);
  await node.kill();
  await fire(page, 50, 30);
  await eventually('the tracker notices', async () => (await trackerState(page)).pending >= 30);
  await eventually('the live page says that the connection is lost', async () =>
    /lost|trying|reconnect/i.test(await watcher.getByTestId('connection').innerText()));
  await node.restart();
  await acked(page, 81);
  await fire(page, 80, 20);
  await acked(page, 101);
  const state = await trackerState(page);
  assert.equal(state.pending, 0);
  assert.equal(state.evicted, 0);

  const ticks = "SELECT count() AS rows, uniqExact(event_id) AS events, uniqExact(props['number']) AS numbers FROM events WHERE name = 'tick'";
  const counted = await eventually('all rows', async () => {
    const [row] = await node.query(ticks);
    return row.numbers === 100 && row;
  });
  assert.deepEqual(counted, { rows: 100, events: 100, numbers: 100 });

  await eventually('the live page counts all of them', async () => (await rows(watcher, 'event')).tick === 100, 60_000);
  await eventually('the visitor is online again', async () => (await shown(watcher)).online === 1);
  assert.equal(await watcher.evaluate(() => window.notReloaded), true, 'the live page was reloaded');

  // Rolling counts of the quiet site agree with the rows.
  await eventually('rolling counts', async () => {
    const [raw] = await node.query("SELECT count() AS events FROM events WHERE name = 'tick'");
    const [rolling] = await node.query("SELECT sum(events) AS events FROM rolling_counts WHERE dimension = 'event' AND value = 'tick'");
    return raw.events === 100 && rolling.events === 100;
  }, 120_000);
});
