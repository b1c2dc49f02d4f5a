// The node's clock as this page knows it, and how long an event takes to the screen by it.

/** Of the frames of so long the fastest counts; older ones are forgotten, so that a clock that is set is followed. */
const WINDOW_MS = 30_000;
/** Newest samples of a meter. */
const MOST_SAMPLES = 1_000;

/** Times of this page are `performance.now()`: ms that only go forward. */
export class NodeClock {
  #before = -Infinity;
  #current = -Infinity;
  #since = 0;
  #oneWayMs = 0;
  #shortestMs = Infinity;

  constructor(readonly guess: number) {}

  /** A frame that was made at `now` (ms since 1970, the node's clock) came in at `at`. */
  heard(now: number, at: number): void {
    if (at - this.#since > WINDOW_MS) {
      // Nothing was heard for longer than a window: what was before says nothing any more.
      this.#before = at - this.#since > 2 * WINDOW_MS ? -Infinity : this.#current;
      this.#current = -Infinity;
      this.#since = at;
    }
    this.#current = Math.max(this.#current, now - at);
  }

  /** Another node, another clock. */
  reset(): void {
    this.#before = this.#current = -Infinity;
    this.#since = 0;
  }

  /** A question was answered after `ms`; half of the quickest is taken for the way from the node to here. */
  exchanged(ms: number): void {
    this.#shortestMs = Math.min(this.#shortestMs, ms);
    this.#oneWayMs = this.#shortestMs / 2;
  }

  /** What the node's clock says at `at`, ms since 1970. */
  now(at: number): number {
    const offset = Math.max(this.#before, this.#current);
    return at + (Number.isFinite(offset) ? offset + this.#oneWayMs : this.guess);
  }
}

export interface Latency {
  /** ms; half of the changes were quicker. */
  p50: number;
  p99: number;
  count: number;
}

/** How long the newest event of each change took, from its receipt by an ingest node until it was drawn. */
export class LatencyMeter {
  readonly #samples: { at: number; ms: number }[] = [];

  constructor(readonly windowMs = 300_000) {}

  add(ms: number, at: number): void {
    this.#samples.push({ at, ms: Math.max(0, ms) });
    if (this.#samples.length > MOST_SAMPLES) this.#samples.shift();
  }

  /** Over the last minutes; `null`: nothing was measured. */
  read(at: number): Latency | null {
    while (this.#samples[0] && at - this.#samples[0].at > this.windowMs) this.#samples.shift();
    const sorted = this.#samples.map(({ ms }) => ms).sort((a, b) => a - b);
    if (sorted.length === 0) return null;
    const quantile = (q: number) => sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? 0;
    return { p50: quantile(0.5), p99: quantile(0.99), count: sorted.length };
  }
}
