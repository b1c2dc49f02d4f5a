import { describe, expect, it } from 'vitest';
import { alone, drawn } from './series';

const kinds = ['bars', 'line'] as const;
const draw = (views: number[], visitors: number[], running = true) =>
  drawn([views.map((_, n) => n * 60), views, visitors], [...kinds], running);

describe('what a chart draws', () => {
  it('holds the bucket that still runs, apart from the ones that are over', () => {
    const { whole, open } = draw([3, 5, 7], [1, 2, 3]);
    expect(whole).toEqual([[3, 5, null], [1, 2, null]]);
    expect(open).toEqual([[null, null, 7], [null, null, 3]]);
  });

  it('holds it too when it is the only one with anything in it', () => {
    const { whole, open } = draw([0, 0, 410], [0, 0, 61]);
    expect(open).toEqual([[null, null, 410], [null, null, 61]]);
    expect(whole[1]).toEqual([null, null, null]);
  });

  it('holds it too when it is the only one there is', () => {
    expect(draw([410], [61])).toEqual({ starts: [0], whole: [[null], [null]], open: [[410], [61]] });
  });

  it('has no bucket that runs when all are over', () => {
    expect(draw([3, 5], [1, 2], false)).toEqual({ starts: [0, 60], whole: [[3, 5], [1, 2]], open: [] });
  });

  it.each([
    ['where it rises', [0, 0, 0, 4, 0, 2, 9], [null, null, 0, 4, 0, 2, null]],
    ['at once', [4, 0, 2, 9], [4, 0, 2, null]],
    ['never, when nobody came', [0, 0, 0, 9], [null, null, null, null]],
  ])('begins a line %s', (_, visitors, line) => {
    expect(draw(visitors, visitors).whole[1]).toEqual(line);
  });

  it.each([
    [[null, null, 5], [2]],
    [[5, null, 7, 8], [0]],
    [[1, 2, 3], []],
    [[4], [0]],
    [[null], []],
    [[], []],
  ])('marks what no line reaches: %j', (column, points) => {
    expect(alone(column)).toEqual(points);
  });
});
