// The roles apart, each a process of its own that can be killed and started again: broker, engine, ingest, aggregator,
// dashboard.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BINARY, eventually, select } from './node.js';

/** A loaded machine loads the engine and joins a group in here. */
const READY_WITHIN_MS = 90_000;
export const SITE = 'shop';

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

const answers = (url) => async () => (await fetch(url)).ok;

export class Cluster {
  #processes = new Map();
  #commands = new Map();

  static async start() {
    const cluster = new Cluster();
    cluster.dir = mkdtempSync(join(tmpdir(), 'footfall-cluster-'));
    await cluster.#begin();
    return cluster;
  }

  async #begin() {
    const at = (name) => join(this.dir, name);
    const port = {};
    for (const name of ['broker', 'clickhouse', 'ingest', 'dashboard', 'aggregator']) port[name] = await freePort();
    const own = (name, more) => [name, '--data-dir', at(name), '--listen', `127.0.0.1:${port[name]}`, ...more];
    this.#commands.set('broker', own('broker', ['--ready-file', at('broker.ready')]));
    this.#commands.set('clickhouse', own('clickhouse', ['--ready-file', at('clickhouse.ready')]));
    for (const name of ['broker', 'clickhouse']) {
      this.start(name);
      await eventually(`${name} is ready`, () => readFileSync(at(`${name}.ready`), 'utf8').length > 0, READY_WITHIN_MS);
    }
    const { url, database, writer, reader, admin } = JSON.parse(readFileSync(at('clickhouse.ready'), 'utf8'));
    this.clickhouse = { url, database, ...reader };
    this.ingest = `http://127.0.0.1:${port.ingest}`;
    this.dashboard = `http://127.0.0.1:${port.dashboard}`;
    const login = ({ user, password }) => `{ user = "${user}", password = "${password}" }`;
    this.config = at('footfall.toml');
    writeFileSync(
      this.config,
      `data_dir = "${at('node')}"
secret = "${'5e'.repeat(32)}"
[[sites]]
key = "${SITE}"
name = "Shop"
origins = ["*"]
goals = [{ name = "Signed up", event = "signup" }]
[listen]
ingest = "127.0.0.1:${port.ingest}"
dashboard = "127.0.0.1:${port.dashboard}"
aggregator = "127.0.0.1:${port.aggregator}"
[kafka]
brokers = "127.0.0.1:${port.broker}"
[clickhouse]
url = "${url}"
database = "${database}"
writer = ${login(writer)}
reader = ${login(reader)}
admin = ${login(admin)}
[ingest]
demo = true
[aggregator]
session_timeout_ms = 3000
`,
    );
    execFileSync(BINARY, ['migrate', '--config', this.config], { stdio: ['ignore', 'ignore', 'inherit'] });
    this.#ready = {
      ingest: answers(`${this.ingest}/readyz`),
      dashboard: answers(`${this.dashboard}/readyz`),
      aggregator: async () => {
        const { partitions } = await (await fetch(`http://127.0.0.1:${port.aggregator}/status`)).json();
        const phases = Object.values(partitions).map(({ phase }) => phase);
        return phases.length > 0 && phases.every((phase) => phase === 'running');
      },
    };
    for (const role of ['ingest', 'aggregator', 'dashboard']) {
      this.#commands.set(role, [role, '--config', this.config]);
      this.start(role);
    }
    for (const role of ['ingest', 'aggregator', 'dashboard']) await this.ready(role);
  }

  #ready;

  /** Waits until a role says that it is ready. */
  ready(role) {
    return eventually(`${role} is ready`, this.#ready[role], READY_WITHIN_MS);
  }

  start(name) {
    const log = openSync(join(this.dir, `${name}.log`), 'a');
    const child = spawn(BINARY, this.#commands.get(name), { stdio: ['ignore', 'ignore', log] });
    this.#processes.set(name, { child, exited: once(child, 'exit') });
  }

  /** kill -9. */
  async kill(name) {
    const { child, exited } = this.#processes.get(name);
    child.kill('SIGKILL');
    await exited;
  }

  /** SIGTERM, and until it is gone. */
  async end(name) {
    const { child, exited } = this.#processes.get(name);
    child.kill('SIGTERM');
    await exited;
  }

  /** Last lines that a process said. */
  log(name) {
    return readFileSync(join(this.dir, `${name}.log`), 'utf8').split('\n').slice(-30).join('\n');
  }

  login() {
    return String(execFileSync(BINARY, ['login', '--config', this.config])).trim();
  }

  query(sql) {
    return select(this.clickhouse, sql);
  }

  async stop() {
    for (const { child, exited } of [...this.#processes.values()].reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await exited;
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}
