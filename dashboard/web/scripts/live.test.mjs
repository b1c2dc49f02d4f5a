// The live screen's parts in Chromium: filters, the feed, the ways frames come in, the map, the tab, the wall, shared views.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { agrees, phase, shows, tick, told, watching } from './stage.mjs';

const row = (page, dimension, value) => page.locator(`[data-testid=row][data-dimension=${dimension}][data-value="${value}"] a`);
const filtered = (mock, filter) => mock.feeds.get(`demo ${JSON.stringify(filter)}`);

/** The stand-in is made to say `online` in a change of its own. */
function tell(mock, visitors, now = Date.now()) {
  const feed = mock.feeds.get('demo');
  feed.seq += 1;
  const text = JSON.stringify({ t: 'delta', site: 'demo', epoch: feed.epoch, seq: feed.seq, now, online: { visitors, visible: 0, pages: {} }, live: {} });
  for (const viewer of feed.viewers) viewer.send(text, `${feed.epoch}-${feed.seq}`);
}

describe('a filter', () => {
  it('is picked from a list, comes from the node, stands in the address, and Back takes it away', async (test) => {
    const { mock, page, complaints } = await watching(test);
    await agrees(mock, page);
    await row(page, 'country', 'DE').click();
    await page.locator('[data-filter=country]').waitFor();
    assert.match(page.url(), /#\/live\/demo\?country=DE$/);
    assert.deepEqual(mock.control.requests.filter(({ t }) => t === 'subscribe').at(-1), { t: 'subscribe', site: 'demo', filter: { country: 'DE' } });
    await shows(page, 'visitors', filtered(mock, { country: 'DE' }).told.live.totals.visitors);
    assert.equal(await page.locator('[data-testid=row][data-dimension=country]').count(), 1);

    await row(page, 'entry', '/').focus();
    await page.keyboard.press('Enter');
    await page.locator('[data-filter=page]').waitFor();
    const { told: both } = filtered(mock, { page: '/', country: 'DE' });
    await shows(page, 'visitors', both.live.totals.visitors);
    assert.ok(both.live.totals.visitors < filtered(mock, { country: 'DE' }).told.live.totals.visitors);

    await page.goBack();
    await page.locator('[data-filter=page]').waitFor({ state: 'detached' });
    await page.locator('[data-filter=country]').click();
    await page.getByTestId('filters').waitFor({ state: 'detached' });
    await agrees(mock, page);
    assert.deepEqual(complaints, []);
  });

  it('can be shared as an address, and says which numbers it does not know', async (test) => {
    const { mock, page } = await watching(test, { hash: '#/live/demo?device=mobile&goal=Signed%20up' });
    await page.locator('[data-filter=goal]').waitFor();
    await shows(page, 'online', '');
    await shows(page, 'visitors', filtered(mock, { device: 'mobile', goal: 'Signed up' }).told.live.totals.visitors);
    await page.getByText('not known of a filter').waitFor();
    await page.getByText('What became of the events is told of the whole site only').waitFor();
    assert.equal(await page.getByText('the whole site ·').count(), 2);
  });

  it('is told in words when the node counts no more of them', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    mock.control.mostFilters = 0;
    await row(page, 'country', 'DE').click();
    await page.locator('[data-testid=refused][data-reason=too_many_filters]').waitFor();
    mock.control.mostFilters = 1;
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.locator('[data-testid=refused]').waitFor({ state: 'detached' });
    await page.locator('[data-testid=row]').first().waitFor();
    await shows(page, 'visitors', told(mock, 'demo {"country":"DE"}').live.totals.visitors);
    await row(page, 'country', 'FR').or(row(page, 'page', '/shop')).first().click();
    await page.locator('[data-testid=refused]').waitFor();
    await page.getByRole('link', { name: 'Show everything' }).last().click();
    await agrees(mock, page);
  });

  it('is picked from the map', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    await page.getByTestId('map').scrollIntoViewIfNeeded();
    await page.locator('[data-testid=map] path[data-code=BR]').click();
    await page.locator('[data-filter=country]').waitFor();
    await shows(page, 'visitors', filtered(mock, { country: 'BR' }).told.live.totals.visitors);
  });
});

