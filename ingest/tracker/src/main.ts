/** Reads the script tag, wires the parts and answers to `footfall(…)`. */

import { newStream, now } from "./clock";
import { createDelivery } from "./delivery";
import { createKeep, type Keep } from "./keep";
import { createOutbox, type Counts } from "./outbox";
import { watchPage } from "./page";
import { MAX_EVENT_BYTES, type Here, type PropValue, type TrackerEvent } from "./protocol";
import { bytesOf } from "./text";

export interface State extends Counts {
  transport: "ws" | "http" | "none" | "stopped";
  /** Events that are not settled. */
  pending: number;
  stream: string;
}

export interface Footfall {
  (name: string, options?: { props?: Record<string, PropValue> }): void;
  /** Calls made before this file was loaded. */
  q?: Parameters<Footfall>[];
  debug?: boolean;
  state(): State;
}

declare global {
  interface Window {
    footfall?: Footfall;
  }
}

function start(site: string, endpoint: string, withStorage: boolean): void {
  const stream = newStream();
  const outbox = createOutbox();
  let keep: Keep | undefined;
  let seq = 0;

  const log = (...what: unknown[]) => {
    if (footfall.debug) console.debug("footfall", ...what);
  };
  const safe =
    <A extends unknown[]>(task: (...args: A) => void) =>
    (...args: A) => {
      try {
        task(...args);
      } catch (error) {
        log(error);
      }
    };
  const save = (claimed: number) => {
    try {
      keep?.save(now(), Date.now(), claimed);
      return !!keep;
    } catch (error) {
      log(error);
      return false;
    }
  };

  const delivery = createDelivery(outbox, {
    stream,
    endpoint,
    query: `?k=${site}`,
    ctx: { w: screen.width, l: navigator.language, z: Intl.DateTimeFormat().resolvedOptions().timeZone },
    now,
    log,
    reclaim: () => keep?.reclaim(),
    save: () => keep?.reclaim() && save(Date.now()),
  });

  const track = ({ k, ...rest }: Omit<TrackerEvent, "at">) => {
    const at = now();
    const json = JSON.stringify({ k, at, ...rest });
    const size = bytesOf(json);
    if (size > MAX_EVENT_BYTES) {
      outbox.counts.refused++;
      log("too large", json);
    } else {
      outbox.add({ stream, seq: ++seq, token: "", at, json, size });
      delivery.kick();
    }
    return seq;
  };

  const { q = [], debug = location.search.includes("footfall_debug=1") } = window.footfall ?? {};
  const footfall = safe((name: string, options?: { props?: Record<string, PropValue> }) =>
    custom(name, options?.props),
  ) as Footfall;
  footfall.debug = debug;
  footfall.state = () => ({
    transport: delivery.state(),
    pending: outbox.list().length,
    stream,
    ...outbox.counts,
  });
  window.footfall = footfall;

  if (withStorage)
    safe(() => {
      keep = createKeep(localStorage, `footfall:${site}:`, stream, outbox);
      keep.restore(now(), Date.now());
    })();
  const custom = watchPage({
    now,
    track,
    show: (path, visible) => delivery.show(JSON.stringify({ t: "here", path, visible } satisfies Here)),
    hidden() {
      delivery.flush();
      if (outbox.list().length) save(0);
    },
    left: () => delivery.leave(() => save(0)),
    back: delivery.open,
    safe,
  });
  window.addEventListener("online", safe(delivery.retry));
  for (const call of q) footfall(...call);
  delivery.open();
}

const script = document.currentScript as HTMLScriptElement | null;
const { site, endpoint, storage } = script?.dataset ?? {};
const begin = () => {
  try {
    // Loaded twice: the first one counts.
    if (script && site && !window.footfall?.state)
      start(site, endpoint ?? new URL(script.src).origin, storage !== "none");
  } catch (error) {
    console.warn("footfall:", error);
  }
};
if (!site) console.warn("footfall: the script tag needs data-site");
if ((document as Document & { prerendering?: boolean }).prerendering)
  document.addEventListener("prerenderingchange", begin, { once: true });
else begin();
