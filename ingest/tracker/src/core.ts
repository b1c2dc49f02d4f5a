/** The script tag, and what every part needs. */

export const script = document.currentScript as HTMLScriptElement;

export const data = script.dataset;

/** What lies beside `f.js`: other files, and the paths of the node. */
export const beside = (name: string): string => script.src.replace(/[^/]*$/, name);

/** ms since this page load began, by the monotonic clock. */
export const now = (): number => Math.round(performance.now());

/** Names this page load: 48 bits of wall clock, then 48 random bits, in hex. The added power of 16 keeps leading zeros. */
export const stream = [Date.now(), Math.random() * 2 ** 48].map((part) => (2 ** 48 + part).toString(16).slice(1, 13)).join("");

/** Reading it may be forbidden. */
export let store: Storage | undefined;
try {
  if (!data.storage) store = localStorage;
} catch {
  // Without it nothing is kept.
}

/** Errors of ours must not reach the page. */
export const safe =
  <A extends unknown[]>(task: (...args: A) => void) =>
  (...args: A): void => {
    try {
      task(...args);
    } catch (error) {
      self.footfall?.debug?.(error);
    }
  };

