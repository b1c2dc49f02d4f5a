// From what the page holds to what it shows. Pure, so that a number on the screen can be tested without a screen.

import { isEmpty, type Filter } from './filter';
import { DIMENSIONS, type Alert, type Dimension, type Freshness, type Ledger, type Totals } from './protocol';
import { MINUTES_SHOWN, SECONDS_SHOWN, type SiteState } from './state';

/** Older than this and the numbers are called stale. A node says so itself after 10 s, and then says more. */
export const STALE_MS = 12_000;
/** Seconds over which the rate is a mean. */
const RATE_SECONDS = 10;

export interface Row {
  value: string;
  count: number;
  /** Visitors who have it open now (pages only). */
  online: number;
  /** Of the largest count, 0 to 1. */
  share: number;
}

export interface List {
  rows: Row[];
  /** By how much a count may be wrong, and how often a value that is not in the list may have been counted. */
  error: number;
}

export interface Columns {
  /** Starts, s since 1970. */
  starts: number[];
  views: number[];
  visitors: number[];
}

/** Sessions that started in the last 30 minutes. */
export interface Sessions {
  count: number;
  /** Of the sessions, 0 to 1; `null`: there is none. */
  bounceRate: number | null;
  /** Mean, ms; `null`: there is none. */
  durationMs: number | null;
}

export interface GoalLine {
  name: string;
  completions: number;
  /** For each 100 visitors of the same half hour; `null`: there is none. */
  perHundred: number | null;
}

export interface View {
  known: boolean;
  filter: Filter;
  /** `null`: not known, of this filter or yet. */
  online: number | null;
  /** `null`: not known; of a page it is not told. */
  visible: number | null;
  active: number | null;
  /** By how much active and visitors may be off; 0 while they are exact. */
  visitorsError: number;
  visitors: number | null;
  views: number | null;
  minutes: Columns;
  sessions: Sessions | null;
  goals: GoalLine[];
  /** Open ones first. */
  alerts: Alert[];
  lists: Record<Dimension, List>;
  /** Page views of the last 30 minutes whose country is not known, or not in the list. */
  unknownCountry: number;
  ledger: LedgerLine | null;
  totals: Totals | null;
  freshness: Freshness | null;
  /** Log time (ms since 1970) at which partitions began to be silent; 0: none is. */
  silentSince: number;
  /** Received-at of the newest event, ms since 1970; 0: none. */
  newest: number;
  nodes: number;
  /** There is nothing in any window. */
  empty: boolean;
  /** Nobody is here and nobody was. */
  quiet: boolean;
}

export interface LedgerLine extends Omit<Ledger, 'refused'> {
  refused: number;
  reasons: { reason: string; count: number }[];
  inFlight: number;
}

export function viewOf(state: SiteState): View {
  const known = state.position !== null;
  const { online, totals, freshness } = state;
  const minutes = minutesOf(state);
  const views = minutes.views.reduce((sum, n) => sum + n, 0);
  // Connections are counted without asking what a visitor looks at: of a filter they are not known.
  const unknownOnline = isEmpty(state.filter) ? 0 : null;
  const lists = Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, listOf(state, dimension)]));
  return {
    known,
    filter: state.filter,
    online: known ? (online?.visitors ?? unknownOnline) : null,
    visible: online ? (online.visible ?? null) : unknownOnline,
    active: known ? (totals?.active ?? 0) : null,
    visitorsError: totals?.visitorsError ?? 0,
    visitors: known ? (totals?.visitors ?? 0) : null,
    // Of what is drawn, so that the number and the bars agree even while partitions are in different minutes.
    views: known ? views : null,
    minutes,
    sessions: totals && sessionsOf(totals),
    goals: goalsOf(state),
    alerts: [...state.alerts].sort((a, b) => Number(a.resolvedAt !== null) - Number(b.resolvedAt !== null) || b.openedAt - a.openedAt),
    unknownCountry: Math.max(0, views - sum(state.tops.get('country')?.values() ?? [])),
    lists: lists as Record<Dimension, List>,
    ledger: state.ledger && ledgerLine(state.ledger),
    totals,
    freshness,
    silentSince: state.silentSince,
    newest: freshness?.newest ?? 0,
    nodes: freshness?.nodes ?? 0,
    empty: state.minutes.size === 0 && state.tops.size === 0 && (totals?.visitors ?? 0) === 0,
    quiet: known && (online?.visitors ?? 0) === 0 && (totals?.visitors ?? 0) === 0 && state.minutes.size === 0,
  };
}

