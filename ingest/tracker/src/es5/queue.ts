/** Events that are not settled, in the order in which they happened, and their copy in storage when the page ends. */

import type { PropValue } from "../protocol";
import { ORIGIN, now } from "./clock";

export interface OldEvent {
  k: "view" | "custom";
  at: number;
  u: string;
  r?: string | undefined;
  t?: string | undefined;
  n?: string | undefined;
  p?: Record<string, PropValue> | undefined;
  pv?: number | undefined;
}

export interface Entry {
  stream: string;
  seq: number;
  event: OldEvent;
  size: number;
  /** What it was first sent with: an image goes without a token when none is known. Absent until it was sent. */
  token?: string;
}

export interface Queue {
  entries: Entry[];
  evicted: number;
  refused: number;
  add: (entry: Entry) => void;
  /** The first events that make one batch: consecutive, of one stream, first sent with one token. */
  head: (token: string, events: number, bytes: number) => Entry[];
  remove: (stream: string, first: number, upto: number) => void;
  /** False when there is no storage. */
  save: () => boolean;
}

const MAX_EVENTS = 500;
const RESEND_MS = 7 * 86_400_000;

/** Takes over what earlier pages of the site left: in `localStorage`, under `prefix` and their stream. */
function restore(prefix: string, entries: Entry[]): void {
  for (const key of Object.keys(localStorage)) {
    if (key.indexOf(prefix) !== 0) continue;
    const [origin, kept] = JSON.parse(localStorage.getItem(key) ?? "[0,[]]") as [number, Entry[]];
    localStorage.removeItem(key);
    for (const entry of kept) {
      // On this page load's clock it is negative.
      entry.event.at += origin - ORIGIN;
      if (entry.event.at > now() - RESEND_MS) entries.push(entry);
    }
  }
}

/** Without `prefix` nothing is stored. A page writes under its own stream, so that two do not overwrite each other. */
export function createQueue(prefix: string | undefined, stream: string): Queue {
  let saved = false;
  const queue: Queue = {
    entries: [],
    evicted: 0,
    refused: 0,
    add(entry) {
      queue.entries.push(entry);
      while (queue.entries.length > MAX_EVENTS) {
        queue.entries.shift();
        queue.evicted++;
      }
    },
    head(token, events, bytes) {
      const run: Entry[] = [];
      let size = 0;
      for (const entry of queue.entries) {
        const first = run[0] ?? entry;
        size += entry.size + 1;
        const follows = entry.stream === first.stream && entry.seq === first.seq + run.length && (entry.token ?? token) === (first.token ?? token);
        if (!follows || run.length === events || (run.length && size > bytes)) break;
        run.push(entry);
      }
      return run;
    },
    remove(stream, first, upto) {
      queue.entries = queue.entries.filter((entry) => entry.stream !== stream || entry.seq < first || entry.seq > upto);
      if (saved && !queue.entries.length) queue.save();
    },
    save() {
      if (!prefix) return false;
      const key = prefix + stream;
      try {
        saved = queue.entries.length > 0;
        if (saved) localStorage.setItem(key, JSON.stringify([ORIGIN, queue.entries]));
        else localStorage.removeItem(key);
        return true;
      } catch {
        return false;
      }
    },
  };
  try {
    if (prefix) restore(prefix, queue.entries);
  } catch {
    // No storage, or something in it that is not ours.
  }
  return queue;
}
