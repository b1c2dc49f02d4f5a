// A page that is watched for days: an hour at twenty changes a second, as fast as the page takes them.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { agrees, shows, watching } from './stage.mjs';

const FRAMES = 72_000;
/** Before the first measurement everything that is made once is made. */
const WARM_UP = 16_000;
/** Sent at once. */
const BURST = 40;
/** Sent and not yet read by the page, at most. */
const AHEAD_BYTES = 256 * 1024;
const MOST_GROWN_BYTES = 768 * 1024;

const COUNTRIES = ['DE', 'US', 'FR', 'BR', 'IN', 'JP', 'SG', 'ZA'];

/** The n-th change: values come and go, goals rise, alerts open and are resolved, time goes on by 50 ms. */
function change(n, start) {
  const clock = start + n * 50;
  const second = Math.floor(clock / 1_000);
  const alert = { id: `${Math.floor(n / 500)}`, site: 'demo', rule: 'r', kind: 'threshold', opened_at: clock, value: 1, threshold: 1, text: `alert ${n}` };
  return {
    now: clock,
    online: { visitors: n, visible: n % 7, pages: { [`/${n}`]: 1 } },
    freshness: { clock, newest: clock - 100, silent_partitions: 0, nodes: 1 },
    goals: { 'Signed up': n },
    ...(n % 250 === 0 && { alerts: n % 500 === 0 ? [alert] : [{ ...alert, resolved_at: clock }] }),
    live: {
      totals: { active: n, visitors: n + 9, stored: n, duplicate: 0, late: 0, poison: 0, sessions: n, bounces: 1, duration_ms: n },
      seconds: { [second]: { views: n % 9, events: 9 } },
      minutes: { [second - (second % 60)]: { views: n % 90, events: 9, visitors: 1, sessions: 1 } },
      tops: {
        page: { [`/${n}`]: 1 + (n % 50), [`/${n - 200}`]: 0 },
        referrer: { [`${n}.example`]: 5, [`${n - 200}.example`]: 0 },
        country: { [COUNTRIES[n % 8]]: n },
      },
    },
  };
}

const event = (n, at) => ({ id: `${n}`, received_at: at, kind: 'view', page: `/${n}`, country: COUNTRIES[n % 8], referrer: `${n}.example` });

it(`holds no more after ${FRAMES} frames, and draws at most once a frame`, async (test) => {
  const { mock, page } = await watching(test);
  await agrees(mock, page);
  await page.getByTestId('feed').scrollIntoViewIfNeeded();
  await page.getByTestId('map').waitFor();
  for (let n = 0; n < 50 && ![...mock.feeds.get('demo').viewers].some(({ feedOn }) => feedOn); n += 1) await page.waitForTimeout(50);
  const feed = mock.feeds.get('demo');
  const debug = await page.context().newCDPSession(page);
  await page.evaluate(() => {
    globalThis.frames = 0;
    globalThis.draws = 0;
    const count = () => {
      globalThis.frames += 1;
      requestAnimationFrame(count);
    };
    requestAnimationFrame(count);
    const online = document.querySelector('[data-testid=online]');
    new MutationObserver((changes) => (globalThis.draws += changes.length)).observe(online, { attributes: true, attributeFilter: ['data-count'] });
  });

  let n = 0;
  const start = feed.told.freshness.clock;
  async function send(frames) {
    for (const end = n + frames; n < end; ) {
      for (let more = 0; more < BURST; more += 1, n += 1) {
        feed.seq += 1;
        const told = change(n, start);
        const text = JSON.stringify({ t: 'delta', site: 'demo', epoch: feed.epoch, seq: feed.seq, ...told });
        const events = JSON.stringify({ t: 'events', site: 'demo', events: [event(n, told.now)], skipped: n % 3 });
        for (const viewer of feed.viewers) {
          viewer.send(text);
          viewer.send(events);
        }
      }
      do await new Promise((resolve) => setTimeout(resolve, 4));
      while ([...mock.sockets].some(({ bufferedAmount }) => bufferedAmount > AHEAD_BYTES));
    }
    await shows(page, 'online', n - 1);
  }
  async function heap() {
    // Twice: what is freed by finalizers goes with the second.
    for (let times = 0; times < 2; times += 1) await debug.send('HeapProfiler.collectGarbage');
    return (await debug.send('Runtime.getHeapUsage')).usedSize;
  }

  page.setDefaultTimeout(60_000);
  await send(WARM_UP);
  const before = await heap();
  await page.evaluate(() => (globalThis.frames = globalThis.draws = 0));
  const began = Date.now();
  await send(FRAMES);
  const { frames, draws } = await page.evaluate(() => ({ frames: globalThis.frames, draws: globalThis.draws }));
  const took = Date.now() - began;
  const grown = (await heap()) - before;
  console.log(`${FRAMES} frames in ${(took / 1_000).toFixed(1)} s: heap ${(before / 1_048_576).toFixed(1)} MiB, ${(grown / 1_024).toFixed(0)} KiB more; ${draws} draws in ${frames} frames`);
  assert.ok(grown < MOST_GROWN_BYTES, `${grown} bytes more`);
  assert.ok(draws > 0 && draws <= frames + 1, `${draws} draws in ${frames} frames`);
  assert.ok((await page.getByTestId('event').count()) <= 200);
});
