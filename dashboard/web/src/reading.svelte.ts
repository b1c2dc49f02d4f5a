// Something that is read again and again from the server, while somebody looks at the page.

import { ApiError } from './api';

export class Reading<T> {
  value = $state.raw<{ read: T; at: number } | null>(null);
  failure = $state<string | null>(null);
  /** It is not for whoever looks: a link that shows a part of a site does not open its past. */
  refused = $state(false);

  /** Begins anew whenever `ask` gives another question; to be made while a component is. */
  constructor(ask: () => () => Promise<T>, everyMs: number) {
    $effect(() => {
      const question = ask();
      let current = true;
      let reading = false;
      this.value = null;
      this.failure = null;
      this.refused = false;
      const read = async () => {
        if (reading) return;
        reading = true;
        try {
          const answer = await question();
          if (!current) return;
          this.value = { read: answer, at: Date.now() };
          this.failure = null;
          this.refused = false;
        } catch (error) {
          if (!current) return;
          this.refused = error instanceof ApiError && (error.status === 401 || error.status === 403);
          this.failure = error instanceof Error ? error.message : String(error);
        } finally {
          reading = false;
        }
      };
      // Nobody looks at a hidden page: it reads when it is shown again.
      const due = () => {
        const { value, failure } = this;
        if (!document.hidden && (failure !== null || !value || Date.now() - value.at >= everyMs - 500)) void read();
      };
      void read();
      const timer = setInterval(due, everyMs);
      document.addEventListener('visibilitychange', due);
      return () => {
        current = false;
        clearInterval(timer);
        document.removeEventListener('visibilitychange', due);
      };
    });
  }
}