describe('the map', () => {
  const flashes = (page) => page.evaluate(() => globalThis.flashed);
  async function counting(test, reducedMotion) {
    const stage = await watching(test, { page: { reducedMotion } });
    await stage.page.getByTestId('map').scrollIntoViewIfNeeded();
    await stage.page.evaluate(() => {
      globalThis.flashed = 0;
      new MutationObserver((changes) => {
        globalThis.flashed += changes.flatMap(({ addedNodes }) => [...addedNodes]).filter(({ nodeName }) => nodeName === 'circle').length;
      }).observe(document.querySelector('[data-testid=map]'), { childList: true });
    });
    for (let n = 0; n < 40; n += 1) {
      tick(stage.mock);
      await stage.page.waitForTimeout(20);
    }
    await agrees(stage.mock, stage.page);
    return stage;
  }

  it('flashes where a number rises, and clears up after itself', async (test) => {
    const { page } = await counting(test, 'no-preference');
    assert.ok((await flashes(page)) > 0);
    await page.waitForFunction(() => document.querySelectorAll('[data-testid=map] circle').length === 0);
  });

  it('stands still for who wants no motion', async (test) => {
    const { page } = await counting(test, 'reduce');
    assert.equal(await flashes(page), 0);
  });

  it('is a list where the map cannot be loaded, and the unknown are said', async (test) => {
    const stage = await watching(test);
    await stage.page.route('**/WorldMap-*.js', (route) => route.abort());
    await stage.page.reload();
    await stage.page.getByText('The map cannot be loaded').scrollIntoViewIfNeeded();
    await agrees(stage.mock, stage.page);
    const { minutes, tops } = told(stage.mock).live;
    const views = Object.values(minutes).reduce((sum, { views }) => sum + views, 0);
    const known = Object.values(tops.country).reduce((sum, count) => sum + count, 0);
    await shows(stage.page, 'unknown-country', views - known);
  });
});

describe('the feed', () => {
  const ids = (page) => page.getByTestId('event').evaluateAll((all) => all.map(({ dataset }) => dataset.event));

  async function running(test) {
    const stage = await watching(test, { sites: { demo: 60 } });
    await agrees(stage.mock, stage.page);
    await stage.page.getByTestId('feed').scrollIntoViewIfNeeded();
    await stage.page.waitForTimeout(100);
    const more = async (times = 1) => {
      for (let n = 0; n < times; n += 1) tick(stage.mock);
      await stage.page.waitForTimeout(150);
    };
    for (let n = 0; n < 50 && (await ids(stage.page)).length === 0; n += 1) await more();
    return { ...stage, more };
  }

  it('is asked for while it is on the screen only', async (test) => {
    const { mock, page } = await running(test);
    const asked = () => mock.control.requests.filter(({ t }) => t === 'feed').map(({ on }) => on);
    assert.deepEqual(asked(), [true]);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    for (let n = 0; n < 50 && asked().length < 2; n += 1) await page.waitForTimeout(50);
    assert.deepEqual(asked(), [true, false]);
  });

  it('stands still at a button, while it is pointed at and while it has the focus', async (test) => {
    const { page, more } = await running(test);
    const still = async (how) => {
      await page.waitForTimeout(100);
      const before = await ids(page);
      await more(3);
      assert.deepEqual(await ids(page), before, how);
      assert.match(await page.getByTestId('feed-waiting').innerText(), /^\d+ more came since$/);
    };
    const runs = async () => {
      await page.getByTestId('feed-waiting').waitFor({ state: 'detached' });
      const before = await ids(page);
      await more(3);
      assert.notDeepEqual(await ids(page), before);
    };
    await page.getByRole('button', { name: 'Stop the list' }).click();
    await still('stopped');
    await page.getByRole('button', { name: 'Let the list run' }).click();
    await runs();
    await page.getByTestId('feed').hover();
    await still('pointed at');
    await page.mouse.move(5, 5);
    await runs();
    await page.getByTestId('feed').focus();
    await still('focused');
  });

  it('finds text, keeps 200 and says how many more there were', async (test) => {
    const { mock, page, more } = await running(test);
    mock.feeds.get('demo').site.perSecond = 600;
    await more(12);
    assert.equal((await ids(page)).length, 200);
    assert.ok(Number(await page.getByTestId('feed-skipped').getAttribute('data-count')) > 0);
    await page.getByLabel('Find in these events').fill('germany /shop');
    await page.waitForTimeout(100);
    const found = await page.getByTestId('event').allInnerTexts();
    assert.ok(found.length > 0 && found.length < 200);
    for (const text of found) assert.match(text, /\/shop/);
  });
});

