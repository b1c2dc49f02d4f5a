// What the page holds of a site. Pure: frames go in, nothing else happens. The rules are those of schemas/src/live.rs.

import { NO_FILTER, type Filter } from './filter';
import type { Alert, Freshness, Ledger, LiveChange, MinuteCounts, Online, Position, SecondCounts, Totals, ViewUpdate } from './protocol';

/** Seconds shown as a moving chart. */
export const SECONDS_SHOWN = 60;
/** Minutes shown, and the window of the lists. */
export const MINUTES_SHOWN = 30;

/**
 * What became of an update. `gap`: something is missing, so ask for a snapshot; told once, after that deltas are
 * `ignored` until it comes.
 */
export type Outcome = 'applied' | 'ignored' | 'gap';

export class SiteState {
  position: Position | null = null;
  online: Online | null = null;
  freshness: Freshness | null = null;
  ledger: Ledger | null = null;
  /** Log time (ms since 1970) at which partitions began to be silent; 0: none is. */
  silentSince = 0;
  totals: Totals | null = null;
  readonly seconds = new Map<number, SecondCounts>();
  readonly minutes = new Map<number, MinuteCounts>();
  readonly tops = new Map<string, Map<string, number>>();
  readonly errors = new Map<string, number>();
  /** Goals reached in the last 30 minutes. */
  readonly goals = new Map<string, number>();
  /** Open, and resolved lately; newest first. */
  alerts: readonly Alert[] = [];
  #awaitsSnapshot = true;

  constructor(
    readonly site: string,
    readonly filter: Filter = NO_FILTER,
  ) {}

  /** What a new connection may resume from; `null` asks for a snapshot. */
  get resume(): Position | null {
    return this.#awaitsSnapshot ? null : this.position;
  }

  /** Deltas do not count until the next snapshot. What is shown stays. */
  awaitSnapshot(): void {
    this.#awaitsSnapshot = true;
  }

  apply(update: ViewUpdate): Outcome {
    // A frame of the site that was watched before the last change of site.
    if (update.site !== this.site) return 'ignored';
    if (update.kind === 'snapshot') {
      this.#clear();
      this.#awaitsSnapshot = false;
      this.#take(update);
      return 'applied';
    }
    if (this.#awaitsSnapshot || !this.position) return 'ignored';
    const { epoch, seq } = update.position;
    if (epoch === this.position.epoch && seq <= this.position.seq) return 'ignored';
    if (epoch !== this.position.epoch || seq !== this.position.seq + 1) {
      this.#awaitsSnapshot = true;
      return 'gap';
    }
    this.#take(update);
    return 'applied';
  }

  #clear(): void {
    this.online = null;
    this.freshness = null;
    this.ledger = null;
    this.totals = null;
    this.seconds.clear();
    this.minutes.clear();
    this.tops.clear();
    this.errors.clear();
    this.goals.clear();
    this.alerts = [];
  }

  #take(update: ViewUpdate): void {
    this.position = update.position;
    if (update.online) this.online = update.online;
    if (update.freshness) this.#fresh(update.freshness);
    if (update.ledger) this.ledger = update.ledger;
    this.#change(update.live);
    for (const [goal, completions] of update.goals) this.goals.set(goal, completions);
    if (update.alerts) this.alerts = update.alerts;
    if (this.freshness && this.freshness.clock > 0) this.#prune(this.freshness.clock);
  }

  #fresh(freshness: Freshness): void {
    // The clock goes on with the partitions that still tell: it says when the silence began only at its beginning.
    if (freshness.silentPartitions === 0) this.silentSince = 0;
    else if (this.silentSince === 0) this.silentSince = freshness.clock;
    this.freshness = freshness;
  }

  #change(change: LiveChange): void {
    if (change.totals) this.totals = change.totals;
    for (const [start, counts] of change.seconds) {
      if (counts.views === 0 && counts.events === 0) this.seconds.delete(start);
      else this.seconds.set(start, counts);
    }
    for (const [start, counts] of change.minutes) {
      const gone = counts.views === 0 && counts.events === 0 && counts.visitors === 0 && counts.sessions === 0;
      if (gone) this.minutes.delete(start);
      else this.minutes.set(start, counts);
    }
    for (const [dimension, values] of change.tops) {
      const top = this.tops.get(dimension) ?? new Map<string, number>();
      for (const [value, count] of values) {
        if (count === 0) top.delete(value);
        else top.set(value, count);
      }
      if (top.size > 0) this.tops.set(dimension, top);
      else this.tops.delete(dimension);
    }
    for (const [dimension, error] of change.errors) {
      if (error === 0) this.errors.delete(dimension);
      else this.errors.set(dimension, error);
    }
  }

  /** Forgets the seconds and minutes that have left the windows at `clock` (ms since 1970). */
  #prune(clock: number): void {
    const second = Math.floor(clock / 1_000) - SECONDS_SHOWN;
    const minute = (Math.floor(clock / 60_000) - MINUTES_SHOWN) * 60;
    for (const start of this.seconds.keys()) if (start <= second) this.seconds.delete(start);
    for (const start of this.minutes.keys()) if (start <= minute) this.minutes.delete(start);
  }
}
