// What the page asks of its own server over HTTP. Everything else comes over the socket.

export interface Site {
  key: string;
  /** Shown; the key when empty. */
  name: string;
  snippet: string;
  /** The demo site's address, where there is one. */
  demo: string | null;
  role: 'viewer' | 'owner';
  /** In the settings file: it is changed there. */
  declared: boolean;
  /** Anybody may watch. */
  public: boolean;
}

export interface Counts {
  views: number;
  visitors: number;
  sessions: number;
  events: number;
}

export interface HistoryPoint extends Counts {
  /** Start, ms since 1970. */
  at: number;
}

export interface History {
  points: HistoryPoint[];
  totals: Counts;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

export async function sites(): Promise<Site[]> {
  const list = ((await get('/api/sites')) as { sites?: unknown }).sites;
  if (!Array.isArray(list)) throw new ApiError(200, '/api/sites: no list of sites');
  return (list as Partial<Site>[]).map((site) => ({
    key: String(site.key),
    name: site.name || String(site.key),
    snippet: site.snippet ?? '',
    demo: site.demo ?? null,
    role: site.role ?? 'viewer',
    declared: site.declared ?? false,
    public: site.public ?? false,
  }));
}

export async function history(site: string): Promise<History> {
  const body = (await get(`/api/history?site=${encodeURIComponent(site)}`)) as Partial<History>;
  if (!Array.isArray(body.points) || !body.totals) throw new ApiError(200, '/api/history: no points or no totals');
  return { points: body.points, totals: body.totals };
}

export async function signOut(): Promise<void> {
  await fetch('/logout', { method: 'POST', credentials: 'same-origin' });
}

async function get(path: string): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(path, { headers: { accept: 'application/json' }, credentials: 'same-origin', cache: 'no-store' });
  } catch {
    throw new ApiError(0, 'no connection');
  }
  if (!response.ok) throw new ApiError(response.status, await detail(response));
  return (await response.json()) as unknown;
}

/** What the node says of its refusal; a proxy in between says nothing that we know. */
async function detail(response: Response): Promise<string> {
  const body: unknown = await response.json().catch(() => null);
  const told = typeof body === 'object' && body !== null && 'detail' in body ? body.detail : null;
  return typeof told === 'string' ? told : `HTTP ${response.status}`;
}
