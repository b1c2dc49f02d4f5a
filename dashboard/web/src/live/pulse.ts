// Which countries flash: those whose number rose, each at most once a second, so that a busy map does not flicker.

const AGAIN_MS = 1_000;
/** At the same time. */
const MOST = 24;

export class Pulses {
  #counts: ReadonlyMap<string, number> | null = null;
  readonly #flashed = new Map<string, number>();

  /** The first numbers flash nothing: they did not rise before our eyes. `at`: ms. */
  rose(counts: ReadonlyMap<string, number>, at: number): string[] {
    const before = this.#counts;
    this.#counts = counts;
    if (!before) return [];
    for (const [code, then] of this.#flashed) if (at - then >= AGAIN_MS) this.#flashed.delete(code);
    const risen: string[] = [];
    for (const [code, count] of counts) {
      if (count <= (before.get(code) ?? 0) || this.#flashed.has(code) || this.#flashed.size >= MOST) continue;
      this.#flashed.set(code, at);
      risen.push(code);
    }
    return risen;
  }
}
