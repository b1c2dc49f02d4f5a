/** Watches views, routes, attention and scrolling. */

import { kick, leave, open, pause, retry, show } from "./delivery";
import { now, safe } from "./core";
import { put } from "./outbox";
import type { Footfall, Options } from "./main";
import type { TrackerEvent } from "./protocol";

export const footfall = safe((name: string, { props, revenue }: Options = {}) => track("custom", { n: name, p: { ...props, ...revenue } })) as Footfall;

/** Of the view that is shown. */
let url: string;
let title: string | undefined;
let path: string;
let search: string;
let referrer = document.referrer;
/** Attention that it got: ms visible and focused that were not reported yet, and the largest scroll depth. */
let attending = false;
let since = 0;
let spent = 0;
let depth = 0;

export const track = (k: TrackerEvent["k"], more: Partial<TrackerEvent>): void => {
  put({ k, at: now(), u: url, ...more });
  kick();
};

const attend = () => {
  const at = now();
  if (attending) spent += at - since;
  since = at;
  attending = !document.hidden && document.hasFocus();
  depth = Math.max(depth, Math.min(100, (100 * (scrollY + innerHeight)) / document.documentElement.scrollHeight) | 0);
};

const report = () => {
  attend();
  if (spent) track("engagement", { d: spent, s: depth });
  spent = 0;
};

export const view = (): void => {
  report();
  depth = 0;
  url = location.href;
  ({ pathname: path, search } = location);
  // Most frameworks set the title after the route: an unchanged one is the last page's. A code point takes four bytes
  // at most, and half a pair would refuse the event.
  const t = title === document.title ? undefined : (/^\P{Cs}{0,128}/u.exec(document.title) as RegExpExecArray)[0];
  ({ title } = document);
  track("view", { r: /[^?#]{1,2048}/.exec(referrer)?.[0], t });
  referrer = url;
  show();
};

/** A changed path is a view; a changed query is one unless it was replaced. */
const follow = safe((replaced?: boolean) => {
  if (path !== location.pathname || (!replaced && search !== location.search)) view();
  ({ search } = location);
});

export function watch(): void {
  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name].bind(history);
    history[name] = (...args) => {
      original(...args);
      follow(name > "r");
    };
  }
  const heard: Record<string, (event: Event) => void> = {
    focus: attend,
    blur: attend,
    scroll: attend,
    online: retry,
    popstate: () => follow(),
    visibilitychange() {
      show();
      report();
      if (document.hidden) pause();
    },
    pagehide() {
      report();
      attending = false;
      leave();
    },
    pageshow(event) {
      if (!(event as PageTransitionEvent).persisted) return;
      title = undefined;
      view();
      open();
    },
  };
  for (const type in heard) addEventListener(type, safe(heard[type] as () => void));
  view();
}
