// The built page in Chromium against the stand-in server: npm run build && npm run test:browser
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { agrees, phase, shows, tick, told, watching } from './stage.mjs';

describe('the page', () => {
  it('shows what the node tells, and every change of it, without a reload', async (test) => {
    const { mock, page, complaints } = await watching(test);
    await page.evaluate(() => (globalThis.sameDocument = true));
    await agrees(mock, page);
    for (let n = 0; n < 10; n += 1) tick(mock);
    await agrees(mock, page);
    assert.match(await page.title(), new RegExp(`^\\(${told(mock).online.visitors}\\)`));
    assert.equal(await page.evaluate(() => globalThis.sameDocument), true);
    assert.deepEqual(complaints, []);
  });

  it('says when the connection is lost and since when, resumes by itself, and is right again', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    mock.control.refuseSockets = true;
    mock.dropAll();
    await phase(page, 'lost');
    assert.match(await page.getByTestId('connection').innerText(), /^connection lost since .*\d.*, trying again$/);
    for (let n = 0; n < 5; n += 1) tick(mock);
    mock.control.refuseSockets = false;
    await phase(page, 'connected');
    await agrees(mock, page);
  });

  it('takes a new node’s snapshot after its own has died', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    const feed = mock.feeds.get('demo');
    Object.assign(feed, { epoch: feed.epoch + 1, seq: 1, deltas: [] });
    for (let n = 0; n < 5; n += 1) tick(mock);
    mock.dropAll();
    await agrees(mock, page);
  });

  it('notices a change that never came, and heals', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    const feed = mock.feeds.get('demo');
    const viewers = feed.viewers;
    feed.viewers = new Set();
    tick(mock);
    feed.viewers = viewers;
    tick(mock);
    await agrees(mock, page);
  });

  it('draws many changes at once', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    await page.evaluate(() => {
      globalThis.mutations = 0;
      new MutationObserver(() => (globalThis.mutations += 1)).observe(document.querySelector('[data-testid=online]'), { attributes: true, attributeFilter: ['data-count'] });
    });
    // One burst, far faster than frames come.
    const feed = mock.feeds.get('demo');
    for (let n = 1; n <= 1_000; n += 1) {
      feed.seq += 1;
      const online = { visitors: n, visible: 0, pages: {} };
      const text = JSON.stringify({ t: 'delta', site: 'demo', epoch: feed.epoch, seq: feed.seq, now: Date.now(), online, live: {} });
      for (const viewer of feed.viewers) viewer.send(text);
    }
    await shows(page, 'online', 1_000);
    const drawn = await page.evaluate(() => globalThis.mutations);
    assert.ok(drawn > 0 && drawn <= 100, `${drawn} draws of 1,000 changes`);
  });

  it('tells that nothing happens and what to do about it', async (test) => {
    const { page } = await watching(test, { hash: '#/live/empty' });
    await shows(page, 'online', 0);
    await page.getByTestId('quiet').getByRole('link', { name: 'paste the snippet' }).click();
    await page.locator('[data-testid=first-event][data-state=waiting]').waitFor();
    assert.match(await page.getByTestId('snippet').innerText(), /^<script defer src="[^"]+\/f\.js" data-site="empty"><\/script>$/);
  });

  it('notices the first event on the install page', async (test) => {
    const { mock, page } = await watching(test, { hash: '#/install/empty' });
    await page.locator('[data-testid=first-event][data-state=waiting]').waitFor();
    mock.feeds.get('empty').site.perSecond = 200;
    tick(mock);
    await page.locator('[data-testid=first-event][data-state=seen]').waitFor();
  });

  it('draws the minute and the interval that still run, also when nothing came before', async (test) => {
    const { mock, page } = await watching(test, { sites: { demo: 6 } });
    await agrees(mock, page);
    const rings = () => page.locator('.charts canvas').evaluateAll((canvases) => canvases.map((canvas) => {
      // Views and visitors of the last column, as painted: what is neither ground nor grey.
      const width = Math.round(canvas.width * 0.06);
      const { data } = canvas.getContext('2d').getImageData(canvas.width - width, 0, width, canvas.height);
      let bar = 0;
      let point = 0;
      for (let n = 0; n < data.length; n += 4) {
        const [red, green, blue, alpha] = data.subarray(n, n + 4);
        if (alpha < 128) continue;
        if (green - red > 40) bar += 1;
        if (red - blue > 60) point += 1;
      }
      return { bar, point };
    }));
    // Not where the next minute begins in between, or where this one has nothing in it yet.
    while (Date.now() % 60_000 < 5_000 || Date.now() % 60_000 > 48_000) await page.waitForTimeout(500);
    for (const feed of mock.feeds.values()) feed.site.step(Date.now(), 1_000);
    mock.makeYoung();
    await page.reload();
    await agrees(mock, page);
    await page.locator('[data-testid=history]').waitFor();
    const painted = async () => (await rings()).every(({ bar, point }) => bar > 100 && point > 10);
    for (let n = 0; n < 100 && (await rings()).length < 2; n += 1) await page.waitForTimeout(50);
    for (let n = 0; n < 100 && !(await painted()); n += 1) await page.waitForTimeout(50);
    assert.ok(await painted(), JSON.stringify(await rings()));
    assert.equal((await rings()).length, 2);
  });

  it('goes from site to site without mixing them', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    await page.getByLabel('Site').selectOption('shop');
    await agrees(mock, page, 'shop');
    assert.match(page.url(), /#\/live\/shop$/);
  });

  it('stands without the history, says so, and without counting goes stale', async (test) => {
    const { mock, page } = await watching(test);
    mock.control.noHistory = true;
    await page.reload();
    await page.getByText('The history cannot be read now (ClickHouse cannot be asked at the moment)').waitFor();
    await agrees(mock, page);
    mock.control.silent = 1;
    tick(mock);
    await page.locator('[data-testid=freshness][data-state=stale]').waitFor();
    assert.match(await page.getByTestId('freshness').innerText(), /^stale since .*: 1 partition is silent$/);
  });

  it('shows the way in when signed out, and goes in once the link was opened', async (test) => {
    const { mock, page } = await watching(test, { signedIn: false });
    await page.getByText('No password at hand?').click();
    await page.getByText('footfall login').waitFor();
    mock.control.signedIn = true;
    await page.getByRole('button', { name: /try again/ }).click();
    await agrees(mock, page);
    await page.getByRole('button', { name: /^Account/ }).click();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByText('No password at hand?').waitFor();
  });

  it('shows the way in when the session ends while it watches', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    mock.control.signedIn = false;
    mock.dropAll();
    await page.getByText('No password at hand?').waitFor();
  });

  it('explains a number to the keyboard', async (test) => {
    const { mock, page } = await watching(test);
    await agrees(mock, page);
    await page.getByRole('button', { name: 'What is “Online now”?' }).focus();
    await page.keyboard.press('Enter');
    await page.getByText('Visitors with an open connection').waitFor();
    await page.keyboard.press('Escape');
    await page.getByText('Visitors with an open connection').waitFor({ state: 'hidden' });
  });

  it('keeps the chosen colours', async (test) => {
    const { page } = await watching(test);
    await page.getByRole('button', { name: /Switch to light/ }).click();
    await page.getByRole('button', { name: /Switch to dark/ }).click();
    await page.reload();
    await page.getByRole('button', { name: /Colours: dark/ }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  });
});
