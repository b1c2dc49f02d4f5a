// What the browser tests share: a stand-in, a page that watches it, and what the page must show of it.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { start } from '../mock/server.mjs';
import { launch, open } from './browser.mjs';

let browser;
before(async () => (browser = await launch()));
after(() => browser?.close());

/** A server whose numbers stand still unless told to tick, and a page that watches it. */
export async function watching(test, { path = '/', hash = '', live = false, before, page: how = {}, ...options } = {}) {
  const mock = await start({ tickMs: 100, ...options });
  mock.control.paused = !live;
  before?.(mock);
  test.after(() => mock.stop());
  const { page, context, complaints } = await open(browser, `${mock.url}${path}${hash}`, { viewport: { width: 1280, height: 900 }, ...how });
  test.after(() => context.close());
  page.setDefaultTimeout(10_000);
  return { mock, page, context, complaints };
}

export const phase = (page, state) => page.locator(`[data-testid=connection][data-state=${state}]`).waitFor();
export const shows = (page, testid, count) => page.locator(`[data-testid=${testid}][data-count="${count}"]`).waitFor();
export const told = (mock, site = 'demo') => mock.feeds.get(site).told;
export const viewsOf = (state) => Object.values(state.live.minutes).reduce((sum, { views }) => sum + views, 0);

/** The page shows exactly what the stand-in holds. */
export async function agrees(mock, page, site = 'demo') {
  await page.locator('[data-testid=row]').first().waitFor();
  const state = told(mock, site);
  await shows(page, 'online', state.online.visitors);
  await shows(page, 'active', state.live.totals.active);
  await shows(page, 'visitors', state.live.totals.visitors);
  await shows(page, 'views30', viewsOf(state));
  const rows = await page.locator('[data-testid=row][data-dimension=country]').evaluateAll((all) =>
    all.map(({ dataset }) => [dataset.value, Number(dataset.count)]));
  assert.ok(rows.length > 0, 'no countries are listed');
  for (const [value, count] of rows) assert.equal(count, state.live.tops.country[value], value);
}

/** Lets the stand-in tell one change. */
export function tick(mock) {
  mock.control.paused = false;
  mock.tick();
  mock.control.paused = true;
}
