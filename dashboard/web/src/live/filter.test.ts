import { expect, it } from 'vitest';
import { chips, filterOf, including, isEmpty, keyOf, queryOf, textOf, within, without } from './filter';
import { subscribe } from './protocol';

it('the same filter is the same address, whichever was picked first', () => {
  const one = including(including({}, 'country', 'DE'), 'page', '/');
  const other = including(including({}, 'page', '/'), 'country', 'DE');
  expect(queryOf(one)).toBe('?page=%2F&country=DE');
  expect([queryOf(other), textOf(other)]).toEqual([queryOf(one), textOf(one)]);
});

it('another value of the same kind takes the place of the first', () => {
  expect(chips(including({ country: 'DE' }, 'country', 'FR'))).toEqual([{ key: 'country', value: 'FR' }]);
});

it('what is taken away is gone', () => {
  expect(isEmpty(without({ country: 'DE' }, 'country'))).toBe(true);
  expect(without({ country: 'DE', page: '/' }, 'country')).toEqual({ page: '/' });
});

it('sessions’ pages filter by page, and an event by nothing', () => {
  expect([keyOf('entry'), keyOf('exit'), keyOf('page'), keyOf('event')]).toEqual(['page', 'page', 'page', null]);
});

it('a subscription holds the filter as the node reads it', () => {
  expect(JSON.parse(subscribe('demo', { goal: 'Signed up', page: '/' }, null))).toEqual({ t: 'subscribe', site: 'demo', filter: { page: '/', goal: 'Signed up' } });
});

it('a link’s filter stays, whatever the address says', () => {
  expect(within({ country: 'FR', page: '/' }, { country: 'DE' })).toEqual({ page: '/', country: 'DE' });
});

it.each([
  ['a filter', { country: 'DE', page: '/' }, { page: '/', country: 'DE' }],
  ['nothing', undefined, {}],
  ['what is no filter', ['DE'], {}],
  ['fields that are not known or no text', { color: 'red', country: 4, __proto__: { page: '/' } }, {}],
])('a server’s word for %s', (_, told, filter) => expect(filterOf(told)).toEqual(filter));
