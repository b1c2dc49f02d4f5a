/** Full jitter: anything from 0 to a bound that doubles, so that viewers who lost a node do not return in step. */
export class Backoff {
  #attempt = 0;

  constructor(
    readonly baseMs = 250,
    readonly capMs = 10_000,
    readonly random: () => number = Math.random,
  ) {}

  nextMs(): number {
    const bound = Math.min(this.capMs, this.baseMs * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 30);
    return Math.round(this.random() * bound);
  }

  reset(): void {
    this.#attempt = 0;
  }
}
