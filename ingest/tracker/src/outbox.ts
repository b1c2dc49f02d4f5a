/**
 * Events until they are settled: consecutive sequences of this page load's stream, the front of which may be in flight.
 * Full, it evicts the oldest and counts it.
 */

import { KEPT } from "./address";
import { now, stream } from "./core";
import { more } from "./delivery";
import { MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_EVENT_BYTES, type Ack, type Batch, type PageContext, type TrackerEvent } from "./protocol";

const MAX_EVENTS = 2_000;
/** In UTF-16 units: no text has fewer bytes than units, and no unit takes more than three bytes. */
const MAX_EVENT_UNITS = MAX_EVENT_BYTES;
const MAX_BATCH_UNITS = MAX_BATCH_BYTES / 3;

export const counts = { acked: 0, refused: 0, evicted: 0 };

export const queue: TrackerEvent[] = [];
/** Sequence of the first of them. */
let first = 1;
/** How many of the front are in flight. */
export let flying = 0;
/** Most events of a batch. */
export let most = MAX_BATCH_EVENTS;
/** Sequence of the view that is shown. */
let view: number | undefined;
/** Evictions that a node was told, and has acked. */
let told = 0;
let heard = 0;

const ctx: PageContext = { w: screen.width, l: navigator.language, z: Intl.DateTimeFormat().resolvedOptions().timeZone };

export const limit = (events: number): void => {
  most = events;
};

/** Takes the oldest `count` out. */
export const shift = (count: number): void => {
  queue.splice(0, count);
  first += count;
  if ((flying -= count) < 0) flying = 0;
};

/** Takes an event in. */
export const put = (event: TrackerEvent): void => {
  if (more?.drop_(event)) return;
  // A view: of the three kinds it is the last.
  if (event.k > "u") view = first + queue.length;
  else event.pv = view;
  if (JSON.stringify(event)[MAX_EVENT_UNITS]) counts.refused++;
  else if (queue.push(event) > MAX_EVENTS) {
    shift(1);
    counts.evicted++;
  }
};

/** The next batch as a frame, in flight from now on. With room for none it asks for a token. */
export const take = (most: number): string => {
  const batch = queue.slice(flying, flying + most);
  for (const event of batch)
    // `strip` of address.ts, written out: what a function of it adds is more than the budget has.
    event.u = event.u.replace(/[?#].*/, (rest) => (rest.match(more?.keep_ ?? KEPT) || []).join("").replace(/^&/, "?"));
  while (batch[1] && JSON.stringify(batch)[MAX_BATCH_UNITS]) batch.length >>= 1;
  const frame: Batch = { t: "batch", stream, first: first + flying, sent: now(), ctx, evicted: counts.evicted - told || undefined, events: batch };
  told = counts.evicted;
  flying += batch.length;
  return JSON.stringify(frame);
};

/** Only what is next in line: what comes out of turn, behind a nack, is sent again and acked again. */
export const settle = ({ first: from, upto, refused = [] }: Ack): void => {
  const count = upto - first + 1;
  if (from > first || count < 1) return;
  counts.refused += refused.length;
  counts.acked += count - refused.length;
  heard = told;
  shift(count);
};

/** All that is in flight is to be sent again. */
export const release = (): void => {
  flying = 0;
  told = heard;
};

/** What the next page load needs to deliver the rest. */
export const copy = (): [first: number, evicted: number, queue: TrackerEvent[]] => [first, counts.evicted - heard, queue];
