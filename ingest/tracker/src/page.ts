import { createEngagement } from "./engagement";
import type { TrackerEvent } from "./protocol";
import { clip } from "./text";

const MAX_URL_BYTES = 2_048;
const MAX_TITLE_BYTES = 512;

/** What the page tells the tracker. */
export interface Watcher {
  now: () => number;
  /** Numbers an event and puts it into the outbox; its sequence. */
  track: (event: Omit<TrackerEvent, "at">) => number;
  show: (path: string, visible: boolean) => void;
  /** The page is hidden: it may never run again. */
  hidden: () => void;
  /** The page is unloaded or put into the back/forward cache. */
  left: () => void;
  /** The page came back from the back/forward cache. */
  back: () => void;
  /** Errors of ours must not reach the page. */
  safe: <A extends unknown[]>(task: (...args: A) => void) => (...args: A) => void;
}

/** Watches views, routes, attention and scrolling. Answers with what tracks a custom event. */
export function watchPage({ now, track, show, hidden, left, back, safe }: Watcher): (name: string, props: TrackerEvent["p"]) => void {
  const doc = document;
  let view = 0;
  let url = "";
  let title: string;
  let referrer = doc.referrer;
  let path: string;
  let search: string;
  let engagement = createEngagement();

  const on = (target: EventTarget, type: string, task: (event: Event) => void) =>
    target.addEventListener(type, safe(task), { passive: true });
  const attend = () => engagement.attend(!doc.hidden && doc.hasFocus(), now());
  const scrolled = () => engagement.scrolled((100 * (scrollY + innerHeight)) / doc.documentElement.scrollHeight);
  const tell = () => show(path, !doc.hidden);

  const report = () => {
    scrolled();
    const engaged = engagement.take(now());
    if (engaged) track({ k: "engagement", u: url, ...engaged, pv: view });
  };

  const shown = (route?: boolean) => {
    ({ pathname: path, search } = location);
    url = clip(location.href.split("#")[0] as string, MAX_URL_BYTES);
    // Most frameworks set the title after the route: an unchanged one is the last page's.
    const t = route && title === doc.title ? undefined : clip(doc.title, MAX_TITLE_BYTES);
    ({ title } = doc);
    view = track({ k: "view", u: url, r: clip(referrer, MAX_URL_BYTES) || undefined, t });
    referrer = url;
    engagement = createEngagement();
    attend();
    tell();
  };

  /** A changed path is a view; a changed query is one unless it was replaced. */
  const follow = safe((replaced: boolean) => {
    if (path === location.pathname && (replaced || search === location.search)) {
      ({ search } = location);
      return;
    }
    report();
    shown(true);
  });

  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name].bind(history);
    history[name] = (...args) => {
      original(...args);
      follow(name > "r");
    };
  }
  on(window, "popstate", () => follow(false));
  on(window, "focus", attend);
  on(window, "blur", attend);
  on(window, "scroll", scrolled);
  on(doc, "visibilitychange", () => {
    attend();
    tell();
    if (doc.hidden) {
      report();
      hidden();
    }
  });
  on(window, "pagehide", () => {
    report();
    engagement.attend(false, now());
    left();
  });
  on(window, "pageshow", (event) => {
    if ((event as PageTransitionEvent).persisted) {
      shown();
      back();
    }
  });
  shown();
  return (name, props) => void track({ k: "custom", u: url, n: name, p: props, pv: view });
}
