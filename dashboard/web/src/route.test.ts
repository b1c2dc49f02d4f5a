import { expect, it } from 'vitest';
import { parseRoute, routeTo } from './route';

it.each([
  ['', 'live', null],
  ['#/install', 'install', null],
  ['#/live/shop', 'live', 'shop'],
  ['#/install/a.b-c_1', 'install', 'a.b-c_1'],
  ['#/live/<script>', 'live', null],
  ['#/nowhere/shop', 'live', null],
])('%s', (hash, screen, site) => expect(parseRoute(hash)).toEqual({ screen, site }));

it('a route leads where it came from', () => {
  expect(parseRoute(routeTo('install', 'shop'))).toEqual({ screen: 'install', site: 'shop' });
});
