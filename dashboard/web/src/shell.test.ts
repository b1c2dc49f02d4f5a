import { expect, it } from 'vitest';
import { parseShell, withShare } from './shell';

it.each([
  ['/', '', 'app', null, null],
  ['/s/shop', '', 'shared', 'shop', null],
  ['/s/shop/', '?share=a%2Bb', 'shared', 'shop', 'a+b'],
  ['/embed/shop', '?share=t', 'embed', 'shop', 't'],
  ['/s/<b>', '', 'app', null, null],
  ['/s/', '?share=t', 'app', null, null],
  ['/embed/a/b', '', 'app', null, null],
] as const)('%s%s', (path, search, kind, site, share) => expect(parseShell(path, search)).toEqual({ kind, site, share }));

it.each([
  ['/api/sites', null, '/api/sites'],
  ['/api/sites', 'a+b', '/api/sites?share=a%2Bb'],
  ['/api/day?site=x', 't', '/api/day?site=x&share=t'],
])('%s with the link %s is %s', (path, share, asked) => {
  expect(withShare(path, { kind: 'shared', site: 'x', share })).toBe(asked);
});
