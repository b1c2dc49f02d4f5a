// `footfall-live.v1` as schemas/src/viewer.rs tells it. What arrives is parsed once, here; the rest of the page
// works on these types. Values that visitors put in are keys of Maps, never of objects.

import { chips, isEmpty, type Filter } from './filter';

export const SUBPROTOCOL = 'footfall-live.v1';

/** In the order in which they are shown. */
export const DIMENSIONS = [
  'page',
  'entry',
  'exit',
  'referrer',
  'channel',
  'campaign',
  'country',
  'event',
  'device',
  'browser',
  'system',
] as const;
export type Dimension = (typeof DIMENSIONS)[number];

export interface Position {
  epoch: number;
  seq: number;
}

export interface Totals {
  active: number;
  visitors: number;
  /** One standard error of both; 0 while they are exact. */
  visitorsError: number;
  stored: number;
  duplicate: number;
  late: number;
  poison: number;
  /** That started in the last 30 minutes; how many of them bounced, and how long they lasted together. */
  sessions: number;
  bounces: number;
  durationMs: number;
}

export interface SecondCounts {
  views: number;
  events: number;
}

export interface MinuteCounts extends SecondCounts {
  visitors: number;
  sessions: number;
}

export interface Online {
  visitors: number;
  /** Of these, with the page visible; `null`: not known of a page's visitors. */
  visible: number | null;
  pages: Map<string, number>;
}

export interface Freshness {
  /** Log time in ms since 1970 up to which every live partition is told; 0: nothing is known yet. */
  clock: number;
  /** Received-at of the newest event counted in, ms since 1970; 0: none yet. */
  newest: number;
  silentPartitions: number;
  nodes: number;
}

export interface Ledger {
  received: number;
  accepted: number;
  refused: Map<string, number>;
  retried: number;
  evicted: number;
}

/** Windows of a site; as a change only what changed, where an entry of zeros removes. */
export interface LiveChange {
  totals: Totals | null;
  seconds: Map<number, SecondCounts>;
  minutes: Map<number, MinuteCounts>;
  tops: Map<string, Map<string, number>>;
  /** Of the lists that are not exact: by how much a count may be wrong. */
  errors: Map<string, number>;
}

export interface ViewUpdate {
  kind: 'snapshot' | 'delta';
  site: string;
  position: Position;
  /** The node's clock, ms since 1970. */
  now: number;
  online: Online | null;
  freshness: Freshness | null;
  ledger: Ledger | null;
  live: LiveChange;
  /** Goals reached in the last 30 minutes; as a change only what changed, where 0 stays in the list. */
  goals: Map<string, number>;
  /** All that are open or were resolved lately, newest first; `null`: as before. */
  alerts: Alert[] | null;
}

/** A rule that fired (schemas/src/alert.rs). */
export interface Alert {
  id: string;
  rule: string;
  /** ms since 1970. */
  openedAt: number;
  /** ms since 1970; `null`: it is open. */
  resolvedAt: number | null;
  text: string;
}

export type EventKind = 'view' | 'engagement' | 'custom';

export interface FeedEvent {
  id: string;
  /** ms since 1970. */
  receivedAt: number;
  kind: EventKind;
  /** Custom event's name. */
  name: string;
  page: string;
  referrer: string;
  channel: string;
  country: string;
  browser: string;
  device: string;
}

export interface Events {
  kind: 'events';
  site: string;
  /** Oldest first. */
  events: FeedEvent[];
  /** Left out since the frame before. */
  skipped: number;
}

export type ViewerErrorReason = 'unknown_site' | 'not_allowed' | 'malformed' | 'too_many_filters';

export type ViewerFrame =
  | ViewUpdate
  | Events
  | { kind: 'heartbeat'; now: number }
  | { kind: 'error'; reason: ViewerErrorReason; detail: string };

export function subscribe(site: string, filter: Filter, resume: Position | null): string {
  return JSON.stringify({ t: 'subscribe', site, ...(!isEmpty(filter) && { filter: plain(filter) }), ...(resume && { resume }) });
}

export const feed = (on: boolean): string => JSON.stringify({ t: 'feed', on });

/** A filter as the node reads it. */
export function plain(filter: Filter): Record<string, string> {
  return Object.fromEntries(chips(filter).map(({ key, value }) => [key, value]));
}

/** `null`: not a frame of this protocol. */
export function parseFrame(text: string): ViewerFrame | null {
  try {
    return frame(JSON.parse(text) as unknown);
  } catch {
    return null;
  }
}

class NotAFrame extends Error {}

