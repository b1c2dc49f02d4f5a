// A real Chromium, and what the tests read off Footfall's pages.

import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  // Nothing but the pages under test: connections to elsewhere would only fail, many at a time.
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch(options = {}) {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, args: FLAGS, ...options });
}

/** A page whose console errors and failed requests are remembered: `page.faults`. */
export async function openPage(browser, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.faults = [];
  page.on('console', (message) => {
    if (message.type() === 'error') page.faults.push(`${message.text()} ${message.location().url}`);
  });
  page.on('pageerror', (error) => page.faults.push(String(error)));
  return page;
}

/** What the tracker on a page says of itself. */
export const trackerState = (page) => page.evaluate(() => window.footfall.state());

/** Logs in by the one-time link and waits for the live page's first numbers. */
export async function logIn(page, link) {
  await page.goto(link);
  await page.getByRole('button').first().click();
  await page.getByTestId('online').waitFor();
}

/** Numbers that the live page shows. */
export async function shown(page) {
  const number = async (id) => Number((await page.getByTestId(id).innerText()).replace(/\D/g, ''));
  return { online: await number('online'), active: await number('active'), views: await number('views30') };
}

/** Counts of a list on the live page, by value. */
export async function rows(page, dimension) {
  const entries = await page
    .locator(`[data-testid="row"][data-dimension="${dimension}"]`)
    .evaluateAll((found) => found.map((row) => [row.dataset.value, Number(row.dataset.count)]));
  return Object.fromEntries(entries);
}
