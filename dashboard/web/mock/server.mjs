// A stand-in for a dashboard node, for work on the page alone: serves dist/, the few addresses of /api and /live with
// made-up numbers, under the same content security policy. `npm run build && npm run mock`
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';
import { Accounts } from './accounts.mjs';
import { MockSite, changeTo } from './site.mjs';

export const POLICY =
  "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const DIST = new URL('../dist/', import.meta.url);
const DELTAS_KEPT = 40;

async function bodyOf(request) {
  let text = '';
  for await (const part of request) text += part;
  return text === '' ? {} : JSON.parse(text);
}

/** Options: port, sites ({ key: page views per second }), signedIn, tickMs. Changed while it runs by `control`. */
export async function start({ port = 0, sites = { demo: 3, shop: 0.4, empty: 0 }, signedIn = true, tickMs = 250 } = {}) {
  const control = { signedIn, silent: 0, paused: false, refuseSockets: false, noHistory: false };
  const mocks = Object.entries(sites).map(([key, perSecond], n) => new MockSite(key, perSecond, Date.now(), 7 + n));
  const feeds = new Map(mocks.map((site) => [site.key, { site, epoch: Date.now(), seq: 1, told: told(site), deltas: [], viewers: new Set() }]));

  const names = { demo: 'Demo shop', shop: 'Lamps & Chairs' };
  const accounts = new Accounts(control, Object.fromEntries(mocks.map(({ key }) => [key, names[key] ?? key])), {
    made(key) {
      const site = new MockSite(key, 0, Date.now());
      feeds.set(key, { site, epoch: Date.now(), seq: 1, told: told(site), deltas: [], viewers: new Set() });
    },
    counted(key) {
      const { ledger, online, freshness, live } = feeds.get(key)?.told ?? {};
      if (!ledger || live.totals.stored === 0) return {};
      return { received: ledger.received, accepted: ledger.accepted, stored: live.totals.stored, connected: online.visitors, last_event_at: freshness.newest };
    },
  });

  function told(site) {
    const state = site.state(Date.now() - 300);
    state.freshness.silent_partitions = control.silent;
    return state;
  }

  function tick() {
    if (control.paused) return;
    for (const feed of feeds.values()) {
      feed.site.step(Date.now(), tickMs);
      const newer = told(feed.site);
      const change = changeTo(feed.told, newer);
      feed.told = newer;
      feed.seq += 1;
      const text = JSON.stringify({ t: 'delta', site: feed.site.key, epoch: feed.epoch, seq: feed.seq, now: Date.now(), ...change });
      feed.deltas.push({ seq: feed.seq, text });
      if (feed.deltas.length > DELTAS_KEPT) feed.deltas.shift();
      for (const viewer of feed.viewers) viewer.send(text);
    }
  }

  async function answer(request, response) {
    const url = new URL(request.url, 'http://mock');
    response.setHeader('content-security-policy', POLICY);
    response.setHeader('x-content-type-options', 'nosniff');
    const json = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (url.pathname === '/logout') {
      control.signedIn = false;
      return json(200, {});
    }
    if (url.pathname.startsWith('/api/')) {
      const known = await accounts.answer(request.method, url, await bodyOf(request));
      if (known) {
        for (const [name, value] of Object.entries(known.headers ?? {})) response.setHeader(name, value);
        return known.status === 204 ? response.writeHead(204).end() : json(known.status, known.body);
      }
      if (!control.signedIn) return json(401, { error: 'not_logged_in', detail: 'open a link that `footfall login` prints' });
      const feed = feeds.get(url.searchParams.get('site'));
      if (control.noHistory) return json(503, { error: 'timeout', detail: 'ClickHouse cannot be asked at the moment' });
      if (url.pathname === '/api/history' && feed) return json(200, feed.site.history(Date.now()));
      return json(404, { error: 'not here' });
    }
    const path = url.pathname === '/' ? 'index.html' : url.pathname.slice(1);
    const file = new URL(path, DIST);
    try {
      if (!file.href.startsWith(DIST.href)) throw new Error('outside');
      const body = await readFile(fileURLToPath(file));
      response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' }).end(body);
    } catch {
      json(404, { error: 'not here' });
    }
  }

  const server = createServer((request, response) => void answer(request, response));
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'footfall-live.v1' });
  server.on('upgrade', (request, socket, head) => {
    if (!control.signedIn || control.refuseSockets) return socket.end('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n');
    sockets.handleUpgrade(request, socket, head, (viewer) => {
      let feed;
      viewer.on('message', (data) => {
        const { site, resume } = JSON.parse(String(data));
        feed?.viewers.delete(viewer);
        feed = feeds.get(site);
        if (!feed) return viewer.send(JSON.stringify({ t: 'error', reason: 'unknown_site', detail: `no site ${site}` }));
        const missing = feed.deltas.filter(({ seq }) => seq > (resume?.seq ?? 0));
        const whole = resume?.epoch === feed.epoch && resume.seq <= feed.seq && missing.length === feed.seq - resume.seq;
        if (whole) for (const { text } of missing) viewer.send(text);
        else viewer.send(JSON.stringify({ t: 'snapshot', site, epoch: feed.epoch, seq: feed.seq, now: Date.now(), ...feed.told }));
        feed.viewers.add(viewer);
      });
      viewer.on('close', () => feed?.viewers.delete(viewer));
    });
  });
  const ticks = setInterval(tick, tickMs);
  const beats = setInterval(() => {
    for (const viewer of sockets.clients) viewer.send(JSON.stringify({ t: 'heartbeat', now: Date.now() }));
  }, 5_000);

  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    tick,
    url: `http://127.0.0.1:${server.address().port}`,
    control,
    accounts,
    feeds,
    /** As on a site's first day: all there is came within the minute and the interval that still run. */
    makeYoung() {
      for (const feed of feeds.values()) {
        feed.site.makeYoung(Date.now());
        feed.told = told(feed.site);
        feed.epoch += 1;
        feed.deltas = [];
      }
      sockets.clients.forEach((viewer) => viewer.terminate());
    },
    /** As when a node dies: no close frame. */
    dropAll: () => sockets.clients.forEach((viewer) => viewer.terminate()),
    stop: () => {
      clearInterval(ticks);
      clearInterval(beats);
      sockets.clients.forEach((viewer) => viewer.terminate());
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await start({ port: Number(process.env.PORT ?? 8090) });
  console.log(`the page with made-up numbers: ${mock.url}`);
}
