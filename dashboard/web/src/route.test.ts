import { expect, it } from 'vitest';
import { parseRoute, routeTo, setUpToken } from './route';

it.each([
  ['', 'live', null],
  ['#/install', 'install', null],
  ['#/live/shop', 'live', 'shop'],
  ['#/share/shop?country=DE', 'share', 'shop'],
  ['#/users', 'users', null],
  ['#/install/a.b-c_1', 'install', 'a.b-c_1'],
  ['#/live/<script>', 'live', null],
  ['#/nowhere/shop', 'live', null],
  ['#/set-up/abc', 'live', null],
])('%s', (hash, screen, site) => expect(parseRoute(hash)).toMatchObject({ screen, site }));

it.each([
  ['a filter of several', { page: '/a?b=c&d', country: 'DE', goal: 'Signed up' }],
  ['what a visitor put in', { page: '/#/live/x?page=y', referrer: 'javascript:alert(1)', campaign: '\u202e"<img>' }],
  ['none', {}],
])('an address keeps %s', (_, filter) => {
  for (const screen of ['live', 'share'] as const) expect(parseRoute(routeTo(screen, 'shop', filter))).toMatchObject({ screen, site: 'shop', filter });
});

it.each([
  ['unknown keys', '#/live/shop?country=DE&color=red', { country: 'DE' }],
  ['empty values', '#/live/shop?country=&page=%2F', { page: '/' }],
  ['what is too long', `#/live/shop?page=${'x'.repeat(2_049)}`, {}],
  ['names of objects’ own properties', '#/live/shop?__proto__=1&constructor=2', {}],
  ['a filter where none is', '#/install/shop?country=DE', {}],
])('an address leaves %s aside', (_, hash, filter) => expect(parseRoute(hash).filter).toEqual(filter));

it.each([
  ['#/wall', [], 20],
  ['#/wall/shop', ['shop'], 20],
  ['#/wall/shop,blog?every=45', ['shop', 'blog'], 45],
  ['#/wall/shop,,<b>,blog', [], 20],
  ['#/wall/shop?every=1', ['shop'], 5],
  ['#/wall/shop?every=99999', ['shop'], 3_600],
  ['#/wall/shop?every=soon', ['shop'], 20],
])('%s is a wall of %j, every %i s', (hash, turns, every) => expect(parseRoute(hash)).toMatchObject({ turns, every }));

it('a route leads where it came from', () => {
  expect(parseRoute(routeTo('install', 'shop'))).toMatchObject({ screen: 'install', site: 'shop' });
  expect(parseRoute(routeTo('new-site', null))).toMatchObject({ screen: 'new-site', site: null });
});

it.each([['#/set-up/aB3_.-~x', 'aB3_.-~x'], ['#/set-up/', null], ['#/set-up/a/b', null], ['#/live/set-up', null]])('the token of %s', (hash, token) => expect(setUpToken(hash)).toBe(token));
