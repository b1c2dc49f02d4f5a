/**
 * What a page seldom needs, in a file of its own that `f.js` loads when it does: attributes besides the site, robots and
 * machines of developers, a site's settings, frames that hint or refuse, pixels, events that earlier page loads left.
 */

import { strip } from "./address";
import type { Core, More } from "./delivery";
import { forget, restore, settleLeft } from "./leftovers";
import type { Batch, Kind, TrackerEvent } from "./protocol";
import { objects, rulesOf } from "./rules";

/** Close code of `schemas/src/refusal.rs`. */
const POLICY = 1008;
const PIXEL_EVENTS = 16;
/** Longest address of a pixel: a node reads 16 KiB of headers, and what lies on the way may read less. */
const PIXEL_ADDRESS = 12_000;
const IGNORE = "footfall-ignore";

const footfall = window.footfall as NonNullable<Window["footfall"]>;
const script = document.querySelector("script[data-site]:not([nomodule])") as HTMLScriptElement;
const data = script.dataset;
const home = script.src.replace(/[^/]*$/, "");
const prefix = `footfall:${data.site}:`;
const stopKey = `footfall-stop:${data.site}`;
const say = (what: string) => console.info(`footfall: ${what}`);

let store: Storage | undefined;
try {
  if (!data.storage) store = localStorage;
} catch {
  // Forbidden.
}

/** `#footfall-ignore` in the address: visits from this browser are not counted from now on, or are counted again. */
function toggle(): void {
  if (location.hash !== `#${IGNORE}` || !store) return;
  const ignored = !store[IGNORE];
  if (ignored) store[IGNORE] = "1";
  else store.removeItem(IGNORE);
  alert(`Footfall: your visits from this browser are ${ignored ? "no longer counted" : "counted again"}.`);
}

/** Why nothing is counted here. */
function reason(): string | undefined {
  const include = data.include ?? "";
  if (store?.[IGNORE]) return `you have excluded this browser; open a page with #${IGNORE} to change that`;
  if (Number(store?.[stopKey]) > Date.now()) return "the node has told to stay away for a while";
  if (navigator.webdriver && !include.includes("automation")) return 'this browser is automated; data-include="automation" counts it';
  if (/^(localhost|127\..*|\[::1\]|)$/.test(location.hostname) && !include.includes("localhost"))
    return 'this is a page of this machine; data-include="localhost" counts it';
  return;
}

