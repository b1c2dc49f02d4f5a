// Screenshots of every screen with made-up numbers: node scripts/look.mjs [folder]
import { mkdirSync } from 'node:fs';
import { furnish } from '../mock/furnish.mjs';
import { start } from '../mock/server.mjs';
import { SCREENS } from './screens.mjs';
import { launch, open } from './browser.mjs';

const folder = process.argv[2] ?? 'screenshots';
mkdirSync(folder, { recursive: true });
const DESK = { viewport: { width: 1440, height: 900 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const NARROW = { viewport: { width: 360, height: 740 }, isMobile: true };
const WALL = { viewport: { width: 2560, height: 1440 } };
const only = process.argv[3];

const shots = [
  { name: 'live-dark', options: { ...DESK, colorScheme: 'dark' } },
  { name: 'live-light', options: { ...DESK, colorScheme: 'light' } },
  { name: 'live-light-full', options: { ...DESK, colorScheme: 'light' }, full: true },
  { name: 'live-phone', options: { ...PHONE, colorScheme: 'dark' }, full: true },
  { name: 'live-narrow', options: { ...NARROW, colorScheme: 'light' }, full: true },
  { name: 'live-large', options: { ...WALL, colorScheme: 'dark' }, full: true },
  { name: 'filtered', hash: '#/live/demo?country=DE&page=%2Fshop', options: { ...DESK, colorScheme: 'light' }, act: alerts, full: true },
  { name: 'filtered-phone', hash: '#/live/demo?country=DE&page=%2Fshop', options: { ...PHONE, colorScheme: 'dark' }, act: alerts },
  { name: 'refused', hash: '#/live/demo?country=DE', options: { ...DESK, colorScheme: 'light' }, prepare: (mock) => (mock.control.mostFilters = 0) },
  { name: 'wall', hash: '#/wall', options: { ...WALL, colorScheme: 'dark' } },
  { name: 'wall-hd', hash: '#/wall/shop,demo', options: { viewport: { width: 1920, height: 1080 }, colorScheme: 'light' }, act: alerts },
  { name: 'wall-upright', hash: '#/wall/demo', options: { viewport: { width: 1080, height: 1920 }, colorScheme: 'dark' } },
  { name: 'shared', path: '/s/demo?share=secret', signedIn: false, options: { ...DESK, colorScheme: 'dark' } },
  { name: 'embedded', path: '/embed/demo', signedIn: false, options: { viewport: { width: 640, height: 620 }, colorScheme: 'light' } },
  { name: 'embedded-narrow', path: '/embed/demo', signedIn: false, options: { viewport: { width: 320, height: 700 }, colorScheme: 'light' }, full: true },
  { name: 'young', options: { ...DESK, colorScheme: 'light' }, act: young },
  { name: 'young-phone', options: { ...PHONE, colorScheme: 'dark' }, full: true, act: young },
  { name: 'empty', hash: '#/live/empty', options: { ...DESK, colorScheme: 'light' } },
  { name: 'lost', options: { ...DESK, colorScheme: 'light' }, act: lost },
  { name: 'stale', options: { ...DESK, colorScheme: 'dark' }, act: stale },
  { name: 'explained', options: { ...PHONE, colorScheme: 'light' }, act: explained },
  ...SCREENS.flatMap((screen) => [
    { ...screen, name: `${screen.name}-light`, options: { ...DESK, colorScheme: 'light' }, full: true },
    { ...screen, name: `${screen.name}-phone`, options: { ...NARROW, colorScheme: 'dark' }, full: true },
  ]),
];

async function lost(page, mock) {
  mock.control.refuseSockets = true;
  mock.dropAll();
  await page.locator('[data-testid=connection][data-state=lost]').waitFor();
}
async function stale(page, mock) {
  mock.control.silent = 2;
  await page.locator('[data-testid=freshness][data-state=stale]').waitFor();
}
/** A site whose first visitors came within this minute. */
async function young(page, mock) {
  mock.makeYoung();
  await page.reload();
  await page.waitForTimeout(1_600);
}
async function alerts(page, mock) {
  const opened_at = Math.floor(Date.now() / 60_000) * 60_000 - 240_000;
  for (const { site } of mock.feeds.values()) {
    site.alerts = [
      { id: '1', site: site.key, rule: 'rush', kind: 'threshold', opened_at, value: 612, threshold: 500, text: 'Demo shop: rush: 612 page views in 5 minutes (at least 500)' },
      { id: '2', site: site.key, rule: 'quiet', kind: 'silence', opened_at: opened_at - 900_000, resolved_at: opened_at, value: 10, threshold: 10, text: 'Resolved: Demo shop: quiet: no events for 10 minutes' },
    ];
  }
  await page.locator('[data-testid=alerts]').waitFor();
}
async function explained(page) {
  await page.getByRole('button', { name: /Online now/ }).click();
}

const browser = await launch();
let complained = 0;
for (const { name, options, path = '/', hash = '', full = false, act, prepare, signedIn = true, expected } of shots) {
  if (only && !name.includes(only)) continue;
  const mock = await start({ signedIn, shares: { secret: { site: 'demo', filter: { device: 'mobile' } } } });
  furnish(mock);
  prepare?.(mock);
  const { page, context, complaints } = await open(browser, `${mock.url}${path}${hash}`, options);
  await page.waitForTimeout(1_600);
  await act?.(page, mock);
  await page.waitForTimeout(400);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: full });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  const unexpected = complaints.filter((text) => !expected?.test(text) && !(act === lost && /WebSocket/.test(text)));
  if (wide > 0) unexpected.push(`the page is ${wide} px wider than the screen`);
  console.log(`${name}: ${unexpected.length === 0 ? 'no complaint' : unexpected.join('\n  ')}`);
  complained += unexpected.length;
  await context.close();
  await mock.stop();
}
await browser.close();
process.exit(complained === 0 ? 0 : 1);
