// Every screen through axe-core, in both themes and at two widths; any violation fails.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { furnish } from '../mock/furnish.mjs';
import { start } from '../mock/server.mjs';
import { launch, open } from './browser.mjs';
import { SCREENS as SETTINGS } from './screens.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SCREENS = [
  { name: 'live', hash: '#/live/demo' },
  { name: 'live, tables open', hash: '#/live/demo', act: (page) => page.locator('details summary').evaluateAll((all) => all.forEach((one) => one.click())) },
  { name: 'live, explained', hash: '#/live/demo', act: (page) => page.getByRole('button', { name: /Online now/ }).click() },
  { name: 'live, lost', hash: '#/live/demo', act: lost },
  { name: 'live, filtered', hash: '#/live/demo?country=DE&page=%2Fshop', act: alerts },
  { name: 'live, whole page', hash: '#/live/demo', act: whole },
  { name: 'live, refused', hash: '#/live/demo?country=DE', prepare: (mock) => (mock.control.mostFilters = 0) },
  { name: 'wall', hash: '#/wall/demo,shop' },
  { name: 'shared', path: '/s/demo', signedIn: false },
  { name: 'embedded', path: '/embed/demo', signedIn: false },
  { name: 'empty', hash: '#/live/empty' },
  ...SETTINGS,
];

async function lost(page, mock) {
  mock.control.refuseSockets = true;
  mock.dropAll();
  await page.locator('[data-testid=connection][data-state=lost]').waitFor();
}

async function alerts(page, mock) {
  const opened_at = Date.now() - 60_000;
  const alert = (id, more) => ({ id, site: 'demo', rule: 'rush', kind: 'threshold', opened_at, value: 9, threshold: 5, text: 'Demo shop: rush: 9 of 5', ...more });
  for (const { site } of mock.feeds.values()) site.alerts = [alert('1'), alert('2', { resolved_at: opened_at + 30_000 })];
  await page.locator('[data-testid=alerts]').waitFor();
}
/** What is loaded when it is looked at. */
async function whole(page) {
  await page.getByTestId('feed').scrollIntoViewIfNeeded();
  await page.getByTestId('event').first().waitFor();
  await page.getByTestId('map').waitFor();
}

const browser = await launch();
let violations = 0;
for (const colorScheme of ['dark', 'light']) {
  for (const width of [1440, 360]) {
    for (const { name, path = '/', hash = '', act, prepare, signedIn = true } of SCREENS) {
      const mock = await start({ signedIn });
      furnish(mock);
      prepare?.(mock);
      // axe is put in by the debugger, past the page's policy.
      const { page, context } = await open(browser, `${mock.url}${path}${hash}`, { viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
      await page.getByRole('heading', { level: 1 }).waitFor({ state: 'attached' });
      await page.waitForTimeout(300);
      await act?.(page, mock);
      await page.evaluate(AXE);
      const { violations: found } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      for (const { id, help, nodes } of found) {
        console.error(`${name}, ${colorScheme}, ${width} px: ${id}: ${help}`);
        for (const { html, failureSummary } of nodes.slice(0, 3)) console.error(`    ${html}\n    ${failureSummary}`);
      }
      violations += found.length;
      await context.close();
      await mock.stop();
    }
  }
}
await browser.close();
console.log(`${SCREENS.length * 4} screens, ${violations} violations`);
process.exit(violations === 0 ? 0 : 1);
