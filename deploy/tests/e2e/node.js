// Runs `footfall standalone` as users do: the built binary, its ready file, its signals.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const BINARY = process.env.FOOTFALL_BIN ?? new URL('../../../target/debug/footfall', import.meta.url).pathname;
/** A loaded two-core machine loads a 500 MB library, recovers a log and joins a group in here. */
const READY_WITHIN_MS = 90_000;

export class FootfallNode {
  #child;
  #arguments;

  /** Starts on free ports, in a data directory of its own. */
  static async start(settings = '') {
    const node = new FootfallNode();
    node.dataDir = mkdtempSync(join(tmpdir(), 'footfall-e2e-'));
    node.#arguments = {};
    for (const part of ['ingest', 'dashboard', 'clickhouse', 'kafka']) node.#arguments[part] = '127.0.0.1:0';
    if (settings) {
      writeFileSync(join(node.dataDir, 'settings.toml'), settings);
      node.#arguments.config = join(node.dataDir, 'settings.toml');
    }
    await node.#spawn();
    return node;
  }

  async #spawn() {
    const readyFile = join(this.dataDir, 'ready-test.json');
    rmSync(readyFile, { force: true });
    const log = openSync(join(this.dataDir, 'stderr.log'), 'a');
    const options = Object.entries(this.#arguments).flatMap(([name, value]) => [`--${name}`, value]);
    const places = ['--data-dir', this.dataDir, '--ready-file', readyFile];
    this.#child = spawn(BINARY, ['standalone', ...places, ...options], { stdio: ['ignore', 'ignore', log] });
    this.exited = once(this.#child, 'exit');
    const deadline = Date.now() + READY_WITHIN_MS;
    while (!existsSync(readyFile)) {
      if (this.#child.exitCode !== null || Date.now() > deadline) throw new Error(`not ready:\n${this.log()}`);
      await sleep(20);
    }
    this.ready = JSON.parse(readFileSync(readyFile, 'utf8'));
  }

  log() {
    return readFileSync(join(this.dataDir, 'stderr.log'), 'utf8').split('\n').slice(-40).join('\n');
  }

  /** A fresh one-time link, as an operator gets it. */
  login() {
    return String(execFileSync(BINARY, ['login', '--data-dir', this.dataDir])).trim();
  }

  /** kill -9 of the process. */
  async kill() {
    this.#child.kill('SIGKILL');
    await this.exited;
  }

  /** Starts again in the same place, on the same ports. */
  async restart() {
    const host = (url) => new URL(url).host;
    const { ingest, dashboard, clickhouse, kafka } = this.ready;
    Object.assign(this.#arguments, { ingest: host(ingest), dashboard: host(dashboard), clickhouse: host(clickhouse.url), kafka });
    await this.#spawn();
  }

  /** SIGTERM; gives the exit code. */
  async stop() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGTERM');
    const [code] = await this.exited;
    rmSync(this.dataDir, { recursive: true, force: true });
    return code;
  }

  /** Rows of a SELECT, as an analyst's HTTP client gets them. */
  query(sql) {
    return select(this.ready.clickhouse, sql);
  }
}

/** Rows of a SELECT. */
export async function select({ url, user, password, database }, sql) {
  const target = `${url}/?database=${database}&output_format_json_quote_64bit_integers=0`;
  const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  const response = await fetch(target, { method: 'POST', body: `${sql} FORMAT JSONEachRow`, headers: { authorization } });
  const body = await response.text();
  if (!response.ok) throw new Error(`${sql}: ${body}`);
  return body.split('\n').filter(Boolean).map((line) => JSON.parse(line));
}

/** Asks until the answer is neither undefined, null nor false; fails with what was waited for. */
export async function eventually(what, ask, withinMs = 30_000) {
  const deadline = Date.now() + withinMs;
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== null && answer !== false) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${withinMs} ms; last: ${last}`);
    await sleep(50);
  }
}