describe('the connection', () => {
  it('goes on without WebSocket, resumes there too, and takes a WebSocket when one gets through', async (test) => {
    const { mock, page } = await watching(test, { before: (mock) => (mock.control.refuseSockets = true) });
    await page.locator('[data-testid=connection][data-via=events]').waitFor();
    assert.equal(mock.control.upgrades, 3);
    await agrees(mock, page);
    for (let n = 0; n < 5; n += 1) tick(mock);
    await agrees(mock, page);
    await page.getByTestId('feed').scrollIntoViewIfNeeded();
    for (let n = 0; n < 50 && (await page.getByTestId('event').count()) === 0; n += 1) {
      tick(mock);
      await page.waitForTimeout(50);
    }
    assert.ok((await page.getByTestId('event').count()) > 0, 'events come over the stream, too');
    mock.dropAll();
    tick(mock);
    await agrees(mock, page);
    mock.control.refuseSockets = false;
    await page.locator('[data-testid=connection][data-via=socket]').waitFor({ timeout: 60_000 });
    for (let n = 0; n < 5; n += 1) tick(mock);
    await agrees(mock, page);
    for (let n = 0; n < 50 && mock.streams.size > 0; n += 1) await page.waitForTimeout(50);
    assert.equal(mock.streams.size, 0, 'the stream was let go');
  });

  it('never goes back: a node that is behind is not drawn until it has caught up', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    tell(mock, 4_711);
    await shows(page, 'online', 4_711);
    await page.evaluate(() => {
      globalThis.seen = new Set();
      const online = document.querySelector('[data-testid=online]');
      new MutationObserver(() => globalThis.seen.add(online.dataset.count)).observe(online, { attributes: true, attributeFilter: ['data-count'] });
    });
    // Another node, whose log is 5 s behind.
    const feed = mock.feeds.get('demo');
    const clock = feed.told.freshness.clock;
    const whole = { ...feed.told, online: { visitors: 1_111, visible: 0, pages: {} }, freshness: { ...feed.told.freshness, clock: clock - 5_000 } };
    Object.assign(feed, { epoch: feed.epoch + 1, seq: 1, told: whole, deltas: [] });
    mock.dropAll();
    await page.getByTestId('held').waitFor();
    await phase(page, 'connected');
    await shows(page, 'online', 4_711);
    feed.told = { ...whole, online: { visitors: 2_222, visible: 0, pages: {} }, freshness: { ...whole.freshness, clock: clock + 100 } };
    feed.seq += 1;
    const text = JSON.stringify({ t: 'delta', site: 'demo', epoch: feed.epoch, seq: feed.seq, now: Date.now(), online: feed.told.online, freshness: feed.told.freshness, live: {} });
    for (const viewer of feed.viewers) viewer.send(text);
    await shows(page, 'online', 2_222);
    assert.deepEqual(await page.evaluate(() => [...globalThis.seen]), ['2222']);
  });

  it('says how long an event takes to the screen', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    for (let n = 0; n < 12; n += 1) {
      const feed = mock.feeds.get('demo');
      feed.seq += 1;
      const now = Date.now();
      const text = JSON.stringify({ t: 'delta', site: 'demo', epoch: feed.epoch, seq: feed.seq, now, freshness: { clock: now, newest: now - 400, silent_partitions: 0, nodes: 2 }, live: {} });
      for (const viewer of feed.viewers) viewer.send(text);
      await page.waitForTimeout(60);
    }
    await page.getByTestId('latency').waitFor();
    const p50 = Number(await page.getByTestId('latency').getAttribute('data-p50'));
    assert.ok(p50 >= 395 && p50 < 700, `${p50} ms`);
  });
});

