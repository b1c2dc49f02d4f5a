import { expect, it } from 'vitest';
import { Forward, HOLD_MS } from './forward';
import { parseFrame } from './protocol';
import { SiteState } from './state';

function at(epoch: number, seq: number, clock: number): SiteState {
  const state = new SiteState('demo');
  const freshness = { clock, newest: clock, silent_partitions: 0, nodes: 1 };
  const frame = parseFrame(JSON.stringify({ t: 'snapshot', site: 'demo', epoch, seq, now: clock, freshness }));
  if (frame?.kind !== 'snapshot') throw new Error('no snapshot');
  state.apply(frame);
  return state;
}

it.each([
  ['the next of the same node', 1, 8, 1_000, true],
  ['the same again', 1, 7, 1_000, true],
  ['an older one of the same node', 1, 6, 2_000, false],
  ['another node that is as far', 2, 1, 1_000, true],
  ['another node that is behind', 2, 99, 999, false],
  ['another node that knows no time yet', 2, 1, 0, false],
])('after what is shown, %s: %s', (_, epoch, seq, clock, shown) => {
  const forward = new Forward();
  expect(forward.mayShow(at(1, 7, 1_000), 0)).toBe(true);
  expect(forward.mayShow(at(epoch, seq, clock), 10)).toBe(shown);
});

it('a node that stays behind is believed in the end, and its next numbers too', () => {
  const forward = new Forward();
  forward.mayShow(at(1, 7, 1_000), 0);
  expect(forward.mayShow(at(2, 1, 500), 100)).toBe(false);
  expect(forward.mayShow(at(2, 2, 600), 99 + HOLD_MS)).toBe(false);
  expect(forward.mayShow(at(2, 3, 700), 100 + HOLD_MS)).toBe(true);
  expect(forward.mayShow(at(2, 4, 800), 101 + HOLD_MS)).toBe(true);
});

it('a wait that ended does not shorten the next', () => {
  const forward = new Forward();
  forward.mayShow(at(1, 7, 1_000), 0);
  forward.mayShow(at(2, 1, 500), 0);
  expect(forward.mayShow(at(2, 2, 1_500), HOLD_MS - 1)).toBe(true);
  expect(forward.mayShow(at(3, 1, 500), HOLD_MS + 1)).toBe(false);
});