footfall.more = (core: Core): More => {
  let sampled: Partial<Record<Kind, number>> = {};
  let tell = (url: string): string | undefined => url;
  /** The view that is shown was sampled out: what happens on it belongs to no view. */
  let viewless = false;
  /** Something was refused as a whole before: events go one by one. */
  let single = false;
  const drop = (event: TrackerEvent): boolean => {
    const url = tell(event.u);
    if (!url) return true;
    event.u = url;
    const isSampled = Math.random() * 100 < (sampled[event.k] ?? 0);
    if (event.k === "view") viewless = isSampled;
    if (isSampled) core.counts_.evicted++;
    // Its number is given after this.
    else if (viewless) queueMicrotask(() => delete event.pv);
    return isSampled;
  };

  const stop = (ms: number) => {
    core.stop_();
    if (!store) return;
    forget(store, prefix);
    if (ms) store[stopKey] = Date.now() + ms;
  };

  /** What is in flight was refused as a whole. From now on events go one by one; what is refused alone is given up. */
  const fault = () => {
    if (single) {
      core.shift_(1);
      core.counts_.refused++;
    }
    single = true;
    core.limit_(1);
    core.release_();
    core.flush_();
  };

  /** What becomes of the part behind # is a route. */
  let watching = false;
  const watchHash = () => {
    if (watching) return;
    watching = true;
    const route = () => [location.pathname, location.hash] as const;
    let [path, hash] = route();
    const follow = () => {
      const [newPath, newHash] = route();
      // Another path is a view already.
      if (newPath === path && newHash !== hash) core.view_();
      [path, hash] = [newPath, newHash];
    };
    addEventListener("hashchange", follow);
    for (const name of ["pushState", "replaceState"] as const) {
      const original = history[name].bind(history);
      history[name] = (...args) => {
        original(...args);
        follow();
      };
    }
  };

  const start = () => {
    toggle();
    // Where the node is: the core looks beside its script.
    if (data.endpoint) script.src = `${data.endpoint.replace(/\/*$/, "")}/f.js`;
    const why = reason();
    if (why) {
      core.stop_();
      return say(`nothing is counted: ${why}`);
    }
    if (/footfall_debug=1/.test(location.search)) footfall.debug = (what) => console.debug("footfall", what);
    for (const name of data.modules?.split(" ") ?? []) {
      const module = document.createElement("script");
      module.src = `${home}f-${name}.js`;
      document.head.append(module);
    }
    if ("notFound" in data) footfall("not_found");
    footfall.consent = (given) => (given ? core.begin_() : stop(0));
    const given = "consent" in data ? footfall.given : true;
    if (given !== undefined) footfall.consent(given);
  };

  const more: More = {
    keep_: rulesOf({}).kept,
    start_: () => {
      const page = document as Document & { prerendering?: boolean };
      if (!page.prerendering) return start();
      page.addEventListener("prerenderingchange", () => {
        // What was prerendered happens now.
        for (const event of core.queue_) event.at = Math.round(performance.now());
        start();
      });
    },
    drop_: drop,
    ready_: (settings) => {
      if (single) core.limit_(1);
      more.linger_ = undefined;
      if (settings) {
        if (settings.respect_dnt && objects()) {
          say("this browser asks not to be tracked");
          return stop(0);
        }
        const rules = rulesOf(settings);
        more.keep_ = rules.kept;
        tell = rules.tell;
        if (settings.hash_routes) watchHash();
      }
      // What happened before the first rules were known gets its numbers anew. Later ones hold for what comes.
      if (settings && !core.counts_.acked) for (const event of core.queue_.splice(0)) core.put_(event);
      const token = core.token_();
      if (store && token)
        restore(store, prefix, prefix + footfall.state().stream, {
          token,
          drop: (event) => !(event.u = tell(event.u) ?? ""),
          strip: (url) => strip(url, more.keep_),
          send: core.send_,
          lose: (count) => (core.counts_.evicted += count),
        });
    },
    hear_: (frame) => {
      if (frame === POLICY) stop(0);
      else if (typeof frame === "number") fault();
      else if (frame.t === "ack") {
        if (store) settleLeft(store, prefix, frame);
      } else if (frame.t === "slow") more.linger_ = frame.linger_ms;
      else if (frame.t === "stop") stop(frame.for_ms);
      else if (frame.t === "sample") {
        sampled = Object.fromEntries(frame.kinds.map((kind) => [kind, frame.drop_percent]));
        setTimeout(() => (sampled = {}), frame.for_ms);
      } else if (frame.t === "error") {
        if (/^(unknown_site|origin_denied)$/.test(frame.reason)) {
          say(`${frame.reason}: ${frame.detail}`);
          stop(0);
        } else if (footfall.state().transport === "none") core.down_();
        else fault();
      }
    },
    send_: (frame) => {
      const { stream, first, events } = JSON.parse(frame) as Batch;
      const src = `${core.address_("e.gif")}&b=${encodeURIComponent(frame)}`;
      if (events.length > PIXEL_EVENTS || src.length > PIXEL_ADDRESS) {
        // Cut smaller; alone and still too long, it cannot go this way.
        if (events.length > 1) core.limit_(events.length > PIXEL_EVENTS ? PIXEL_EVENTS : events.length >> 1);
        else {
          core.shift_(1);
          core.counts_.refused++;
        }
        core.release_();
        return core.flush_();
      }
      const image = new Image();
      // Which events were refused stands in a header that a page cannot read.
      image.onload = () => core.hear_({ t: "ack", stream, first, upto: first + events.length - 1 });
      image.onerror = () => core.down_();
      image.src = src;
    },
  };

  return more;
};
