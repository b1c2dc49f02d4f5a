// What a screen reads when it opens: not there yet, there, or why not. Failures can be tried again.

import { Refusal } from '../account/request';

/** Told to the window when the node no longer knows who asks. */
const SIGNED_OUT = 'footfall:signed-out';

export class Loaded<T> {
  value = $state.raw<T | null>(null);
  failure = $state<string | null>(null);
  #run = 0;

  constructor(private readonly read: () => Promise<T>) {}

  /** Keeps what is shown while it reads again. */
  async load(): Promise<void> {
    const run = (this.#run += 1);
    try {
      const value = await this.read();
      if (run !== this.#run) return;
      this.value = value;
      this.failure = null;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (run !== this.#run) return;
      this.failure = error.message;
      if (error.status === 401) dispatchEvent(new Event(SIGNED_OUT));
    }
  }
}
