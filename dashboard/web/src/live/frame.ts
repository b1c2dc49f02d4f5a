// Apply, mark, draw once a frame. However many messages come in, the page is drawn at most once a frame; a page that
// nobody looks at gets no frames, so there a slow timer keeps the title true.

export interface Clockwork {
  requestFrame(draw: () => void): void;
  later(draw: () => void, ms: number): void;
  hidden(): boolean;
}

const HIDDEN_MS = 1_000;

const BROWSER: Clockwork = {
  requestFrame: (draw) => requestAnimationFrame(draw),
  later: (draw, ms) => setTimeout(draw, ms),
  hidden: () => document.hidden,
};

export class Frame<Part extends string> {
  #dirty = new Set<Part>();
  #turn = 0;
  #scheduled = false;

  constructor(
    readonly draw: (parts: ReadonlySet<Part>) => void,
    readonly clockwork: Clockwork = BROWSER,
  ) {}

  mark(part: Part): void {
    this.#dirty.add(part);
    if (!this.#scheduled) this.#schedule();
  }

  /** The page was shown or hidden: what is due goes by the right timer. */
  reschedule(): void {
    if (this.#dirty.size > 0) this.#schedule();
  }

  #schedule(): void {
    const turn = ++this.#turn;
    this.#scheduled = true;
    const run = () => {
      // A later schedule has taken over.
      if (turn !== this.#turn) return;
      this.#scheduled = false;
      const parts = this.#dirty;
      this.#dirty = new Set();
      this.draw(parts);
    };
    if (this.clockwork.hidden()) this.clockwork.later(run, HIDDEN_MS);
    else this.clockwork.requestFrame(run);
  }
}
