import { expect, it } from 'vitest';
import { Frame, type Clockwork } from './frame';

function clockwork() {
  const frames: (() => void)[] = [];
  const timers: (() => void)[] = [];
  const state = { hidden: false };
  const work: Clockwork = {
    requestFrame: (draw) => void frames.push(draw),
    later: (draw) => void timers.push(draw),
    hidden: () => state.hidden,
  };
  return { frames, timers, state, work };
}

it('a hundred changes are one draw', () => {
  const { frames, work } = clockwork();
  const drawn: string[][] = [];
  const frame = new Frame<'state' | 'tick'>((parts) => drawn.push([...parts]), work);
  for (let n = 0; n < 100; n += 1) frame.mark('state');
  frame.mark('tick');
  expect(frames).toHaveLength(1);
  frames.shift()!();
  expect(drawn).toEqual([['state', 'tick']]);
  frame.mark('tick');
  frames.shift()!();
  expect(drawn).toHaveLength(2);
});

it('a hidden page goes by a timer, and what was due is drawn once when it is shown', () => {
  const { frames, timers, state, work } = clockwork();
  let draws = 0;
  const frame = new Frame<'state'>(() => (draws += 1), work);
  state.hidden = true;
  frame.mark('state');
  expect([frames.length, timers.length]).toEqual([0, 1]);
  state.hidden = false;
  frame.reschedule();
  frames.shift()!();
  timers.shift()!();
  expect(draws).toBe(1);
});
