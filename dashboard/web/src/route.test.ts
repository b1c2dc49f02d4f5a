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
])('%s', (hash, screen, site) => expect(parseRoute(hash)).toEqual({ screen, site }));

it('a route leads where it came from', () => {
  expect(parseRoute(routeTo('install', 'shop'))).toEqual({ screen: 'install', site: 'shop' });
  expect(parseRoute(routeTo('new-site', null))).toEqual({ screen: 'new-site', site: null });
});

it.each([['#/set-up/aB3_.-~x', 'aB3_.-~x'], ['#/set-up/', null], ['#/set-up/a/b', null], ['#/live/set-up', null]])('the token of %s', (hash, token) => expect(setUpToken(hash)).toBe(token));
