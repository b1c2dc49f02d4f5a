import { expect, it } from 'vitest';
import { draftOf, errorsOf, isOrigin, isPattern, isSiteKey, keyFrom, linesOf, originMeant, SET, webhookError, written, type SiteDraft, type WrittenSite } from './site';

const SITE: WrittenSite = {
  key: 'shop',
  name: 'Shop',
  origins: ['https://shop.example'],
  secret: SET,
  goals: [{ name: 'Signed up', event: 'signup' }, { name: 'Thanks', page: '/thanks/**' }],
  alerts: [{ name: 'a' }],
  tracker: { respect_dnt: true },
  path_rules: [{ match: '/a', drop: true }],
};

it('a form that changes nothing changes nothing, and what it does not show stays', () => {
  expect(written(SITE, draftOf(SITE))).toEqual({ ...SITE, enabled: true, public: false, embed_origins: [], session_gap_minutes: 30, query_allowlist: [] });
});

it('a secret is kept, replaced or taken away', () => {
  const draft = draftOf(SITE);
  expect(written(SITE, draft).secret).toBe(SET);
  expect(written(SITE, { ...draft, secret: { fresh: ` ${'0f'.repeat(32)} ` } }).secret).toBe('0f'.repeat(32));
  expect(written(SITE, { ...draft, secret: 'remove' })).not.toHaveProperty('secret');
});

it.each<[Partial<SiteDraft>, string]>([
  [{ origins: '' }, 'origins'],
  [{ origins: 'https://a.example\nshop.example' }, 'origins'],
  [{ embedOrigins: 'https://a.example/path' }, 'embed_origins'],
  [{ sessionGap: '0' }, 'session_gap_minutes'],
  [{ sessionGap: '721' }, 'session_gap_minutes'],
  [{ sessionGap: 'half' }, 'session_gap_minutes'],
  [{ secret: { fresh: '0g'.repeat(32) } }, 'secret'],
  [{ goals: [{ name: ' ', by: 'event', value: 'a' }] }, 'goals'],
  [{ goals: [{ name: 'a', by: 'event', value: ' ' }] }, 'goals'],
  [{ goals: [{ name: 'a', by: 'page', value: 'thanks' }] }, 'goals'],
  [{ goals: [1, 2].map(() => ({ name: 'a', by: 'event', value: 'b' })) }, 'goals'],
  [{ goals: Array.from({ length: 51 }, (_, n) => ({ name: String(n), by: 'event', value: 'b' })) }, 'goals'],
])('%j is told at its field', (wrong, field) => {
  expect(errorsOf(draftOf(SITE))).toEqual({});
  expect(Object.keys(errorsOf({ ...draftOf(SITE), ...wrong }))).toEqual([field]);
});

// The cases of schemas/src/site.rs.
it.each(['https://example.com', 'https://example.com:8443', 'https://*.example.com', 'http://localhost:*', 'http://[::1]:*', '*'])('%s is an origin', (text) => expect(isOrigin(text)).toBe(true));
it.each(['example.com', 'https://', 'https://example.com/path', 'https://ex*mple.com', 'https://example.com:port', 'ftp://example.com', "https://example.com; script-src 'unsafe-inline'", 'https://bücher.example', 'https://user@example.com', 'https://::1'])('%s is none', (text) =>
  expect(isOrigin(text)).toBe(false));

it.each([
  ['shop.example', 'https://shop.example'],
  ['https://shop.example/cart?a', 'https://shop.example'],
  ['bücher.example', 'https://xn--bcher-kva.example'],
  ['not a host', null],
  ['javascript://x', null],
])('%s is meant as %s', (text, origin) => expect(originMeant(text)).toBe(origin));

it.each([['/404', true], ['/shop/**', true], ['/a*b/c', true], ['/**', true], ['404', false], ['/a?b', false], ['/a**', false], ['/a/**/b', false], ['/a*b*c', false], ['/ä', false]])(
  '%s is a pattern: %s',
  (text, is) => expect(isPattern(text)).toBe(is),
);

it('a key is suggested that can be one', () => {
  expect(keyFrom('Lamps & Chairs – Köln')).toBe('lamps-chairs-koln');
  expect(isSiteKey(keyFrom('Shop!'))).toBe(true);
  expect(keyFrom('…')).toBe('');
});

it('a list is read line by line', () => expect(linesOf(' a \n\nb, c\n')).toEqual(['a', 'b', 'c']));

it('a webhook needs an address without a login, and a secret', () => {
  const secret = '0f'.repeat(32);
  expect(webhookError({ url: 'https://hooks.example/a', secret })).toEqual({});
  expect(webhookError({ url: 'https://hooks.example/a', secret: SET })).toEqual({});
  for (const url of ['hooks.example', 'ftp://a/', 'https://me:word@hooks.example/']) expect(Object.keys(webhookError({ url, secret }))).toEqual(['url']);
  expect(Object.keys(webhookError({ url: 'https://hooks.example/a', secret: '' }))).toEqual(['secret']);
});
