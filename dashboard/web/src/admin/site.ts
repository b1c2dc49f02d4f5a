// A site's settings as schemas/src/site.rs reads them, and what is wrong with what was typed. The node has the last
// word; this is so that most mistakes are told before it is asked.

import { admin } from './strings';

/** A secret that is set reads so, and stays when it is sent back. */
export const SET = '(set)';

export interface Goal {
  name: string;
  event?: string;
  page?: string;
}

export interface Webhook {
  url: string;
  secret: string;
}

/** As the node tells and takes it; what this page does not know goes back as it came. */
export interface WrittenSite {
  key?: string;
  name?: string;
  origins?: string[];
  enabled?: boolean;
  public?: boolean;
  embed_origins?: string[];
  session_gap_minutes?: number;
  query_allowlist?: string[];
  goals?: Goal[];
  secret?: string;
  alerts?: unknown[];
  alert_webhooks?: Webhook[];
  [more: string]: unknown;
}

export interface GoalDraft {
  name: string;
  by: 'page' | 'event';
  value: string;
}

/** What the form of a site holds. */
export interface SiteDraft {
  name: string;
  origins: string;
  enabled: boolean;
  isPublic: boolean;
  embedOrigins: string;
  sessionGap: string;
  queryAllowlist: string;
  goals: GoalDraft[];
  /** `keep`: as it is, set or not. */
  secret: 'keep' | 'remove' | { fresh: string };
}

/** By name of the field, as the node names it. */
export type Errors = Record<string, string>;

export const MAX_GOALS = 50;
const SESSION_GAP = 30;

export const linesOf = (text: string): string[] =>
  text
    .split(/[\n,]/)
    .map((line) => line.trim())
    .filter((line) => line !== '');

export function draftOf(site: WrittenSite): SiteDraft {
  return {
    name: site.name ?? '',
    origins: (site.origins ?? []).join('\n'),
    enabled: site.enabled !== false,
    isPublic: site.public === true,
    embedOrigins: (site.embed_origins ?? []).join('\n'),
    sessionGap: String(site.session_gap_minutes ?? SESSION_GAP),
    queryAllowlist: (site.query_allowlist ?? []).join('\n'),
    goals: (site.goals ?? []).map((goal) => ({
      name: goal.name,
      by: goal.page === undefined ? 'event' : 'page',
      value: goal.page ?? goal.event ?? '',
    })),
    secret: 'keep',
  };
}

/** `site` with what the form holds; all else stays. */
export function written(site: WrittenSite, draft: SiteDraft): WrittenSite {
  const { secret: before, ...rest } = site;
  const secret = draft.secret === 'keep' ? before : draft.secret === 'remove' ? undefined : draft.secret.fresh.trim();
  return {
    ...rest,
    name: draft.name.trim(),
    origins: linesOf(draft.origins),
    enabled: draft.enabled,
    public: draft.isPublic,
    embed_origins: linesOf(draft.embedOrigins),
    session_gap_minutes: Number(draft.sessionGap),
    query_allowlist: linesOf(draft.queryAllowlist),
    goals: draft.goals.map(({ name, by, value }) => ({ name: name.trim(), [by]: value.trim() })),
    ...(secret === undefined ? {} : { secret }),
  };
}

export function errorsOf(draft: SiteDraft): Errors {
  const errors: Errors = {};
  const tell = (field: string, error: string | null) => {
    if (error !== null) errors[field] = error;
  };
  const origins = linesOf(draft.origins);
  tell('origins', origins.length === 0 ? admin.invalid.noOrigin : firstWrong(origins));
  tell('embed_origins', firstWrong(linesOf(draft.embedOrigins)));
  const gap = Number(draft.sessionGap);
  if (!Number.isInteger(gap) || gap < 1 || gap > 720) errors.session_gap_minutes = admin.invalid.sessionGap;
  if (typeof draft.secret === 'object') tell('secret', secretError(draft.secret.fresh.trim()));
  tell('goals', goalsError(draft.goals));
  return errors;
}

function firstWrong(origins: string[]): string | null {
  const wrong = origins.find((origin) => !isOrigin(origin));
  return wrong === undefined ? null : admin.invalid.origin(wrong);
}

export const isSiteKey = (key: string): boolean => /^[a-z0-9_.-]{1,64}$/.test(key);

/** `https://example.com`, `https://*.example.com`, `http://localhost:*` or `*`. */
export function isOrigin(text: string): boolean {
  if (text === '*') return true;
  const [, host, port] = /^https?:\/\/(?:\*\.)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\*|\d{1,5}))?$/i.exec(text) ?? [];
  return host !== undefined && (port === undefined || port === '*' || Number(port) <= 65_535);
}

/** Whether the text, which is what somebody would type for an origin, only lacks its form. */
export function originMeant(text: string): string | null {
  try {
    const url = new URL(/^[a-z]+:\/\//i.test(text) ? text : `https://${text}`);
    return /^https?:$/.test(url.protocol) && url.host !== '' && isOrigin(url.origin) ? url.origin : null;
  } catch {
    return null;
  }
}

export function isPattern(text: string): boolean {
  if (!/^\/[\x21-\x7e]*$/.test(text) || /[?#]/.test(text)) return false;
  const segments = text.slice(1).split('/');
  return segments.every((segment, n) => (segment === '**' ? n === segments.length - 1 : segment.split('*').length <= 2));
}

export const secretError = (secret: string): string | null => (/^[0-9a-f]{64}$/i.test(secret) ? null : admin.invalid.secret);

export function makeSecret(): string {
  return [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export const isName = (name: string): boolean => {
  const trimmed = name.trim();
  // eslint-disable-next-line no-control-regex -- they are what is refused
  return trimmed !== '' && [...trimmed].length <= 64 && !/[\u0000-\u001f\u007f-\u009f]/.test(trimmed);
};

export function wrongPart({ name, by, value }: GoalDraft): 'name' | 'value' | null {
  if (!isName(name)) return 'name';
  const fits = by === 'event' ? value.trim() !== '' : isPattern(value.trim());
  return fits ? null : 'value';
}

function goalsError(goals: GoalDraft[]): string | null {
  if (goals.length > MAX_GOALS) return admin.invalid.tooManyGoals(MAX_GOALS);
  for (const goal of goals) {
    const wrong = wrongPart(goal);
    if (wrong === 'name') return admin.invalid.goalName;
    if (wrong === 'value') return admin.invalid[goal.by === 'event' ? 'goalEvent' : 'goalPage'](goal.name);
  }
  const names = goals.map(({ name }) => name.trim());
  const twice = names.find((name, n) => names.indexOf(name) !== n);
  return twice === undefined ? null : admin.invalid.twice(twice);
}

export function webhookError({ url, secret }: Webhook): Errors {
  const errors: Errors = {};
  if (!isWebhookUrl(url)) errors.url = admin.invalid.webhookUrl;
  const wrong = secret === SET ? null : secretError(secret);
  if (wrong !== null) errors.secret = wrong;
  return errors;
}

function isWebhookUrl(text: string): boolean {
  try {
    const url = new URL(text);
    return /^https?:$/.test(url.protocol) && url.username === '' && url.password === '' && text.length <= 2_048;
  } catch {
    return false;
  }
}

/** A key that a name suggests. */
export function keyFrom(name: string): string {
  const plain = name.normalize('NFKD').replace(/\p{M}+/gu, '').toLowerCase().replace(/[^a-z0-9]+/g, '-');
  return plain.replace(/^-+|-+$/g, '').slice(0, 64);
}
