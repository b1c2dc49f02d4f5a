// Where the reader is: `#/live/shop?country=DE`, `#/install/shop`, `#/users`, `#/wall/shop,blog?every=20`. Behind the hash,
// so that the server has one page only.

import { NO_FILTER, parseFilter, queryOf, type Filter } from './live/filter';

/** Of a site; then of everything. */
const SCREENS = ['live', 'install', 'alerts', 'share', 'settings', 'wall', 'sites', 'new-site', 'users', 'keys', 'password'] as const;
export type Screen = (typeof SCREENS)[number];

export interface Route {
  screen: Screen;
  /** `null`: the site looked at last, or the first. */
  site: string | null;
  /** What is watched, or what a new share link is to show. */
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
  const [, name, sites, query] = /^#\/([a-z-]+)(?:\/([a-z0-9_.,-]*))?(?:\?(.*))?$/.exec(hash) ?? [];
  const known = SCREENS.find((screen) => screen === name);
  const screen = known ?? 'live';
  const values = new URLSearchParams(query);
  const keys = known ? (sites ?? '').split(',').filter((key) => /^[a-z0-9_.-]{1,64}$/.test(key)) : [];
  const every = Number(values.get('every'));
  return {
    screen,
    site: keys[0] ?? null,
    filter: screen === 'live' || screen === 'share' ? parseFilter(values) : NO_FILTER,
    turns: screen === 'wall' ? keys : [],
    every: every > 0 ? Math.min(MOST_SECONDS, Math.max(FEWEST_SECONDS, Math.round(every))) : TURN_SECONDS,
  };
}

/** `site`: `null` for a screen of everything. */
export function routeTo(screen: Screen, site: string | null, filter: Filter = NO_FILTER): string {
  return site === null ? `#/${screen}` : `#/${screen}/${site}${queryOf(filter)}`;
}

/** Of the link that makes the first owner; it holds for whoever has it, so it is not part of a route. */
export function setUpToken(hash: string): string | null {
  return /^#\/set-up\/([\w.~-]+)$/.exec(hash)?.[1] ?? null;
}
