// Where the reader is: `#/live/shop?country=DE`, `#/install/shop`, `#/wall/shop,blog?every=20`. Behind the hash, so that
// the server has one page only.

import { NO_FILTER, parseFilter, queryOf, type Filter } from './live/filter';

export type Screen = 'live' | 'install' | 'wall';

export interface Route {
  screen: Screen;
  /** `null`: the first site. */
  site: string | null;
  filter: Filter;
  /** On the wall: the sites that take turns; none named: all. */
  turns: string[];
  /** On the wall: seconds until the next site. */
  every: number;
}

export const TURN_SECONDS = 20;
const FEWEST_SECONDS = 5;
const MOST_SECONDS = 3_600;

export function parseRoute(hash: string): Route {
  const [, screen, sites, query] = /^#\/(live|install|wall)(?:\/([a-z0-9_.,-]*))?(?:\?(.*))?$/.exec(hash) ?? [];
  const values = new URLSearchParams(query);
  const turns = (sites ?? '').split(',').filter((key) => /^[a-z0-9_.-]{1,64}$/.test(key));
  const every = Number(values.get('every'));
  return {
    screen: (screen ?? 'live') as Screen,
    site: turns[0] ?? null,
    filter: screen === 'live' ? parseFilter(values) : NO_FILTER,
    turns: screen === 'wall' ? turns : [],
    every: every > 0 ? Math.min(MOST_SECONDS, Math.max(FEWEST_SECONDS, Math.round(every))) : TURN_SECONDS,
  };
}

export function routeTo(screen: Screen, site: string, filter: Filter = NO_FILTER): string {
  return `#/${screen}/${site}${queryOf(filter)}`;
}
