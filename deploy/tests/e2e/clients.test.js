// The tracker's protocol by other WebSocket clients: Node's `ws`, and Chromium's own.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';
import { launch, openPage } from './browser.js';
import { FootfallNode, eventually } from './node.js';

const PING_MS = 200;
const IDLE_MS = 1_000;
const SETTINGS = `[ingest]\nreconnect_spread_ms = 500\n[ingest.timeouts]\nping_ms = ${PING_MS}\nidle_ms = ${IDLE_MS}\n`;

let node, browser;

before(async () => {
  browser = await launch();
});

beforeEach(async () => {
  node = await FootfallNode.start(SETTINGS);
});

// A test that failed has not stopped it.
afterEach(() => node?.stop());

after(() => browser?.close());

const address = () => `${node.ready.ingest.replace('http', 'ws')}/ws?k=demo`;

const batch = (stream, first) =>
  JSON.stringify({ t: 'batch', stream, first, sent: 1500, events: [{ k: 'view', at: 1000, u: 'http://localhost/' }] });

/** What a client does from the welcome to the bye. `said` gives all text frames so far, `closed` the close code or null. */
async function converse({ said, send, closed }, stream) {
  const frame = (what, wanted) => eventually(what, async () => (await said()).map(JSON.parse).find(wanted));
  await frame('a welcome', ({ t }) => t === 'welcome');
  await send(batch(stream, 1));
  const ack = await frame('an ack', ({ t }) => t === 'ack');
  assert.deepEqual(ack, { t: 'ack', stream, first: 1, upto: 1 });
  // Three times the idle time-out: only the client's pongs keep it.
  await sleep(3 * IDLE_MS);
  assert.equal(await closed(), null);
  await send(batch(stream, 2));
  await frame('the second ack', ({ t, upto }) => t === 'ack' && upto === 2);
  assert.equal(await node.stop(), 0);
  const bye = await frame('a bye', ({ t }) => t === 'bye');
  assert.ok(bye.retry_ms >= 50 && bye.retry_ms <= 500, `${bye.retry_ms}`);
  assert.equal(await eventually('the close', closed), 1012);
}

test('the client `ws` is welcomed, acked, kept alive and told to come back', async () => {
  const socket = new WebSocket(address(), 'footfall.v1');
  const frames = [];
  let code = null;
  let pings = 0;
  socket.on('message', (text) => frames.push(String(text)));
  socket.on('ping', () => (pings += 1));
  socket.on('close', (told) => (code = told));
  const client = { said: () => frames, send: (text) => socket.send(text), closed: () => code };
  await converse(client, '0001a3f5c2d00000000000a1');
  assert.equal(socket.protocol, 'footfall.v1');
  assert.equal(socket.extensions, '', 'compression is declined');
  assert.ok(pings >= 5, `${pings} pings`);
});

test('Chromium is welcomed, acked, kept alive and told to come back', async () => {
  const page = await openPage(browser);
  // A page of the node without a tracker of its own.
  await page.goto(`${node.ready.ingest}/healthz`);
  await page.evaluate((url) => {
    const socket = new WebSocket(url, 'footfall.v1');
    Object.assign(window, { socket, frames: [], code: null });
    socket.onmessage = ({ data }) => window.frames.push(data);
    socket.onclose = ({ code }) => (window.code = code);
  }, address());
  const client = {
    said: () => page.evaluate(() => window.frames),
    send: (text) => page.evaluate((text) => window.socket.send(text), text),
    closed: () => page.evaluate(() => window.code),
  };
  await converse(client, '0001a3f5c2d00000000000a2');
  assert.equal(await page.evaluate(() => window.socket.protocol), 'footfall.v1');
  await page.close();
});
