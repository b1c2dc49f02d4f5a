// What a share link shows of a site (schemas/src/viewer.rs, `Filter`), to and from the query of an address.

export const FILTER_KEYS = ['page', 'referrer', 'channel', 'campaign', 'country', 'browser', 'system', 'device', 'goal'] as const;
export type FilterKey = (typeof FILTER_KEYS)[number];
export type Filter = Readonly<Partial<Record<FilterKey, string>>>;

export function filterOf(query: string): Filter {
  const values = new URLSearchParams(query);
  return Object.fromEntries(FILTER_KEYS.map((key) => [key, values.get(key)]).filter(([, value]) => value));
}

export const partsOf = (filter: Filter): [FilterKey, string][] =>
  FILTER_KEYS.flatMap((key) => {
    const value = filter[key];
    return value === undefined ? [] : [[key, value] as [FilterKey, string]];
  });
