/** The real browser, and waiting for what happens in it. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium, type Browser, type LaunchOptions } from "playwright-core";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const DEADLINE_MS = 15_000;

export function launch(options: LaunchOptions = {}): Promise<Browser> {
  assert.ok(existsSync(executablePath), `no browser at ${executablePath}: install Debian's chromium or set CHROMIUM`);
  return chromium.launch({
    executablePath,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    ...options,
  });
}

export const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!(await holds())) {
    if (Date.now() > deadline) assert.fail(`not in ${DEADLINE_MS} ms: ${what}`);
    await pause(20);
  }
}
