import { expect, it } from 'vitest';
import { short } from './tab';

it.each([
  [0, '0'],
  [999, '999'],
  [1_000, '1k'],
  [1_990, '1.9k'],
  [12_900, '12k'],
  [999_999, '999k'],
  [1_250_000, '1.2M'],
])('%i in a tab is %s', (count, shown) => expect(short(count)).toBe(shown));
