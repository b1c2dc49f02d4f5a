/** Answers to `footfall(…)`, and begins. */

import { data, safe, store, stream } from "./core";
import { begin, more, seldom, state, type Core, type More } from "./delivery";
import { counts, queue } from "./outbox";
import { footfall, watch } from "./page";
import type { PropValue } from "./protocol";

declare global {
  interface Window {
    footfall?: Footfall;
  }
}

export interface State {
  transport: "ws" | "http" | "pixel" | "none" | "stopped";
  /** Events that are not settled. */
  pending: number;
  stream: string;
  acked: number;
  refused: number;
  evicted: number;
}

export interface Options {
  props?: Record<string, PropValue>;
  revenue?: { amount: number; currency: string };
}

export interface Footfall {
  (name: string, options?: Options): void;
  /** Calls made before this file was loaded. */
  q?: Parameters<Footfall>[];
  /** Hears every frame and every fault: `footfall.debug = console.log`. */
  debug?: (what: unknown) => void;
  /** What `consent` was told before. */
  given?: boolean;
  state: () => State;
  /** With `data-consent`: nothing is sent or stored before `true`; `false` forgets everything. */
  consent?: (given: boolean) => void;
  /** Of `more.ts`. */
  more?: (core: Core) => More;
}

safe(() => {
  // Loaded twice: the first one counts.
  if (self.footfall?.state) return;
  self.footfall = Object.assign(footfall, self.footfall, {
    state: () => ({ transport: state(), pending: queue.length, stream, ...counts }) as State,
  });
  watch();
  for (const call of footfall.q ?? []) footfall(...call);
  // Whether to begin is not for here to say with other attributes than the site, before the page is shown, for robots,
  // on machines of developers and where something was left in storage.
  if (
    Object.keys(data)[1] ||
    (document as Document & { prerendering?: boolean }).prerendering ||
    navigator.webdriver ||
    /^file|\/(local|127|\[)|footfall/.test(location.href + String(Object.keys(store ?? "")))
  )
    seldom(() => more?.start_());
  else begin();
})();
