import { describe, expect, it } from 'vitest';
import { parseFrame } from './protocol';
import { SiteState } from './state';
import { STALE_MS, ageOf, ledgerLine, secondsOf, viewOf } from './view';

const MINUTE = 1_799_999_940;
const CLOCK = 1_800_000_000_000;

function holding(fields: object): SiteState {
  const state = new SiteState('demo');
  const frame = parseFrame(JSON.stringify({ t: 'snapshot', site: 'demo', epoch: 1, seq: 1, now: CLOCK, ...fields }));
  if (frame?.kind !== 'snapshot') throw new Error('no snapshot');
  state.apply(frame);
  return state;
}

const freshness = (clock: number, silent = 0) => ({ clock, newest: clock, silent_partitions: silent, nodes: 1 });
const minutes = { [MINUTE]: { views: 4, events: 7, visitors: 3, sessions: 1 } };

describe('what is shown', () => {
  it('nothing is known before the first snapshot, and nothing is pretended', () => {
    const view = viewOf(new SiteState('demo'));
    expect([view.known, view.online, view.active, view.visitors, view.views, view.quiet]).toEqual([false, null, null, null, null, false]);
    expect(view.minutes.starts).toEqual([]);
  });

  it('visitors who are estimated come with their error', () => {
    const totals = { active: 40, visitors: 90_000, stored: 1, duplicate: 0, late: 0, poison: 0 };
    expect(viewOf(holding({ live: { totals } })).visitorsError).toBe(0);
    expect(viewOf(holding({ live: { totals: { ...totals, visitors_error: 250 } } })).visitorsError).toBe(250);
  });

  it('of a page is known who has it open, and not who sees it', () => {
    const view = viewOf(holding({ online: { visitors: 2, pages: { '/a': 2 } } }));
    expect([view.online, view.visible]).toEqual([2, null]);
  });

  it('an empty site is quiet, not unknown', () => {
    const view = viewOf(holding({}));
    expect([view.online, view.views, view.quiet]).toEqual([0, 0, true]);
  });

  it('the views are the sum of the minutes drawn', () => {
    const view = viewOf(holding({ freshness: freshness(CLOCK), live: { minutes: { ...minutes, [MINUTE - 60]: minutes[MINUTE] } } }));
    expect(view.views).toBe(8);
    expect(view.minutes.views.reduce((sum, n) => sum + n, 0)).toBe(8);
    expect(view.minutes.starts).toHaveLength(30);
    expect(view.minutes.starts.at(-1)).toBe(CLOCK / 1_000);
  });

  it('pages are ranked by views, and one that is only open now is listed too', () => {
    const tops = { page: { '/b': 2, '/a': 2, '/top': 9 } };
    const online = { visitors: 3, visible: 3, pages: { '/a': 1, '/new': 2 } };
    const { rows, error } = viewOf(holding({ online, live: { tops, errors: { page: 3 } } })).lists.page;
    expect(error).toBe(3);
    expect(rows.map(({ value, count, online }) => [value, count, online])).toEqual([
      ['/top', 9, 0],
      ['/a', 2, 1],
      ['/b', 2, 0],
      ['/new', 0, 2],
    ]);
    expect(rows[0]!.share).toBe(1);
  });

  it('who sees the page is not said where it is not told', () => {
    const of = (online?: object) => viewOf(holding({ online, live: {} })).visible;
    expect([of({ visitors: 3, visible: 2, pages: {} }), of({ visitors: 3, pages: {} }), of()]).toEqual([2, null, 0]);
  });

  it('the rate is the mean of ten whole seconds, without the one that runs', () => {
    const at = CLOCK + 500;
    const seconds = Object.fromEntries([0, -1, -10, -11].map((n) => [CLOCK / 1_000 + n, { views: 10, events: 10 }]));
    const shown = secondsOf(holding({ freshness: freshness(CLOCK), live: { seconds } }), at);
    expect(shown.starts.at(-1)).toBe(CLOCK / 1_000);
    expect([shown.rate, shown.total]).toEqual([2, 40]);
  });

  it('the ledger adds up', () => {
    const refused = new Map([['bad_url', 2], ['malformed', 5], ['too_large', 0]]);
    const line = ledgerLine({ received: 110, accepted: 97, refused, retried: 1, evicted: 0 });
    expect(line.reasons.map(({ reason }) => reason)).toEqual(['malformed', 'bad_url']);
    expect(line.accepted + line.refused + line.retried + line.inFlight).toBe(line.received);
  });
});

describe('how fresh it is', () => {
  it('stale since the silence began, although the other partitions go on', () => {
    const state = holding({ freshness: freshness(CLOCK), live: { minutes } });
    const tell = (seq: number, clock: number, silent: number) => {
      const frame = parseFrame(JSON.stringify({ t: 'delta', site: 'demo', epoch: 1, seq, now: clock, freshness: freshness(clock, silent) }));
      if (frame?.kind !== 'delta') throw new Error('no delta');
      expect(state.apply(frame)).toBe('applied');
    };
    tell(2, CLOCK + 1_000, 1);
    tell(3, CLOCK + 9_000, 2);
    expect(ageOf(viewOf(state), CLOCK + 9_000)).toEqual({ kind: 'stale', since: CLOCK + 1_000, silent: 2 });
    tell(4, CLOCK + 10_000, 0);
    expect(ageOf(viewOf(state), CLOCK + 10_000).kind).toBe('fresh');
  });

  it.each([
    ['right after', holding({ freshness: freshness(CLOCK), live: { minutes } }), 400, 'fresh'],
    ['at the edge', holding({ freshness: freshness(CLOCK), live: { minutes } }), STALE_MS, 'fresh'],
    ['too old', holding({ freshness: freshness(CLOCK), live: { minutes } }), STALE_MS + 1, 'stale'],
    ['a partition is silent', holding({ freshness: freshness(CLOCK, 1), live: { minutes } }), 0, 'stale'],
    ['old, but there is nothing to tell', holding({ freshness: freshness(CLOCK) }), STALE_MS + 1, 'idle'],
    ['no clock yet', holding({ freshness: freshness(0) }), 0, 'waiting'],
    ['nothing yet', new SiteState('demo'), 0, 'waiting'],
    ['a clock that is ahead', holding({ freshness: freshness(CLOCK), live: { minutes } }), -5_000, 'fresh'],
  ] as const)('%s', (_, state, later, kind) => expect(ageOf(viewOf(state), CLOCK + later).kind).toBe(kind));
});
