import { expect, it } from 'vitest';
import { HEIGHT, WIDTH, shapes } from './world';

const all = shapes();

it.each(['DE', 'US', 'BR', 'IN', 'JP', 'ZA', 'AU', 'XK', 'TW', 'GL'])('%s is on the map, and its middle too', (code) => {
  const shape = all.find((shape) => shape.code === code)!;
  expect(shape.path).toMatch(/^M[\d.,MLZ-]+$/);
  expect(shape.x > 0 && shape.x < WIDTH && shape.y > 0 && shape.y < HEIGHT).toBe(true);
});

it('no shape has another’s code, and only lands without one have none', () => {
  const codes = all.map(({ code }) => code).filter(Boolean);
  expect(new Set(codes).size).toBe(codes.length);
  expect(all.length - codes.length).toBe(2);
});
