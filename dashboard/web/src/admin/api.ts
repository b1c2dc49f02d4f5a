// What the screens of the settings ask and tell over HTTP. Failures are `Refusal`s.

import { Refusal, request } from '../account/request';
import { isEmpty, NO_FILTER, type Filter } from '../live/filter';
import { routeTo } from '../route';
import type { Facts, Refused } from './doctor';
import type { WrittenSite } from './site';

export type Role = 'viewer' | 'owner';
/** By site; `*`: every site, those to come included. */
export type Grants = Readonly<Record<string, Role>>;

export interface User {
  name: string;
  grants: Grants;
  /** ms since 1970, as every instant here. */
  created_at: number;
  /** In the settings file: they are changed there. */
  declared?: boolean;
}

export interface ApiKey {
  id: string;
  name: string;
  grants: Grants;
  created_at: number;
  created_by: string;
}

export interface ShareLink {
  id: string;
  name: string;
  site: string;
  filter?: Filter;
  expires_at?: number | null;
  created_at: number;
  created_by: string;
  url: string;
}

/** A rule that fired (schemas/src/alert.rs). */
export interface Firing {
  id: string;
  rule: string;
  kind: 'threshold' | 'change' | 'silence';
  opened_at: number;
  /** Absent while it is open. */
  resolved_at?: number | null;
  /** Of kind `silence`: minutes without any. */
  value: number;
  threshold: number;
  text: string;
}

export interface ListedSite {
  site: WrittenSite;
  /** In the settings file: it is changed there. */
  declared: boolean;
}

const at = (path: string, id: string) => `${path}/${encodeURIComponent(id)}`;
const list = async <T>(path: string, name: string): Promise<T[]> => {
  const told = ((await request('GET', path)) as Record<string, unknown> | null)?.[name];
  if (!Array.isArray(told)) throw new Refusal(200, '', `${path}: no list of ${name}`, null, null, {});
  return told as T[];
};

export async function site(key: string): Promise<ListedSite> {
  return (await request('GET', at('/api/sites', key))) as ListedSite;
}

export async function putSite(key: string, site: WrittenSite): Promise<void> {
  await request('PUT', at('/api/sites', key), site);
}

/** Changes a site as it stands now, so that what others have changed meanwhile stays. */
export async function editSite(key: string, change: (site: WrittenSite) => WrittenSite): Promise<WrittenSite> {
  const changed = change((await site(key)).site);
  await putSite(key, changed);
  // As the node tells it, secrets hidden.
  return (await site(key)).site;
}

export async function removeSite(key: string): Promise<void> {
  await request('DELETE', at('/api/sites', key));
}

export const users = (): Promise<User[]> => list<User>('/api/users', 'users');

/** A new user needs a password; of another it stays unless one is given. */
export async function putUser(name: string, user: { password?: string; grants: Grants }): Promise<void> {
  await request('PUT', at('/api/users', name), user);
}

export async function removeUser(name: string): Promise<void> {
  await request('DELETE', at('/api/users', name));
}

export const keys = (): Promise<ApiKey[]> => list<ApiKey>('/api/keys', 'keys');

/** The token is told this once. */
export async function makeKey(name: string, grants: Grants): Promise<{ id: string; token: string }> {
  return (await request('POST', '/api/keys', { name, grants })) as { id: string; token: string };
}

export async function removeKey(id: string): Promise<void> {
  await request('DELETE', at('/api/keys', id));
}

export async function links(site: string): Promise<ShareLink[]> {
  const told = await list<ShareLink>(`/api/links?site=${encodeURIComponent(site)}`, 'links');
  return told.map((link) => ({ ...link, url: opening(link.url, link.site, link.filter ?? NO_FILTER) }));
}

/** A link that shows a part of a site opens with that part: the whole it may not show. */
function opening(url: string, site: string, filter: Filter): string {
  return isEmpty(filter) ? url : `${url}${routeTo('live', site, filter)}`;
}

/** `expiresAt`: `null` until it is revoked. */
export async function makeLink(name: string, site: string, filter: Filter, expiresAt: number | null): Promise<{ id: string; url: string }> {
  const body = { name, site, filter, ...(expiresAt === null ? {} : { expires_at: expiresAt }) };
  const { id, url } = (await request('POST', '/api/links', body)) as { id: string; url: string };
  return { id, url: opening(url, site, filter) };
}

export async function removeLink(id: string): Promise<void> {
  await request('DELETE', at('/api/links', id));
}

/** Newest first. */
export const firings = (site: string): Promise<Firing[]> => list<Firing>(`/api/firings?site=${encodeURIComponent(site)}&limit=100`, 'firings');

interface ToldFacts extends Omit<Facts, 'lastEventAt' | 'refused'> {
  last_event_at: number | null;
  refused: (Omit<Refused, 'lastAt'> & { last_at: number | null })[];
}

export async function doctor(site: string): Promise<Facts> {
  const { last_event_at, refused, ...rest } = (await request('GET', `/api/doctor?site=${encodeURIComponent(site)}`)) as ToldFacts;
  return { ...rest, lastEventAt: last_event_at, refused: refused.map(({ last_at, ...one }) => ({ ...one, lastAt: last_at })) };
}
