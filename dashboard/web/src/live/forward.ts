// The screen never jumps backwards: after a reconnect another node may know less than was shown already.

import type { SiteState } from './state';

/** A node that is still behind after so long is believed: its numbers are all there is. */
export const HOLD_MS = 15_000;

interface Shown {
  epoch: number;
  seq: number;
  /** Log time, ms since 1970; 0: unknown. */
  clock: number;
}

export class Forward {
  #shown: Shown | null = null;
  #heldSince: number | null = null;

  /** Whether the state may be drawn over what is shown. `at`: ms of any clock that only goes forward. */
  mayShow({ position, freshness }: SiteState, at: number): boolean {
    if (!position) return this.#shown === null;
    const next = { ...position, clock: freshness?.clock ?? 0 };
    if (this.#shown && isOlder(next, this.#shown)) {
      this.#heldSince ??= at;
      if (at - this.#heldSince < HOLD_MS) return false;
    }
    this.#heldSince = null;
    this.#shown = next;
    return true;
  }
}

function isOlder(next: Shown, shown: Shown): boolean {
  // One node counts its changes; between nodes only the log's time tells.
  if (next.epoch === shown.epoch) return next.seq < shown.seq;
  return shown.clock > 0 && next.clock < shown.clock;
}
