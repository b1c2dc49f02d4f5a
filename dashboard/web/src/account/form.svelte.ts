// A form that is sent: what is wrong with it, field by field, and what the node says of it. What was typed stays.

import { tick } from 'svelte';
import { Refusal } from './request';

export type Errors = Record<string, string>;

export class Form {
  busy = $state(false);
  /** By field. */
  errors = $state.raw<Errors>({});
  /** What belongs to no field. */
  failure = $state<string | null>(null);

  /** `fields`: those that show an error of their own. */
  constructor(private readonly fields: readonly string[]) {}

  /**
   * Sends unless `errors` holds one. `true`: it is done. Of a refusal, `at` may say to which field it belongs, and
   * `tell` how it reads; else the node's field and words are taken.
   */
  async send(
    form: HTMLFormElement | null,
    errors: Errors,
    work: () => Promise<unknown>,
    { at, tell }: { at?: (refusal: Refusal) => string | null; tell?: (refusal: Refusal) => string } = {},
  ): Promise<boolean> {
    if (this.busy) return false;
    this.errors = errors;
    this.failure = null;
    let done = false;
    if (Object.keys(errors).length === 0) {
      this.busy = true;
      try {
        await work();
        done = true;
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        const field = at?.(error) ?? error.field;
        const text = tell?.(error) ?? error.message;
        if (field !== null && this.fields.includes(field)) this.errors = { [field]: withoutField(text, field) };
        else this.failure = text;
      } finally {
        this.busy = false;
      }
    }
    if (!done) {
      await tick();
      form?.querySelector<HTMLElement>('[aria-invalid=true]')?.focus();
    }
    return done;
  }
}

/** Of `origins: write …` or `alert "Spike": min: say …`, what is not said by where it stands. */
function withoutField(text: string, field: string): string {
  const mark = `${field}: `;
  const at = text.startsWith(mark) ? 0 : /^alert "/.test(text) ? text.indexOf(`": ${mark}`) + 3 : -1;
  const rest = at === 0 || at > 2 ? text.slice(at + mark.length) : text;
  return rest.charAt(0).toUpperCase() + rest.slice(1);
}
