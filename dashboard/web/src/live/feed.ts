// The newest events, as the list of events shows them. Bounded; what did not fit is counted.

import type { Events, FeedEvent } from './protocol';

export const MOST_EVENTS = 200;

export interface Shown {
  /** Newest first. */
  events: readonly FeedEvent[];
  /** Events that the node left out since the feed was turned on: more came than it tells. */
  skipped: number;
  /** Events that came since the list stands still. */
  waiting: number;
}

export const NOTHING_SHOWN: Shown = { events: [], skipped: 0, waiting: 0 };

export class EventFeed {
  /** Newest first. */
  #events: FeedEvent[] = [];
  #skipped = 0;
  #arrived = 0;
  #held: { events: readonly FeedEvent[]; arrived: number } | null = null;

  take({ events, skipped }: Events): void {
    const known = new Set(this.#events.map(({ id }) => id));
    const fresh = events.filter(({ id }) => !known.has(id) && known.add(id));
    this.#events = [...fresh.reverse(), ...this.#events].slice(0, MOST_EVENTS);
    this.#arrived += fresh.length + skipped;
    this.#skipped += skipped;
  }

  /** The list stands still; what comes is kept behind it. */
  hold(): void {
    this.#held ??= { events: this.#events, arrived: this.#arrived };
  }

  release(): void {
    this.#held = null;
  }

  /** The feed was turned off: what is listed stays, what comes after the gap begins anew. */
  clear(): void {
    this.#events = [];
    this.#skipped = this.#arrived = 0;
    this.#held = null;
  }

  shown(): Shown {
    const events = this.#held?.events ?? this.#events;
    return { events, skipped: this.#skipped, waiting: this.#held ? this.#arrived - this.#held.arrived : 0 };
  }
}

/** Whether every word of `text` is in one of `fields`. */
export function matches(text: string, fields: readonly string[]): boolean {
  const words = text.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const all = fields.join('\n').toLocaleLowerCase();
  return words.every((word) => all.includes(word));
}
