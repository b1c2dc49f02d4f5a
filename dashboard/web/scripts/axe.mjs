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
  { name: 'empty', hash: '#/live/empty' },
  ...SETTINGS,
];

async function lost(page, mock) {
  mock.control.refuseSockets = true;
  mock.dropAll();
  await page.locator('[data-testid=connection][data-state=lost]').waitFor();
}

const browser = await launch();
let violations = 0;
for (const colorScheme of ['dark', 'light']) {
  for (const width of [1440, 360]) {
    for (const { name, hash = '', act, prepare, signedIn = true } of SCREENS) {
      const mock = await start({ signedIn });
      furnish(mock);
      prepare?.(mock);
      // axe is put in by the debugger, past the page's policy.
      const { page, context } = await open(browser, `${mock.url}/${hash}`, { viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
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