describe('a list as a file', () => {
  it('comes from the database, for who is signed in', async (test) => {
    const { mock, page, complaints } = await watching(test);
    await agrees(mock, page);
    const saved = page.waitForEvent('download');
    await page.getByRole('link', { name: /^CSV: Entry pages/ }).click();
    const file = await saved;
    assert.equal(file.suggestedFilename(), 'demo-entry.csv');
    assert.match(file.url(), /\/api\/export\?site=demo&dimension=entry&hours=24$/);
    assert.deepEqual(complaints, []);
  });
});

describe('what else the node tells', () => {
  it('goals with their rate, sessions, and alerts that open and are resolved', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    const { totals } = told(mock).live;
    await shows(page, 'sessions', totals.sessions);
    await shows(page, 'bounce', totals.bounces / totals.sessions);
    await shows(page, 'duration', totals.duration_ms / totals.sessions);
    const { goals } = told(mock);
    for (const [name, count] of Object.entries(goals)) await page.locator(`[data-goal="${name}"][data-count="${count}"]`).waitFor();
    const rate = ((100 * goals['Signed up']) / totals.visitors).toFixed(0);
    assert.match(await page.locator('[data-goal="Signed up"]').innerText(), new RegExp(`\\b${rate} per 100 visitors`));

    const { site } = mock.feeds.get('demo');
    const alert = { id: '1', site: 'demo', rule: 'rush', kind: 'threshold', opened_at: Date.now(), value: 9, threshold: 5, text: 'Demo shop: rush' };
    site.alerts = [alert];
    tick(mock);
    await page.locator('[data-alert="1"][data-state=open]').waitFor();
    site.alerts = [{ ...alert, resolved_at: Date.now() }];
    tick(mock);
    await page.locator('[data-alert="1"][data-state=resolved]').waitFor();
    site.alerts = [];
    tick(mock);
    await page.getByTestId('alerts').waitFor({ state: 'detached' });
  });

  it('the day, with yesterday and a week ago', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    await page.getByTestId('day').scrollIntoViewIfNeeded();
    await page.getByTestId('day').locator('summary').click();
    await page.getByTestId('day').locator('tbody tr').first().waitFor();
    const { series } = mock.feeds.get('demo').site.day(Date.now());
    const cells = await page.getByTestId('day').locator('tbody tr').evaluateAll((rows) => rows.map((row) => [...row.querySelectorAll('td')].map(({ textContent }) => textContent)));
    assert.equal(cells.length, 288);
    const shown = (value) => (value === null ? '–' : String(value));
    cells.forEach(([week, yesterday, today], n) => {
      assert.deepEqual([today, yesterday, week], series.map(({ points }) => shown(points[n])), `interval ${n}`);
    });
  });
});

describe('the tab', () => {
  it('shows the count in its picture, drawn anew only when it changes and once a second at most', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    const icon = () => page.locator('link[rel=icon]').getAttribute('href');
    await page.waitForFunction(() => document.querySelector('link[rel=icon]').href.startsWith('data:image/png'));
    await page.waitForTimeout(1_100);
    await page.evaluate(() => {
      globalThis.icons = [];
      const link = document.querySelector('link[rel=icon]');
      new MutationObserver(() => globalThis.icons.push(performance.now())).observe(link, { attributes: true, attributeFilter: ['href'] });
    });
    const before = await icon();
    for (let n = 0; n < 30; n += 1) {
      tell(mock, 100 + n);
      await page.waitForTimeout(40);
    }
    await shows(page, 'online', 129);
    await page.waitForTimeout(1_100);
    const drawn = await page.evaluate(() => globalThis.icons);
    assert.ok(drawn.length >= 2 && drawn.length <= 4, `${drawn.length} pictures`);
    for (let n = 1; n < drawn.length; n += 1) assert.ok(drawn[n] - drawn[n - 1] > 900);
    assert.notEqual(await icon(), before);
    tell(mock, 129);
    await page.waitForTimeout(1_100);
    assert.equal((await page.evaluate(() => globalThis.icons)).length, drawn.length);
  });
});

