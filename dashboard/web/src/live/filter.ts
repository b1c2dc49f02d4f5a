// What is watched of a site: only events that match all that is given are counted (schemas/src/viewer.rs, `Filter`).

import type { Dimension } from './protocol';

/** In the order in which they are written into addresses, so that the same filter is always the same address. */
export const FILTER_KEYS = ['page', 'referrer', 'channel', 'campaign', 'country', 'browser', 'system', 'device', 'goal'] as const;
export type FilterKey = (typeof FILTER_KEYS)[number];
export type Filter = Readonly<Partial<Record<FilterKey, string>>>;

export const NO_FILTER: Filter = {};
/** Longer ones come from no list. */
const MAX_CHARS = 2_048;

/** What a row of a list filters by; `null`: nothing can be filtered by it. */
export function keyOf(dimension: Dimension): FilterKey | null {
  if (dimension === 'entry' || dimension === 'exit') return 'page';
  return dimension === 'event' ? null : dimension;
}

export const isEmpty = (filter: Filter): boolean => chips(filter).length === 0;

/** Two filters are the same when this text is. */
export const textOf = (filter: Filter): string => JSON.stringify(chips(filter));

export function chips(filter: Filter): { key: FilterKey; value: string }[] {
  return FILTER_KEYS.flatMap((key) => {
    const value = filter[key];
    return value === undefined ? [] : [{ key, value }];
  });
}

export const including = (filter: Filter, key: FilterKey, value: string): Filter => ordered({ ...filter, [key]: value });

export const without = (filter: Filter, key: FilterKey): Filter => ordered({ ...filter, [key]: undefined });

/** From what a server tells; what is not known there is left aside. */
export function filterOf(told: unknown): Filter {
  const fields = typeof told === 'object' && told !== null ? (told as Record<string, unknown>) : {};
  const text = (key: string) => (Object.hasOwn(fields, key) && typeof fields[key] === 'string' ? fields[key] : undefined);
  return ordered(Object.fromEntries(FILTER_KEYS.map((key) => [key, text(key)])));
}

/** Only what matches both; what `narrower` says cannot be taken from it. */
export const within = (filter: Filter, narrower: Filter): Filter => ordered({ ...filter, ...narrower });

/** From the query of an address; what is not known there is left aside. */
export function parseFilter(query: URLSearchParams): Filter {
  return ordered(Object.fromEntries(FILTER_KEYS.map((key) => [key, query.get(key) ?? undefined])));
}

/** `?country=DE&page=%2F`, or nothing. */
export function queryOf(filter: Filter): string {
  const query = new URLSearchParams(chips(filter).map(({ key, value }) => [key, value]));
  return query.size > 0 ? `?${query.toString()}` : '';
}

function ordered(filter: Partial<Record<FilterKey, string | undefined>>): Filter {
  const given = FILTER_KEYS.flatMap((key) => {
    const value = filter[key];
    return value === undefined || value === '' || value.length > MAX_CHARS ? [] : [[key, value] as const];
  });
  return Object.fromEntries(given);
}
