/**
 * `footfall.v1`: what a tracker and an ingest node say to each other, JSON text frames over `/ws` and one batch a
 * request over `/e`. The Rust side is `schemas/src/tracker.rs`; both sides read the examples in `schemas/golden`.
 */

export const SUBPROTOCOL = "footfall.v1";
/** Largest event in bytes of JSON; a node refuses a larger one. */
export const MAX_EVENT_BYTES = 8_192;
export const MAX_BATCH_EVENTS = 256;
/** Events of one batch in bytes: room for the envelope in the 65,536 that a frame, a beacon or a keepalive request may have. */
export const MAX_BATCH_BYTES = 60_000;

export type PropValue = boolean | number | string;

export type Kind = "view" | "engagement" | "custom";

/** Fields in the order of the wire; absent ones are left out. */
export interface TrackerEvent {
  k: Kind;
  /** When it happened: ms on this page load's monotonic clock, negative for events of an earlier page load. */
  at: number;
  /** URL of the page. */
  u: string;
  /** Referrer (views). */
  r?: string | undefined;
  /** Title (views). */
  t?: string | undefined;
  /** Name (custom). */
  n?: string | undefined;
  p?: Record<string, PropValue> | undefined;
  /** Engaged ms since the last engagement event of the same view, so that they add up. */
  d?: number | undefined;
  /** Largest scroll depth of the view so far, in percent. */
  s?: number | undefined;
  /** Sequence of the view that it belongs to, in the same stream. */
  pv?: number | undefined;
}

/** Screen width, language, time zone. */
export interface PageContext {
  w?: number | undefined;
  l?: string | undefined;
  z?: string | undefined;
}

export interface Batch {
  t: "batch";
  stream: string;
  first: number;
  sent: number;
  token?: string | undefined;
  ctx?: PageContext;
  evicted?: number | undefined;
  events: TrackerEvent[];
}

export interface Here {
  t: "here";
  path: string;
  visible: boolean;
}

/** What the site asks of its trackers; what is at its default is absent. */
export interface Settings {
  respect_dnt?: boolean;
  hash_routes?: boolean;
  query_params?: string[];
  ignore_paths?: string[];
  mask_paths?: string[];
}

export interface Welcome {
  t: "welcome";
  token: string;
  node: string;
  now: number;
  limits: { batch_events: number; batch_bytes: number; idle_ms: number };
  settings?: Settings;
}

/** Events `first..=upto` are settled: stored, or refused for good and listed. */
export interface Ack {
  t: "ack";
  stream: string;
  first: number;
  upto: number;
  refused?: { seq: number; reason: string; detail: string }[];
  /** HTTP only. */
  token?: string;
  /** HTTP only, in the answer to an empty batch. */
  settings?: Settings;
}

/** Nothing of `first..=upto` is settled: send it again after `retry_ms`. */
export interface Nack {
  t: "nack";
  stream: string;
  first: number;
  upto: number;
  reason: string;
  retry_ms: number;
}

export interface Slow {
  t: "slow";
  linger_ms: number;
}

/** The site is over its rate: for so long, drop this share of these kinds before they are numbered. */
export interface Sample {
  t: "sample";
  drop_percent: number;
  kinds: Kind[];
  for_ms: number;
}

/** Nothing is taken: forget what is held and stay away for so long. */
export interface Stop {
  t: "stop";
  reason: string;
  for_ms: number;
}

export interface Refused {
  t: "error";
  reason: string;
  detail: string;
}

export interface Bye {
  t: "bye";
  retry_ms: number;
}

export type ServerFrame = Welcome | Ack | Nack | Slow | Sample | Stop | Refused | Bye;