describe('the wall', () => {
  it('shows one site after the other, and leads back', async (test) => {
    const { mock, page } = await watching(test, { hash: '#/wall/demo,shop?every=5' });
    await page.locator('[data-testid=wall][data-site=demo]').waitFor();
    await shows(page, 'online', told(mock).online.visitors);
    assert.equal(await page.locator('nav').count(), 0);
    await page.locator('[data-testid=wall][data-site=shop]').waitFor();
    await shows(page, 'online', told(mock, 'shop').online.visitors);
    await page.keyboard.press('ArrowLeft');
    await page.locator('[data-testid=wall][data-site=demo]').waitFor();
    await page.keyboard.press('f');
    await page.waitForFunction(() => document.fullscreenElement !== null);
    await page.keyboard.press('f');
    await page.waitForFunction(() => document.fullscreenElement === null);
    await page.keyboard.press('Escape');
    await agrees(mock, page);
  });
});

describe('for who has no account', () => {
  it('a public site is one live screen, without what leads elsewhere', async (test) => {
    const { mock, page } = await watching(test, { path: '/s/shop', signedIn: false, public: ['shop'] });
    await agrees(mock, page, 'shop');
    await page.getByText('Lamps & Chairs').first().waitFor();
    assert.equal(await page.getByRole('button', { name: 'Sign out' }).count(), 0);
    assert.equal(await page.locator('a[href^="#/install"], a[href^="#/wall"], a[href^="/api/"]').count(), 0);
    await row(page, 'country', 'DE').click();
    await page.locator('[data-filter=country]').waitFor();
    assert.match(page.url(), /\/s\/shop#\/live\/shop\?country=DE$/);
  });

  it('a share link’s token goes along with everything that is asked', async (test) => {
    const asked = [];
    const { mock, page } = await watching(test, { signedIn: false, shares: { 'a+b/c': { site: 'demo' } } });
    page.on('request', (request) => asked.push(request.url()));
    page.on('websocket', (socket) => asked.push(socket.url()));
    await page.goto(`${mock.url}/s/demo?share=a%2Bb%2Fc`);
    await agrees(mock, page);
    await page.locator('[data-testid=history]').waitFor();
    await page.getByTestId('day').waitFor();
    const own = asked.map((url) => new URL(url)).filter(({ pathname }) => /^\/(api|live)/.test(pathname));
    assert.deepEqual([...new Set(own.map(({ pathname }) => pathname))].sort(), ['/api/day', '/api/history', '/api/sites', '/live']);
    for (const { searchParams, pathname } of own) assert.equal(searchParams.get('share'), 'a+b/c', pathname);
  });

  it('a link that is narrowed shows what it is for, and nothing wider can be picked', async (test) => {
    const { mock, page } = await watching(test, { path: '/s/demo?share=t', signedIn: false, shares: { t: { site: 'demo', filter: { device: 'mobile' } } } });
    await page.locator('[data-filter=device]').waitFor();
    await shows(page, 'visitors', filtered(mock, { device: 'mobile' }).told.live.totals.visitors);
    assert.equal(await page.locator('a[data-filter=device]').count(), 0);
    await row(page, 'country', 'DE').click();
    await page.locator('a[data-filter=country]').waitFor();
    await shows(page, 'visitors', filtered(mock, { country: 'DE', device: 'mobile' }).told.live.totals.visitors);
    await page.goto(`${mock.url}/s/demo?share=t#/live/demo?device=desktop`);
    await page.locator('[data-filter=country]').waitFor({ state: 'detached' });
    await shows(page, 'visitors', filtered(mock, { device: 'mobile' }).told.live.totals.visitors);
  });

  it('what may not be watched says so', async (test) => {
    const { page } = await watching(test, { path: '/s/demo', signedIn: false, public: ['shop'] });
    await page.locator('[data-testid=refused][data-reason=not_allowed]').waitFor();
    assert.equal(await page.getByTestId('row').count(), 0);
  });

  it('a frame in another page is small, and leads to the whole view', async (test) => {
    const { mock, page } = await watching(test, { path: '/embed/demo', signedIn: false, public: ['demo'], page: { viewport: { width: 400, height: 600 } } });
    await shows(page, 'online', told(mock).online.visitors);
    assert.equal(await page.getByRole('link', { name: 'Open the whole view' }).getAttribute('href'), '/s/demo');
    assert.equal(await page.locator('[data-testid=feed], [data-testid=ledger]').count(), 0);
  });
});
