import type { Outbox } from "./outbox";
import type { TrackerEvent } from "./protocol";
import { bytesOf } from "./text";

/** Older events could be counted twice: no node remembers their ids for longer. */
const RESEND_WINDOW_MS = 7 * 24 * 3_600_000;
/** A page that holds events has this long to deliver them before another page may take them over. */
const CLAIM_MS = 30_000;

type Kept = [stream: string, seq: number, token: string, wallAt: number, event: TrackerEvent];
/** When its page claimed it (0: that page was about to end), evictions that are not reported, the events. */
type Value = [claimed: number, evicted: number, kept: Kept[]];

/**
 * Undelivered events in `localStorage`, one key a page load. Whoever takes a key over marks it and leaves the events in
 * it until they are settled or in a key of its own, so a crash in between loses nothing. Two pages that hold copies of
 * an event that was sent before send the same id with the same token: it counts once. An event that was never sent has
 * no token yet, and another page could give it another visitor's; it belongs to the page that wrote its key last, and
 * the others forget it.
 */
export interface Keep {
  /** Takes over what earlier page loads left. `now` is monotonic, `wall` is `Date.now()`. */
  restore(now: number, wall: number): void;
  /** Forgets events without a token that another page has taken over; whether any event of the outbox is kept. */
  reclaim(): boolean;
  /** Brings the page's own key to what is in the outbox and lets go of all others. `claimed`: 0 when the page may end. */
  save(now: number, wall: number, claimed: number): void;
}

export function createKeep(store: Storage, prefix: string, stream: string, outbox: Outbox): Keep {
  const own = prefix + stream;
  /** Keys whose events are in the outbox, with the value that this page wrote. */
  const held = new Map<string, string>();

  const write = (key: string, value: Value) => {
    const text = JSON.stringify(value);
    store.setItem(key, text);
    held.set(key, text);
  };
  const reclaim = () => {
    held.forEach((text, key) => {
      if (store.getItem(key) !== text) {
        held.delete(key);
        outbox.remove((entry) => !entry.token && entry.home === key);
      }
    });
    return held.size > 0;
  };

  return {
    restore(now, wall) {
      for (const key of Object.keys(store).sort()) {
        if (!key.startsWith(prefix)) continue;
        try {
          const [claimed, evicted, kept] = JSON.parse(store.getItem(key) as string) as Value;
          if (Math.abs(wall - claimed) < CLAIM_MS) continue;
          write(key, [wall, evicted, kept]);
          outbox.evict(evicted);
          for (const [stream, seq, token, wallAt, event] of kept) {
            const at = (event.at = now - wall + wallAt);
            const json = JSON.stringify(event);
            if (wall - wallAt > RESEND_WINDOW_MS) outbox.evict(1);
            else outbox.add({ stream, seq, token, at, json, size: bytesOf(json), home: key });
          }
        } catch {
          // Cut off, or of another version: nothing can be read from it.
          store.removeItem(key);
        }
      }
    },
    reclaim,
    save(now, wall, claimed) {
      reclaim();
      const others = [...held.keys()];
      const kept = outbox.list().map((entry): Kept => {
        entry.home = own;
        return [entry.stream, entry.seq, entry.token, wall - now + entry.at, JSON.parse(entry.json) as TrackerEvent];
      });
      const evicted = outbox.unreported();
      if (kept.length || evicted) write(own, [claimed, evicted, kept]);
      else held.delete(own);
      for (const key of others)
        if (key !== own || !held.has(own)) {
          store.removeItem(key);
          held.delete(key);
        }
    },
  };
}
