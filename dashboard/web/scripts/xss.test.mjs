// What visitors and owners can put in, put in everywhere: nothing runs, nothing breaks the layout, the policy is kept.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TABLES } from '../mock/site.mjs';
import { tick, told, watching } from './stage.mjs';

const RUN = 'globalThis.hacked=true';
const PAYLOADS = [
  `<img src=x onerror=${RUN}>`,
  `"><script>${RUN}</script>`,
  `</script><script>${RUN}</script>`,
  `</title><svg onload=${RUN}>`,
  `javascript:${RUN}`,
  ` JaVaScRiPt:${RUN}//`,
  `data:text/html,<script>${RUN}</script>`,
  `' onmouseover='${RUN}' x='`,
  `{@html x}{${RUN}}\${${RUN}}`,
  '__proto__',
  'constructor',
  '\u202Egnp.live\u202D',
  '\u0000\u0007\uFEFF\u200B',
  '=HYPERLINK("https://evil.example","x")',
  '+cmd|"/c calc"!A0',
  `@import url(//evil.example/x.css);url(${RUN})`,
  '<style>*{display:none}</style>',
  '#/live/demo?page=x&country=<b>',
  '../../../etc/passwd?a=b#c',
  `/${'long'.repeat(500)}`,
  'w'.repeat(2_000),
  'z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324'.repeat(40),
  '🏳️‍🌈'.repeat(60),
];
const WIDTHS = [1280, 360];
const EVIL_SITE = `${PAYLOADS[0]}${PAYLOADS[11]}${'N'.repeat(300)}`;

const tables = Object.fromEntries(Object.keys(TABLES).map((dimension) => [dimension, PAYLOADS]));
const goals = PAYLOADS.map((name) => ({ name, event: PAYLOADS[0] }));
const options = { sites: { demo: 20, shop: 1 }, names: { demo: EVIL_SITE, shop: PAYLOADS[0] }, tables, goals, public: ['demo'] };

function alarm(mock) {
  for (const { site } of mock.feeds.values()) {
    const alert = (text, n, more) => ({ id: text.slice(0, 40) + n, site: site.key, rule: text, kind: 'threshold', opened_at: Date.now(), value: 1, threshold: 1, text, ...more });
    site.alerts = PAYLOADS.flatMap((text, n) => [alert(text, n), alert(text, `r${n}`, { resolved_at: Date.now() })]);
  }
}

/** Nothing ran, nothing was fetched from elsewhere, nothing is wider than the screen, no element came from a text. */
async function isUnharmed(page, complaints) {
  const found = await page.evaluate(() => ({
    hacked: globalThis.hacked === true,
    polluted: Object.keys(Object.prototype).length > 0,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    elements: document.querySelectorAll('#app :is(img, script, style, iframe, object, embed, base, form, meta)').length,
    inline: [...document.querySelectorAll('*')].filter((element) => [...element.attributes].some(({ name }) => name.startsWith('on'))).length,
    links: [...document.links].map(({ href }) => href).filter((href) => !/^https?:/.test(href)),
    elsewhere: performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => !name.startsWith(location.origin) && !name.startsWith('data:image/png')),
  }));
  assert.deepEqual(found, { hacked: false, polluted: false, wide: 0, elements: 0, inline: 0, links: [], elsewhere: [] });
  assert.deepEqual(complaints, []);
}

describe('whatever is put in', () => {
  for (const width of WIDTHS) {
    it(`is text on the live screen, ${width} px wide`, async (test) => {
      const { mock, page, complaints } = await watching(test, { ...options, page: { viewport: { width, height: 900 } }, before: alarm });
      const opened = [];
      page.on('popup', (popup) => opened.push(popup.url()));
      for (let n = 0; n < 3; n += 1) tick(mock);
      await page.locator('[data-alert]').first().waitFor();
      await page.getByRole('heading', { name: 'Where from' }).scrollIntoViewIfNeeded();
      await page.getByTestId('map').waitFor();
      await page.getByTestId('feed').scrollIntoViewIfNeeded();
      for (let n = 0; n < 30; n += 1) {
        tick(mock);
        await page.waitForTimeout(20);
      }
      await page.getByTestId('event').first().waitFor();
      const more = page.getByRole('button', { name: /^Show \d+ more/ });
      while ((await more.count()) > 0) await more.first().click();
      for (const dimension of ['page', 'entry', 'exit', 'referrer', 'channel', 'campaign', 'country', 'event', 'device', 'browser', 'system']) {
        const shown = await page.locator(`[data-testid=row][data-dimension=${dimension}]`).evaluateAll((rows) => rows.map(({ dataset }) => dataset.value));
        const all = Object.keys(told(mock).live.tops[dimension]);
        assert.deepEqual(shown.sort(), all.sort(), dimension);
        assert.ok(all.length >= PAYLOADS.length - 1, dimension);
      }
      assert.equal(await page.getByTestId('goal').count(), PAYLOADS.length);
      assert.equal(await page.locator('[data-alert]').count(), 2 * PAYLOADS.length);
      await isUnharmed(page, complaints);

      // As a filter: in a chip and in the address, and from the address again.
      for (const payload of PAYLOADS.slice(0, 12)) {
        const link = page.locator('[data-testid=row][data-dimension=page]').filter({ has: page.locator(`[title=${JSON.stringify(`Show only Page: ${payload}`)}]`) }).locator('a');
        await link.click();
        await page.locator('[data-filter=page]').waitFor();
        assert.deepEqual(mock.control.requests.findLast(({ t }) => t === 'subscribe').filter, { page: payload });
        await page.locator('[data-filter=page]').click();
        await page.getByTestId('filters').waitFor({ state: 'detached' });
        mock.feeds.delete(`demo ${JSON.stringify({ page: payload })}`);
      }
      await isUnharmed(page, complaints);
      assert.deepEqual(opened, []);
    });

    for (const [name, path, hash] of [['the wall', '/', '#/wall/demo'], ['a shared view', '/s/demo', ''], ['a frame', '/embed/demo', '']]) {
      it(`is text on ${name}, ${width} px wide`, async (test) => {
        const { mock, page, complaints } = await watching(test, { ...options, path, hash, page: { viewport: { width, height: 900 } }, before: alarm });
        for (let n = 0; n < 3; n += 1) tick(mock);
        await page.getByTestId('row').first().waitFor();
        await page.waitForTimeout(300);
        await isUnharmed(page, complaints);
      });
    }
  }

  it('is no way in from an address', async (test) => {
    const { mock, page, complaints } = await watching(test, options);
    for (const payload of PAYLOADS) {
      await page.goto('about:blank');
      await page.goto(`${mock.url}/#/live/demo?country=${encodeURIComponent(payload)}&goal=${payload.replaceAll(/[%#&]/g, '')}`);
      await page.locator('[data-filter=country]').waitFor();
    }
    await page.goto(`${mock.url}/s/demo?share=${encodeURIComponent(PAYLOADS[0])}#/live/${encodeURIComponent(PAYLOADS[1])}?page=${PAYLOADS[4]}`);
    await page.getByTestId('online').waitFor();
    await isUnharmed(page, complaints);
  });
});