function frame(value: unknown): ViewerFrame {
  const fields = object(value);
  switch (fields.t) {
    case 'snapshot':
    case 'delta':
      return {
        kind: fields.t,
        site: string(fields.site),
        position: { epoch: number(fields.epoch), seq: number(fields.seq) },
        now: number(fields.now),
        online: optional(fields.online, online),
        freshness: optional(fields.freshness, freshness),
        ledger: optional(fields.ledger, ledger),
        live: change(fields.live ?? {}),
        goals: counts(fields.goals),
        alerts: optional(fields.alerts, (alerts) => list(alerts, alert)),
      };
    case 'events':
      return { kind: 'events', site: string(fields.site), events: list(fields.events, event), skipped: number(fields.skipped ?? 0) };
    case 'heartbeat':
      return { kind: 'heartbeat', now: number(fields.now) };
    case 'error':
      return { kind: 'error', reason: string(fields.reason) as ViewerErrorReason, detail: string(fields.detail) };
    default:
      throw new NotAFrame();
  }
}

function online(value: unknown): Online {
  const fields = object(value);
  return { visitors: number(fields.visitors), visible: optional(fields.visible, number), pages: counts(fields.pages) };
}

function freshness(value: unknown): Freshness {
  const fields = object(value);
  return {
    clock: number(fields.clock),
    newest: number(fields.newest),
    silentPartitions: number(fields.silent_partitions),
    nodes: number(fields.nodes),
  };
}

function ledger(value: unknown): Ledger {
  const fields = object(value);
  return {
    received: number(fields.received),
    accepted: number(fields.accepted),
    refused: counts(fields.refused),
    retried: number(fields.retried),
    evicted: number(fields.evicted),
  };
}

function change(value: unknown): LiveChange {
  const fields = object(value);
  return {
    totals: optional(fields.totals, totals),
    seconds: byStart(fields.seconds, (entry) => ({ views: number(entry.views), events: number(entry.events) })),
    minutes: byStart(fields.minutes, (entry) => ({
      views: number(entry.views),
      events: number(entry.events),
      visitors: number(entry.visitors),
      sessions: number(entry.sessions),
    })),
    tops: new Map(Object.entries(object(fields.tops ?? {})).map(([dimension, values]) => [dimension, counts(values)])),
    errors: counts(fields.errors ?? {}),
  };
}

function totals(value: unknown): Totals {
  const fields = object(value);
  return {
    active: number(fields.active),
    visitors: number(fields.visitors),
    visitorsError: number(fields.visitors_error ?? 0),
    stored: number(fields.stored),
    duplicate: number(fields.duplicate),
    late: number(fields.late),
    poison: number(fields.poison),
    sessions: number(fields.sessions ?? 0),
    bounces: number(fields.bounces ?? 0),
    durationMs: number(fields.duration_ms ?? 0),
  };
}

function alert(value: unknown): Alert {
  const fields = object(value);
  return {
    id: string(fields.id),
    rule: string(fields.rule),
    openedAt: number(fields.opened_at),
    resolvedAt: optional(fields.resolved_at, number),
    text: string(fields.text),
  };
}

const KINDS: readonly unknown[] = ['view', 'engagement', 'custom'] satisfies EventKind[];

function event(value: unknown): FeedEvent {
  const fields = object(value);
  if (!KINDS.includes(fields.kind)) throw new NotAFrame();
  return {
    id: string(fields.id),
    receivedAt: number(fields.received_at),
    kind: fields.kind as EventKind,
    name: string(fields.name ?? ''),
    page: string(fields.page),
    referrer: string(fields.referrer ?? ''),
    channel: string(fields.channel ?? ''),
    country: string(fields.country ?? ''),
    browser: string(fields.browser ?? ''),
    device: string(fields.device ?? ''),
  };
}

function list<T>(value: unknown, parse: (value: unknown) => T): T[] {
  if (!Array.isArray(value)) throw new NotAFrame();
  return value.map(parse);
}

function byStart<T>(value: unknown, entry: (fields: Record<string, unknown>) => T): Map<number, T> {
  return new Map(
    Object.entries(object(value ?? {})).map(([start, fields]) => [number(Number(start)), entry(object(fields))]),
  );
}

function counts(value: unknown): Map<string, number> {
  return new Map(Object.entries(object(value ?? {})).map(([key, count]) => [key, number(count)]));
}

function optional<T>(value: unknown, parse: (value: unknown) => T): T | null {
  return value === undefined || value === null ? null : parse(value);
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new NotAFrame();
  return value as Record<string, unknown>;
}

function number(value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new NotAFrame();
  return value;
}

function string(value: unknown): string {
  if (typeof value !== 'string') throw new NotAFrame();
  return value;
}
