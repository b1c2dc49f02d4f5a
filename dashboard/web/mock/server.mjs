// A stand-in for a dashboard node, for work on the page alone: serves dist/, the few addresses of /api and /live with
// made-up numbers, under the same content security policy. `npm run build && npm run mock`
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';
import { Accounts } from './accounts.mjs';
import { Feeds } from './feeds.mjs';
import { MockSite } from './site.mjs';

export const POLICY =
  "default-src 'self'; script-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const DIST = new URL('../dist/', import.meta.url);
const NAMES = { demo: 'Demo shop', shop: 'Lamps & Chairs' };

async function bodyOf(request) {
  let text = '';
  for await (const part of request) text += part;
  return text === '' ? {} : JSON.parse(text);
}

/**
 * Options: port, sites ({ key: page views per second }), signedIn, tickMs, names ({ key: name }), tables and goals of the
 * sites, public (keys), shares ({ token: { site, filter } }). What `control` and `accounts` hold may be changed while it runs.
 */
export async function start(options = {}) {
  const { port = 0, sites = { demo: 3, shop: 0.4, empty: 0 }, signedIn = true, tickMs = 250, names = NAMES, tables, goals } = options;
  const control = {
    signedIn,
    silent: 0,
    /** ms by which the log's clock is behind. */
    behind: 300,
    paused: false,
    refuseSockets: false,
    refuseEvents: false,
    noHistory: false,
    mostFilters: 10,
    /** Sockets that were asked for. */
    upgrades: 0,
    /** What pages have asked for over their sockets. */
    requests: [],
  };
  const mocks = Object.entries(sites).map(([key, perSecond], n) => new MockSite(key, perSecond, Date.now(), { seed: 7 + n, ...(tables && { tables }), ...(goals && { goals }) }));
  const feeds = new Feeds(mocks, told);
  const streams = new Set();
  const accounts = new Accounts(control, { written, counted });
  for (const mock of mocks) accounts.addSite(mock, names[mock.key] ?? mock.key, options.public?.includes(mock.key));
  for (const [token, { site, filter }] of Object.entries(options.shares ?? {})) accounts.addLink(token, { site, token, ...(filter && { filter }) });

  /** A site was made or changed. */
  function written({ key, goals = [] }) {
    const site = feeds.sites.get(key) ?? feeds.add(new MockSite(key, 0, Date.now()));
    site.goals = goals;
  }

  function counted(key) {
    const { ledger, online, freshness, live } = feeds.get(key)?.told ?? {};
    if (!ledger || live.totals.stored === 0) return {};
    return { received: ledger.received, accepted: ledger.accepted, stored: live.totals.stored, connected: online.visitors, last_event_at: freshness.newest };
  }

  function told(site, filter) {
    const state = site.state(Date.now() - control.behind, filter);
    state.freshness.silent_partitions = control.silent;
    return state;
  }

  function tick() {
    if (!control.paused) feeds.step(Date.now(), tickMs);
  }

  /** Why a subscription is refused; `null`: it is not. */
  function refusal(url, key, filter) {
    if (!accounts.sites.has(key)) return { reason: 'unknown_site', detail: `no site ${key}` };
    if (!accounts.mayWatch(key, url.searchParams, filter)) return { reason: 'not_allowed', detail: 'site: you may not watch it' };
    const isNew = Object.keys(filter).length > 0 && !feeds.has(`${key} ${JSON.stringify(filter)}`);
    if (isNew && feeds.filters() >= control.mostFilters) return { reason: 'too_many_filters', detail: 'filter: too many are watched here' };
    return null;
  }

  async function answer(request, response) {
    const url = new URL(request.url, 'http://mock');
    const isFrame = url.pathname.startsWith('/embed/');
    response.setHeader('content-security-policy', isFrame ? POLICY.replace("frame-ancestors 'none'", "frame-ancestors 'self'") : POLICY);
    response.setHeader('x-content-type-options', 'nosniff');
    const json = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (url.pathname === '/logout') {
      control.signedIn = false;
      return json(200, {});
    }
    if (url.pathname === '/live/events') return stream(request, response, url);
    if (url.pathname.startsWith('/api/')) {
      const known = await accounts.answer(request.method, url, await bodyOf(request));
      if (!known) return past(url, response, json);
      for (const [name, value] of Object.entries(known.headers ?? {})) response.setHeader(name, value);
      return known.status === 204 ? response.writeHead(204).end() : json(known.status, known.body);
    }
    const path = /^\/(?:(?:s|embed)\/[^/]+)?$/.test(url.pathname) ? 'index.html' : url.pathname.slice(1);
    const file = new URL(path, DIST);
    try {
      if (!file.href.startsWith(DIST.href)) throw new Error('outside');
      const body = await readFile(fileURLToPath(file));
      response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' }).end(body);
    } catch {
      json(404, { error: 'not here' });
    }
  }

  /** What is read from the database. */
  function past({ pathname, searchParams }, response, json) {
    const key = searchParams.get('site');
    const site = feeds.sites.get(key);
    if (!site || !accounts.mayWatch(key, searchParams)) return json(403, { error: 'not_allowed', detail: 'site: you may not watch it' });
    if (control.noHistory) return json(503, { error: 'timeout', detail: 'ClickHouse cannot be asked at the moment' });
    if (pathname === '/api/history') return json(200, site.history(Date.now()));
    if (pathname === '/api/day') return json(200, site.day(Date.now()));
    if (pathname === '/api/export' && control.signedIn) {
      const dimension = searchParams.get('dimension');
      const lines = Object.entries(feeds.get(key).told.live.tops[dimension] ?? {}).map(([value, count]) => `${value},${count},${count}\r\n`);
      const headers = { 'content-type': 'text/csv; charset=utf-8', 'content-disposition': `attachment; filename="${key}-${dimension}.csv"` };
      return response.writeHead(200, headers).end(`value,views,visitors\r\n${lines.join('')}`);
    }
    return json(404, { error: 'not here' });
  }

  function stream(request, response, url) {
    const key = url.searchParams.get('site');
    const filter = JSON.parse(url.searchParams.get('filter') ?? '{}');
    const refused = refusal(url, key, filter);
    if (control.refuseEvents) return response.writeHead(503).end();
    if (refused) return response.writeHead(refused.reason === 'unknown_site' ? 404 : 403, { 'content-type': 'application/json' }).end(JSON.stringify({ error: refused.reason, detail: refused.detail }));
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const viewer = { feedOn: url.searchParams.get('feed') === 'true', send: (text, id) => response.write(`${id ? `id: ${id}\n` : ''}data: ${text}\n\n`) };
    const feed = feeds.of(key, filter);
    const [epoch, seq] = (request.headers['last-event-id'] ?? '').split('-').map(Number);
    feeds.join(feed, viewer, seq === undefined ? null : { epoch, seq });
    streams.add(response);
    response.on('close', () => {
      feed.viewers.delete(viewer);
      streams.delete(response);
    });
  }

  const server = createServer((request, response) => void answer(request, response));
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'footfall-live.v1' });
  server.on('upgrade', (request, socket, head) => {
    const url = new URL(request.url, 'http://mock');
    control.upgrades += 1;
    const allowed = accounts.seen(url.searchParams).length > 0;
    if (!allowed || control.refuseSockets) return socket.end('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n');
    sockets.handleUpgrade(request, socket, head, (connection) => {
      let feed;
      const viewer = { feedOn: false, send: (text) => connection.send(text) };
      connection.on('message', (data) => {
        const message = JSON.parse(String(data));
        control.requests.push(message);
        if (message.t === 'feed') {
          viewer.feedOn = message.on;
          return;
        }
        const { site, filter = {}, resume } = message;
        feed?.viewers.delete(viewer);
        feed = undefined;
        const refused = refusal(url, site, filter);
        if (refused) return viewer.send(JSON.stringify({ t: 'error', ...refused }));
        feed = feeds.of(site, filter);
        feeds.join(feed, viewer, resume);
      });
      connection.on('close', () => feed?.viewers.delete(viewer));
    });
  });
  const ticks = setInterval(tick, tickMs);
  const beats = setInterval(() => {
    const beat = JSON.stringify({ t: 'heartbeat', now: Date.now() });
    for (const viewer of sockets.clients) viewer.send(beat);
    for (const stream of streams) stream.write(`data: ${beat}\n\n`);
  }, 5_000);

  function dropAll() {
    sockets.clients.forEach((viewer) => viewer.terminate());
    streams.forEach((stream) => stream.destroy());
  }

  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    tick,
    url: `http://127.0.0.1:${server.address().port}`,
    control,
    accounts,
    feeds,
    sockets: sockets.clients,
    streams,
    /** As on a site's first day: all there is came within the minute and the interval that still run. */
    makeYoung() {
      for (const feed of feeds.values()) {
        feed.site.makeYoung(Date.now());
        feed.told = told(feed.site, feed.filter);
        feed.epoch += 1;
        feed.deltas = [];
      }
      dropAll();
    },
    /** As when a node dies: no close frame. */
    dropAll,
    stop: () => {
      clearInterval(ticks);
      clearInterval(beats);
      dropAll();
      return new Promise((resolve) => {
        server.close(resolve);
        // A page that is still there may have a connection without a request yet: it would be waited for.
        server.closeAllConnections();
      });
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await start({ port: Number(process.env.PORT ?? 8090) });
  console.log(`the page with made-up numbers: ${mock.url}`);
}
