import { expect, it } from 'vitest';
import { Pulses } from './pulse';

const counts = (values: Record<string, number>) => new Map(Object.entries(values));

it('a country whose number rose flashes, others do not', () => {
  const pulses = new Pulses();
  expect(pulses.rose(counts({ DE: 5, FR: 2 }), 0)).toEqual([]);
  expect(pulses.rose(counts({ DE: 6, FR: 1, JP: 1 }), 100)).toEqual(['DE', 'JP']);
});

it('not more often than once a second', () => {
  const pulses = new Pulses();
  const flashed = Array.from({ length: 41 }, (_, n) => pulses.rose(counts({ DE: n }), n * 50)).flat();
  expect(flashed).toHaveLength(2);
});

it('however many rise at once, only so many flash', () => {
  const pulses = new Pulses();
  pulses.rose(counts({}), 0);
  expect(pulses.rose(counts(Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`${n}`, 1]))), 0)).toHaveLength(24);
});
