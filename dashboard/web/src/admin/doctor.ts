// Why no event arrives: from what the node counted of a site to what somebody can do about it. Pure.

import { isOrigin } from './site';
import { admin } from './strings';

const words = admin.doctor;

export interface Refused {
  /** A RejectReason or RetryReason of schemas/src/refusal.rs. */
  reason: string;
  count: number;
  /** ms since 1970; `null`: none was kept. */
  lastAt: number | null;
  /** Of the last: names the field and the fix. */
  detail: string;
}

/** What `/api/doctor` tells of the last hour. */
export interface Facts {
  received: number;
  accepted: number;
  stored: number;
  /** Visitors connected now. */
  connected: number;
  refused: Refused[];
  /** Of all events; ms since 1970. */
  lastEventAt: number | null;
  origins: string[];
}

export interface Finding {
  id: string;
  title: string;
  /** What to do. */
  fix: string;
  count: number;
  lastAt: number | null;
  /** What the node said of the last one. */
  detail: string;
  /** An origin that could be allowed. */
  origin: string | null;
}

/** `waiting`: nothing yet. `arriving`: events are counted. `quiet`: they were, but none in the last hour. */
export type State = 'waiting' | 'arriving' | 'quiet';

export interface Diagnosis {
  state: State;
  findings: Finding[];
  /** Nothing at all reaches the node: what to look at on the page. */
  nothingComes: boolean;
}

const HOUR_MS = 3_600_000;

/** `seen`: the live view has counted an event. `retried`: batches told to come again. `now`: ms since 1970. */
export function diagnose(facts: Facts | null, seen: boolean, now: number, retried = 0): Diagnosis {
  if (!facts) return { state: seen ? 'arriving' : 'waiting', findings: [], nothingComes: false };
  const recent = facts.stored > 0 || (facts.lastEventAt !== null && now - facts.lastEventAt < HOUR_MS);
  const state = seen || recent ? 'arriving' : facts.lastEventAt === null ? 'waiting' : 'quiet';
  const findings = facts.refused.filter(({ count }) => count > 0).map(findingOf).sort((a, b) => b.count - a.count);
  const isQuiet = state !== 'arriving';
  if (isQuiet && retried > 0) findings.push(plain('retried', retried));
  if (isQuiet && facts.accepted > 0) findings.push(plain('behind', facts.accepted));
  else if (isQuiet && facts.connected > 0 && facts.received === 0) findings.push(plain('silent', facts.connected));
  return { state, findings, nothingComes: isQuiet && findings.length === 0 && facts.received === 0 };
}

function findingOf({ reason, count, lastAt, detail }: Refused): Finding {
  const told = adviceOn(reason);
  return { id: reason, title: told.title, fix: told.fix, count, lastAt, detail, origin: reason === 'origin_denied' ? deniedOrigin(detail) : null };
}

function plain(id: 'behind' | 'silent' | 'retried', count: number): Finding {
  return { id, ...words.plain[id], count, lastAt: null, detail: '', origin: null };
}

export function adviceOn(reason: string): { title: string; fix: string } {
  return (words.reasons as Record<string, { title: string; fix: string }>)[reason] ?? { title: reason, fix: words.unknownReason };
}

/** The origin that ingest/src/fallback.rs names; `null`: none, or one that no site could allow. */
export function deniedOrigin(detail: string): string | null {
  const [, origin] = /^origin: (\S+) is not among/.exec(detail) ?? [];
  return origin !== undefined && origin !== '*' && isOrigin(origin) ? origin : null;
}

/** Lines of a Content-Security-Policy that let the snippet's script load and send; `null`: no address in it. */
export function policyFor(snippet: string): string[] | null {
  const [, address] = /\ssrc="([^"]+)"/.exec(snippet) ?? [];
  try {
    const { origin } = new URL(address ?? '');
    return [`script-src ${origin}`, `connect-src ${origin} ${origin.replace(/^http/, 'ws')}`];
  } catch {
    return null;
  }
}

/** The snippet's script, to be opened in a tab: what does not load there loads nowhere. */
export function scriptOf(snippet: string): string | null {
  const [, address] = /\ssrc="(https?:\/\/[^"]+)"/.exec(snippet) ?? [];
  return address ?? null;
}
