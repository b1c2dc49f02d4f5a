// What is watched now. While another filter or site is asked for, what is shown stays until its first numbers are there.

import { untrack } from 'svelte';
import { textOf, type Filter } from './filter';
import { Watch } from './watch.svelte';

/** Then the old numbers go, whatever the new ones do. */
const SWAP_MS = 1_500;

export class Watching {
  /** Shown; its `site` and `filter` say of what. */
  watch = $state.raw<Watch | null>(null);
  #next = $state.raw<Watch | null>(null);
  #swap: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly onFailed: () => void) {
    $effect(() => {
      if (this.#next && (this.#next.view.known || this.#next.connection.phase === 'refused')) this.#show();
    });
  }

  show(site: string, filter: Filter): void {
    untrack(() => this.#ask(site, filter));
  }

  #ask(site: string, filter: Filter): void {
    const wanted = this.#next ?? this.watch;
    if (wanted?.site === site && textOf(wanted.filter) === textOf(filter)) return;
    this.#next?.stop();
    this.#next = new Watch(site, filter, this.onFailed);
    clearTimeout(this.#swap);
    // Another site is another page: nothing of the old one stays.
    if (this.watch?.site === site) this.#swap = setTimeout(() => this.#show(), SWAP_MS);
    else this.#show();
  }

  /** Asks once more for what was refused. */
  again(): void {
    const { watch } = this;
    if (!watch) return;
    this.stop();
    this.show(watch.site, watch.filter);
  }

  stop(): void {
    untrack(() => this.#end());
  }

  #end(): void {
    clearTimeout(this.#swap);
    this.watch?.stop();
    this.#next?.stop();
    this.watch = this.#next = null;
  }

  #show(): void {
    clearTimeout(this.#swap);
    if (!this.#next) return;
    this.watch?.stop();
    this.watch = this.#next;
    this.#next = null;
  }
}
