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
  { name: 'live-wall', options: { ...WALL, colorScheme: 'dark' } },
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
async function explained(page) {
  await page.getByRole('button', { name: /Online now/ }).click();
}

const browser = await launch();
let complained = 0;
for (const { name, options, hash = '', full = false, act, prepare, signedIn = true, expected } of shots) {
  if (only && !name.includes(only)) continue;
  const mock = await start({ signedIn });
  furnish(mock);
  prepare?.(mock);
  const { page, context, complaints } = await open(browser, `${mock.url}/${hash}`, options);
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
