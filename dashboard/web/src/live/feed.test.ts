import { expect, it } from 'vitest';
import { EventFeed, MOST_EVENTS, matches } from './feed';
import { parseFrame, type Events } from './protocol';

function told(from: number, many: number, skipped = 0): Events {
  const events = Array.from({ length: many }, (_, n) => ({ id: `${from + n}`, received_at: from + n, kind: 'view', page: `/${from + n}` }));
  const frame = parseFrame(JSON.stringify({ t: 'events', site: 'demo', events, skipped }));
  if (frame?.kind !== 'events') throw new Error('no events');
  return frame;
}
const ids = (feed: EventFeed) => feed.shown().events.map(({ id }) => Number(id));

it('the newest is first, and no more are kept than are shown', () => {
  const feed = new EventFeed();
  feed.take(told(0, 3));
  expect(ids(feed)).toEqual([2, 1, 0]);
  for (let n = 3; n < 1_000; n += 50) feed.take(told(n, 50));
  expect(ids(feed)).toHaveLength(MOST_EVENTS);
  expect(ids(feed)[0]).toBe(1_002);
});

it('an event told twice is listed once', () => {
  const feed = new EventFeed();
  feed.take(told(0, 3));
  feed.take(told(1, 3));
  expect(ids(feed)).toEqual([3, 2, 1, 0]);
});

it('while it stands still nothing moves, and what comes is counted', () => {
  const feed = new EventFeed();
  feed.take(told(0, 2));
  feed.hold();
  feed.take(told(2, 3, 4));
  feed.hold();
  expect([ids(feed), feed.shown().waiting, feed.shown().skipped]).toEqual([[1, 0], 7, 4]);
  feed.release();
  expect([ids(feed), feed.shown().waiting]).toEqual([[4, 3, 2, 1, 0], 0]);
});

it.each([
  ['', true],
  ['pricing', true],
  ['PRIC germ', true],
  ['pricing france', false],
  ['pricinggermany', false],
])('%j finds: %s', (text, found) => expect(matches(text, ['/pricing', 'DE', 'Germany'])).toBe(found));

it.each([
  ['no list', { t: 'events', site: 's', events: {} }],
  ['an unknown kind', { t: 'events', site: 's', events: [{ id: '1', received_at: 1, kind: 'x', page: '/' }] }],
  ['no time', { t: 'events', site: 's', events: [{ id: '1', kind: 'view', page: '/' }] }],
])('is no frame: %s', (_, frame) => expect(parseFrame(JSON.stringify(frame))).toBeNull());
