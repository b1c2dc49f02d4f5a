// Where the reader is: `#/live/shop`, `#/install/shop`. Behind the hash, so that the server has one page only.

export type Screen = 'live' | 'install';

export interface Route {
  screen: Screen;
  /** `null`: the first site. */
  site: string | null;
}

export function parseRoute(hash: string): Route {
  const [, screen, site] = /^#\/(live|install)(?:\/([a-z0-9_.-]{1,64}))?$/.exec(hash) ?? [];
  return { screen: screen === 'install' ? 'install' : 'live', site: site ?? null };
}

export function routeTo(screen: Screen, site: string): string {
  return `#/${screen}/${site}`;
}
