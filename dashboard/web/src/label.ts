// How a value of a list is called for a person.

import * as format from './format';
import type { FilterKey } from './live/filter';
import type { Dimension } from './live/protocol';
import { strings } from './strings';

export function label(of: Dimension | FilterKey, value: string): string {
  if (of === 'country') return format.country(value);
  if (of === 'device') return strings.values.device[value] ?? value;
  if (of === 'channel') return strings.values.channel[value] ?? value;
  return value;
}

export const keyName = (key: FilterKey): string => strings.filter.keys[key];