const sum = (counts: Iterable<number>): number => [...counts].reduce((sum, n) => sum + n, 0);

function sessionsOf({ sessions, bounces, durationMs }: Totals): Sessions {
  const mean = (total: number) => (sessions > 0 ? total / sessions : null);
  return { count: sessions, bounceRate: mean(bounces), durationMs: mean(durationMs) };
}

function goalsOf({ goals, totals }: SiteState): GoalLine[] {
  const visitors = totals?.visitors ?? 0;
  const lines = [...goals].map(([name, completions]) => ({ name, completions, perHundred: visitors > 0 ? (100 * completions) / visitors : null }));
  return lines.sort((a, b) => b.completions - a.completions || (a.name < b.name ? -1 : 1));
}

function listOf(state: SiteState, dimension: Dimension): List {
  const counts = state.tops.get(dimension) ?? new Map<string, number>();
  const open = dimension === 'page' ? (state.online?.pages ?? new Map<string, number>()) : new Map<string, number>();
  const rows: Row[] = [];
  for (const [value, count] of counts) rows.push({ value, count, online: open.get(value) ?? 0, share: 0 });
  for (const [value, online] of open) if (!counts.has(value)) rows.push({ value, count: 0, online, share: 0 });
  // By value where counts are equal: rows that did not change keep their places.
  rows.sort((a, b) => b.count - a.count || b.online - a.online || (a.value < b.value ? -1 : 1));
  const most = Math.max(1, rows[0]?.count ?? 0);
  for (const row of rows) row.share = row.count / most;
  return { rows, error: state.errors.get(dimension) ?? 0 };
}

function minutesOf(state: SiteState): Columns {
  // Partitions need not agree on the minute: the newest that is told ends the chart.
  const clock = Math.floor((state.freshness?.clock ?? 0) / 60_000) * 60;
  const end = Math.max(clock, ...state.minutes.keys());
  const starts = end > 0 ? Array.from({ length: MINUTES_SHOWN }, (_, n) => end - (MINUTES_SHOWN - 1 - n) * 60) : [];
  return {
    starts,
    views: starts.map((start) => state.minutes.get(start)?.views ?? 0),
    visitors: starts.map((start) => state.minutes.get(start)?.visitors ?? 0),
  };
}

export interface Seconds {
  starts: number[];
  views: number[];
  /** Page views per second over the last whole seconds. */
  rate: number;
  total: number;
}

/** The last minute by second, ending with the second in which `at` (ms since 1970) lies. */
export function secondsOf(state: SiteState, at: number): Seconds {
  const end = Math.floor(at / 1_000);
  const starts = Array.from({ length: SECONDS_SHOWN }, (_, n) => end - (SECONDS_SHOWN - 1 - n));
  const views = starts.map((start) => state.seconds.get(start)?.views ?? 0);
  const last = views.slice(-1 - RATE_SECONDS, -1);
  return {
    starts,
    views,
    rate: last.reduce((sum, n) => sum + n, 0) / RATE_SECONDS,
    total: views.reduce((sum, n) => sum + n, 0),
  };
}

export function ledgerLine(ledger: Ledger): LedgerLine {
  const reasons = [...ledger.refused]
    .map(([reason, count]) => ({ reason, count }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count || (a.reason < b.reason ? -1 : 1));
  const refused = reasons.reduce((sum, { count }) => sum + count, 0);
  const { received, accepted, retried, evicted } = ledger;
  return { received, accepted, retried, evicted, refused, reasons, inFlight: Math.max(0, received - accepted - refused - retried) };
}

export type Age =
  | { kind: 'waiting' }
  | { kind: 'idle' }
  | { kind: 'fresh'; clock: number; ageMs: number }
  /** `since`: ms since 1970; 0: unknown. */
  | { kind: 'stale'; since: number; silent: number };

/** How old the numbers are that `view` shows, when the node's clock says `now` (ms since 1970). */
export function ageOf({ freshness, silentSince, empty, totals }: View, now: number): Age {
  if (!freshness) return { kind: 'waiting' };
  const { clock, silentPartitions: silent } = freshness;
  if (silent > 0) return { kind: 'stale', since: silentSince, silent };
  // A site without anything in its windows is not told of, so its clock may stand still or be unknown.
  if (clock === 0) return empty && totals === null ? { kind: 'waiting' } : { kind: 'idle' };
  const ageMs = Math.max(0, now - clock);
  if (ageMs <= STALE_MS) return { kind: 'fresh', clock, ageMs };
  return empty ? { kind: 'idle' } : { kind: 'stale', since: clock, silent };
}
