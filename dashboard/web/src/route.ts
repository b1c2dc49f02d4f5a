// Where the reader is: `#/live/shop`, `#/install/shop`. Behind the hash, so that the server has one page only.

/** Of a site; then of everything. */
const SCREENS = ['live', 'install', 'alerts', 'share', 'settings', 'sites', 'new-site', 'users', 'keys', 'password'] as const;
export type Screen = (typeof SCREENS)[number];

export interface Route {
  screen: Screen;
  /** `null`: the site looked at last, or the first. */
  site: string | null;
}

export function parseRoute(hash: string): Route {
  const [, name, site] = /^#\/([a-z-]+)(?:\/([a-z0-9_.-]{1,64}))?(?:\?.*)?$/.exec(hash) ?? [];
  const screen = SCREENS.find((known) => known === name);
  return screen ? { screen, site: site ?? null } : { screen: 'live', site: null };
}

/** `site`: `null` for a screen of everything. */
export function routeTo(screen: Screen, site: string | null): string {
  return site === null ? `#/${screen}` : `#/${screen}/${site}`;
}

/** Of the link that makes the first owner; it holds for whoever has it, so it is not part of a route. */
export function setUpToken(hash: string): string | null {
  return /^#\/set-up\/([\w.~-]+)$/.exec(hash)?.[1] ?? null;
}
