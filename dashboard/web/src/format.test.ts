import { expect, it } from 'vitest';
import { age, country, flag, safeLink } from './format';

it.each([
  ['https://example.com/a', 'https://example.com/a'],
  ['http://localhost:8080/demo/', 'http://localhost:8080/demo/'],
  ['javascript:alert(1)', null],
  [' JaVaScRiPt:alert(1)', null],
  ['data:text/html,hi', null],
  ['vbscript:x', null],
  ['', null],
  [null, null],
])('a link is http(s) or no link: %s', (url, link) => expect(safeLink(url)).toBe(link));

it.each([
  ['DE', '🇩🇪'],
  ['de', ''],
  ['<b>', ''],
  ['', ''],
])('the flag of %s', (code, shown) => expect(flag(code)).toBe(shown));

it('a country has its name, and what is no country stays as it is', () => {
  expect(country('DE')).toMatch(/Germany|Deutschland/);
  expect(country('<script>')).toBe('<script>');
});

it.each([
  [400, '0s'],
  [61_000, '61s'],
  [180_000, '3 min'],
  [7_200_000, '2 hr'],
])('an age of %i ms', (ms, shown) => expect(age(ms)).toBe(shown));
