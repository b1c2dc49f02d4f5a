// The real tracker in Chromium behind nginx with the file that people copy, and behind one that lost its upgrade lines.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launch, openPage, trackerState } from './browser.js';
import { FootfallNode, eventually } from './node.js';

const CONFIG = new URL('../../proxies/nginx.conf', import.meta.url).pathname;
/** Where Debian has it, whatever the user's PATH says. */
const PATH = `${process.env.PATH}:/usr/sbin`;

let node, browser;

before(async () => {
  node = await FootfallNode.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  assert.equal(await node?.stop(), 0);
});

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** nginx before the node. Each change must meet its place: a file that was edited is noticed. */
async function startNginx(changes = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'footfall-nginx-'));
  const port = await freePort();
  const all = { ...changes, '127.0.0.1:80;': `127.0.0.1:${port};`, '127.0.0.1:8080': new URL(node.ready.ingest).host };
  let text = readFileSync(CONFIG, 'utf8');
  for (const [old, now] of Object.entries(all)) {
    assert.ok(text.includes(old), `${old} is not in ${CONFIG} any more`);
    text = text.replaceAll(old, now);
  }
  writeFileSync(join(directory, 'footfall.conf'), text);
  const parts = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  parts.forEach((part) => mkdirSync(join(directory, part)));
  const places = parts.map((part) => `${part}_temp_path ${directory}/${part};`).join(' ');
  const types = 'default_type application/octet-stream;';
  writeFileSync(
    join(directory, 'main.conf'),
    `daemon off; pid ${directory}/nginx.pid; events {} http { access_log off; ${types} ${places} include ${directory}/footfall.conf; }`,
  );
  const child = spawn('nginx', ['-c', join(directory, 'main.conf'), '-p', directory, '-e', 'stderr'], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, PATH },
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually('nginx serves', async () => (await fetch(`${url}/healthz`)).ok);
  return {
    url,
    async stop() {
      child.kill('SIGTERM');
      await once(child, 'exit');
      rmSync(directory, { recursive: true });
    },
  };
}

async function visit(nginx, transport) {
  const page = await openPage(browser);
  await page.goto(`${nginx.url}/demo/`);
  await eventually('all is acked', async () => {
    const state = await trackerState(page);
    return state.transport === transport && state.acked > 0 && state.pending === 0;
  });
  await page.close();
}

test('the tracker keeps its socket through nginx', async () => {
  const nginx = await startNginx();
  await visit(nginx, 'ws');
  await nginx.stop();
});

test('where nginx strips the upgrade the tracker goes by HTTP', async () => {
  const nginx = await startNginx({
    'proxy_set_header Upgrade $http_upgrade;': '',
    'proxy_set_header Connection $http_connection;': '',
  });
  await visit(nginx, 'http');
  await nginx.stop();
});
