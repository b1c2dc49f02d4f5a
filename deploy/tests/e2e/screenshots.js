// Pictures of the live page and the demo site for the README, from a node with synthetic visitors.

import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { launch, openPage } from './browser.js';
import { BINARY, FootfallNode } from './node.js';

const FOLDER = new URL('../../screenshots/', import.meta.url).pathname;
/** Long enough for some minutes on the charts. */
const LOAD_SECONDS = Number(process.env.FOOTFALL_SCREENSHOT_SECONDS ?? 150);

mkdirSync(FOLDER, { recursive: true });
const node = await FootfallNode.start();
const browser = await launch();
const args = ['--connections', '60', '--rate', '14', '--events-per-frame', '1', '--visit', '90s', '--seed', '12'];
const load = spawn(
  BINARY,
  ['load', '--ingest', node.ready.ingest, '--site', node.ready.site, '--duration', `${LOAD_SECONDS + 60}s`, '--ledger', '/dev/null', ...args],
  { stdio: 'ignore' },
);
try {
  console.log(`visitors are coming; pictures in ${LOAD_SECONDS} s`);
  await sleep(LOAD_SECONDS * 1000);
  const shots = [
    { name: 'live-light', colorScheme: 'light', viewport: { width: 1440, height: 1000 } },
    { name: 'live-dark', colorScheme: 'dark', viewport: { width: 1440, height: 1000 } },
    { name: 'live-phone', colorScheme: 'light', viewport: { width: 390, height: 844 } },
  ];
  for (const { name, ...options } of shots) {
    const page = await openPage(browser, options);
    await page.goto(node.login());
    await page.getByRole('button').first().click();
    await page.getByTestId('online').waitFor();
    await sleep(2500);
    await page.screenshot({ path: `${FOLDER}${name}.png` });
    console.log(`${name}.png`);
    await page.close();
  }
  const demo = await openPage(browser, { colorScheme: 'light', viewport: { width: 1200, height: 860 } });
  await demo.goto(node.ready.demo);
  await demo.waitForFunction(() => window.footfall.state?.().acked > 0);
  await sleep(1000);
  await demo.screenshot({ path: `${FOLDER}demo.png` });
  console.log('demo.png');
} finally {
  load.kill('SIGTERM');
  await browser.close();
  await node.stop();
}
