// Which page this is: the app of who is signed in, or one site for whoever has its address. All are the same index.html.

export interface Shell {
  /** `shared`: `/s/KEY`; `embed`: `/embed/KEY`, inside another page. */
  kind: 'app' | 'shared' | 'embed';
  /** Key of the one site that is shown; `null` in the app. */
  site: string | null;
  /** Token of a share link; passed on with everything that is asked. */
  share: string | null;
}

export function parseShell(path: string, search: string): Shell {
  const [, kind, site] = /^\/(s|embed)\/([a-z0-9_.-]{1,64})\/?$/.exec(path) ?? [];
  if (site === undefined) return { kind: 'app', site: null, share: null };
  return { kind: kind === 'embed' ? 'embed' : 'shared', site, share: new URLSearchParams(search).get('share') };
}

export const shell = typeof location === 'undefined' ? parseShell('/', '') : parseShell(location.pathname, location.search);

/** The same path with the share link's token. */
export function withShare(path: string, { share }: Shell = shell): string {
  if (share === null) return path;
  return `${path}${path.includes('?') ? '&' : '?'}share=${encodeURIComponent(share)}`;
}
