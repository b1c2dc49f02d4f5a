// What the page asks of its own server over HTTP. Everything else comes over the socket.

import { filterOf, type Filter } from './live/filter';
import type { Dimension } from './live/protocol';
import { withShare } from './shell';

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
  /** Names of its goals. */
  goals: string[];
  /** Nothing wider may be watched: what a share link is for. */
  filter: Filter;
}

/** Active visitors of a day, interval by interval. */
export interface DaySeries {
  label: 'today' | 'yesterday' | 'last_week';
  /** Start of the first interval, ms since 1970. */
  from: number;
  /** `null`: nothing is known of it, or it is still to come. */
  points: (number | null)[];
}

export interface Day {
  stepMs: number;
  series: DaySeries[];
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
  return (list as Partial<Omit<Site, 'goals' | 'filter'> & { goals: { name?: unknown }[]; filter: unknown }>[]).map((site) => ({
    key: String(site.key),
    name: site.name || String(site.key),
    snippet: site.snippet ?? '',
    demo: site.demo ?? null,
    role: site.role ?? 'viewer',
    declared: site.declared ?? false,
    public: site.public ?? false,
    filter: filterOf(site.filter),
    goals: (site.goals ?? []).map(({ name }) => String(name)),
  }));
}

export async function history(site: string): Promise<History> {
  const body = (await get(`/api/history?site=${encodeURIComponent(site)}`)) as Partial<History>;
  if (!Array.isArray(body.points) || !body.totals) throw new ApiError(200, '/api/history: no points or no totals');
  return { points: body.points, totals: body.totals };
}

export async function day(site: string): Promise<Day> {
  const body = (await get(`/api/day?site=${encodeURIComponent(site)}`)) as { step_ms?: unknown; series?: unknown };
  if (typeof body.step_ms !== 'number' || !Array.isArray(body.series)) throw new ApiError(200, '/api/day: no step or no series');
  return { stepMs: body.step_ms, series: body.series as DaySeries[] };
}

/** Where the values of a list are a CSV file: of the last 24 hours, for whoever is signed in. */
export function exportOf(site: string, dimension: Dimension): string {
  return `/api/export?site=${encodeURIComponent(site)}&dimension=${dimension}&hours=24`;
}

/** How long the server takes to answer, ms; `null`: it does not. */
export async function roundTripMs(): Promise<number | null> {
  const sent = performance.now();
  try {
    await fetch('/favicon.svg', { cache: 'no-store' });
    return performance.now() - sent;
  } catch {
    return null;
  }
}

export async function signOut(): Promise<void> {
  await fetch('/logout', { method: 'POST', credentials: 'same-origin' });
}

async function get(path: string): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(withShare(path), { headers: { accept: 'application/json' }, credentials: 'same-origin', cache: 'no-store' });
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
