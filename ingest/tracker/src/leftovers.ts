/**
 * Undelivered events in `localStorage`, one key a page load. The next page load of the site delivers them under their own
 * ids and at their true age. Two pages that hold copies of an event send the same id for the same visitor: it counts once.
 */

import { MAX_BATCH_BYTES, MAX_BATCH_EVENTS, type Ack, type Batch, type TrackerEvent } from "./protocol";

/** Older events could be counted twice: no node remembers their ids for longer. */
const RESEND_WINDOW_MS = 7 * 24 * 3_600_000;
/** UTF-16 units: none takes more than three bytes. */
const MAX_BATCH_UNITS = MAX_BATCH_BYTES / 3;

/** `at` is the page load's own clock at `wallAt`. Without a token none of it was ever sent. */
type Left = [wallAt: number, at: number, token: string, first: number, evicted: number, queue: TrackerEvent[]];

interface Sender {
  token: string;
  /** Brings an event to the site's rules; true: it is not wanted. */
  drop: (event: TrackerEvent) => boolean;
  strip: (url: string) => string;
  send: (frame: string) => void;
  /** Events that are given up. */
  lose: (count: number) => void;
}

/** What is wanted of the events from `first` on, with the numbers of their views as they become. */
function numbered(first: number, events: TrackerEvent[], drop: Sender["drop"]): TrackerEvent[] {
  const numbers = new Map<number, number>();
  const wanted: TrackerEvent[] = [];
  events.forEach((event, index) => {
    if (drop(event)) return;
    numbers.set(first + index, first + wanted.length);
    wanted.push({ ...event, pv: event.pv && numbers.get(event.pv) });
  });
  return wanted;
}

/** Sends what other page loads have left, all but `own`; again with every connection, until it is settled. */
export function restore(store: Storage, prefix: string, own: string, { token, drop, strip, send, lose }: Sender): void {
  for (const key of Object.keys(store)) {
    if (!key.startsWith(prefix) || key === own) continue;
    try {
      const left = JSON.parse(store[key] as string) as Left;
      const [wallAt, at, earlier, first, evicted] = left;
      const age = Date.now() - wallAt;
      // The rules were not known when it was written down, and nothing of it was sent.
      if (!earlier) left[5] = numbered(first, left[5], drop);
      const queue = left[5];
      for (const event of queue) event.u = strip(event.u);
      if (age > RESEND_WINDOW_MS) lose(queue.length);
      if (age > RESEND_WINDOW_MS || !queue.length) {
        store.removeItem(key);
        continue;
      }
      // From now on it is this visitor's, whoever sends it.
      left[2] ||= token;
      store[key] = JSON.stringify(left);
      for (let from = 0; from < queue.length; ) {
        const events = queue.slice(from, from + MAX_BATCH_EVENTS);
        while (events[1] && JSON.stringify(events).length > MAX_BATCH_UNITS) events.length >>= 1;
        const batch: Batch = {
          t: "batch",
          stream: key.slice(prefix.length),
          first: first + from,
          sent: at + age,
          token: left[2],
          ctx: {},
          evicted: (!from && evicted) || undefined,
          events,
        };
        send(JSON.stringify(batch));
        from += events.length;
      }
    } catch {
      // Cut off, or of another version: nothing can be read from it.
      store.removeItem(key);
    }
  }
}

/** An ack of another page load's events. */
export function settleLeft(store: Storage, prefix: string, { stream, upto }: Ack): void {
  const key = prefix + stream;
  const text = store.getItem(key);
  if (!text) return;
  const left = JSON.parse(text) as Left;
  const [, , , first, , queue] = left;
  queue.splice(0, upto + 1 - first);
  left[3] = Math.max(first, upto + 1);
  left[4] = 0;
  if (queue.length) store[key] = JSON.stringify(left);
  else store.removeItem(key);
}

/** Removes what any page load of the site has left. */
export function forget(store: Storage, prefix: string): void {
  for (const key of Object.keys(store)) if (key.startsWith(prefix)) store.removeItem(key);
}
