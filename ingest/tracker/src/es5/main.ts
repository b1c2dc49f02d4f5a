/**
 * The tracker for browsers without modules, in ES5: page views, routes and custom events, each kept until it is settled.
 * No WebSocket, no engagement. Same names as the tracker: `footfall(name, { props, revenue })`, `footfall.state()`.
 */

import { MAX_EVENT_BYTES, type PropValue } from "../protocol";
import { KEPT, strip } from "../address";
import { newStream, now } from "./clock";
import { createDelivery, type Delivery } from "./delivery";
import { createQueue, type OldEvent } from "./queue";
import { bytesOf, clip } from "./text";

interface Options {
  props?: Record<string, PropValue>;
  revenue?: { amount: number; currency: string };
}
type Call = [name: string, options?: Options];
interface Footfall {
  (...call: Call): void;
  /** Calls made before this file was loaded; `arguments` mostly. */
  q?: Call[];
  state?: () => { transport: ReturnType<Delivery["state"]>; pending: number; refused: number; evicted: number; stream: string };
}

const MAX_URL_BYTES = 2_048;
const MAX_TITLE_BYTES = 512;

/** Revenue is told as the properties `amount` and `currency`. */
function propsOf(options: Options | undefined): Record<string, PropValue> | undefined {
  if (!options?.revenue) return options?.props;
  const props: Record<string, PropValue> = { amount: options.revenue.amount, currency: options.revenue.currency };
  for (const name of Object.keys(options.props ?? {})) props[name] = options.props?.[name] as PropValue;
  return props;
}

const page = window as unknown as { footfall?: Footfall };

function start(site: string, endpoint: string, prefix: string | undefined): void {
  const stream = newStream();
  const queue = createQueue(prefix, stream);
  const early = page.footfall?.q ?? [];
  const delivery = createDelivery(queue, stream, endpoint, site, {
    w: screen.width,
    l: navigator.language || (navigator as { browserLanguage?: string }).browserLanguage,
  });
  let seq = 0;
  let view = 0;
  let url = "";
  let path = "";
  let search = "";
  let title: string | undefined;
  let referrer = document.referrer;

  const safe =
    <A extends unknown[]>(task: (...args: A) => void) =>
    (...args: A): void => {
      try {
        task(...args);
      } catch {
        // The page must not notice.
      }
    };
  const track = (event: OldEvent) => {
    let size = MAX_EVENT_BYTES + 1;
    try {
      size = bytesOf(JSON.stringify(event));
    } catch {
      // Half a character, or a circle: no node takes it.
    }
    if (size > MAX_EVENT_BYTES) {
      queue.refused++;
    } else {
      queue.add({ stream, seq: ++seq, event, size });
      delivery.kick();
    }
    return seq;
  };
  const shown = () => {
    path = location.pathname;
    search = location.search;
    url = clip(strip(location.href, KEPT), MAX_URL_BYTES);
    // Most frameworks set the title after the route: an unchanged one is the last page's.
    const changed = title !== document.title;
    title = document.title;
    view = track({ k: "view", at: now(), u: url, r: clip(referrer.split(/[?#]/)[0] ?? "", MAX_URL_BYTES) || undefined, t: changed ? clip(title, MAX_TITLE_BYTES) : undefined });
    referrer = url;
  };
  /** A changed path is a view; a changed query is one unless it was replaced. */
  const follow = (replaced: boolean) => {
    if (path !== location.pathname || (!replaced && search !== location.search)) shown();
    search = location.search;
  };

  const footfall: Footfall = safe((name: string, options?: Options) => {
    track({ k: "custom", at: now(), u: url, n: name, p: propsOf(options), pv: view });
  });
  footfall.state = () => ({ transport: delivery.state(), pending: queue.entries.length, refused: queue.refused, evicted: queue.evicted, stream });
  page.footfall = footfall;

  for (const name of ["pushState", "replaceState"] as const) {
    const original = (history as Partial<History>)[name];
    if (original)
      history[name] = function (this: History, ...args: Parameters<History["pushState"]>) {
        original.apply(this, args);
        safe(follow)(name === "replaceState");
      };
  }
  window.addEventListener("popstate", () => safe(follow)(false));
  // Back from the back/forward cache.
  window.addEventListener("pageshow", (event) => event.persisted && safe(shown)());
  window.addEventListener("onpagehide" in window ? "pagehide" : "beforeunload", safe(delivery.leave));
  shown();
  for (const call of early) footfall(...call);
  delivery.kick();
}

// Internet Explorer does not know which script runs.
const script = (document.currentScript ?? document.querySelector("script[nomodule][data-site]")) as HTMLScriptElement | null;
const read = (name: string) => script?.getAttribute("data-" + name) ?? undefined;
const site = read("site");
const include = read("include") ?? "";
const excluded =
  (/^(localhost|127\..*|\[::1\]|)$/.test(location.hostname) && include.indexOf("localhost") < 0) || (navigator.webdriver && include.indexOf("automation") < 0);
// Loaded twice: the first one counts.
if (script && site && !excluded && !page.footfall?.state) {
  const home = read("endpoint") ?? script.src.replace(/\/[^/]*$/, "");
  start(site, home.replace(/\/+$/, ""), read("storage") === "none" ? undefined : "footfall-es5:" + site + ":");
}
