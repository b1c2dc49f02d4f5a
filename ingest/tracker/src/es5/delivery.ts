/** One batch at a time: over XHR, and when that failed twice as an image, in turns until one of them works. */

import { MAX_BATCH_BYTES, MAX_BATCH_EVENTS, type PageContext, type ServerFrame } from "../protocol";
import { canPost, maxAddress, pixel, post } from "./carry";
import { now } from "./clock";
import type { Entry, Queue } from "./queue";

const LINGER_MS = 150;
const BACKOFF_MS = 500;
const BACKOFF_CAP_MS = 30_000;
const PIXEL_EVENTS = 16;

export interface Delivery {
  state: () => "http" | "pixel" | "none" | "stopped";
  kick: () => void;
  /** The page ends. */
  leave: () => void;
}

export function createDelivery(queue: Queue, stream: string, endpoint: string, site: string, ctx: PageContext): Delivery {
  let token = "";
  let busy = false;
  let stopped = false;
  /** Failures in a row; of four, the first two are XHR's and the other two the images'. */
  let misses = canPost(endpoint) ? 0 : 2;
  let attempts = 0;
  /** How many events a batch may have; one, while a refused batch is taken apart. */
  let most = MAX_BATCH_EVENTS;
  let timer: number | undefined;

  const overPixel = () => misses % 4 > 1 || !canPost(endpoint);
  const query = () => "?k=" + encodeURIComponent(site);
  const batchOf = (run: Entry[]) =>
    JSON.stringify({
      t: "batch",
      stream: run[0]?.stream ?? stream,
      first: run[0]?.seq ?? 1,
      sent: now(),
      token: (run[0]?.token ?? token) || undefined,
      ctx,
      evicted: queue.evicted || undefined,
      events: run.map((entry) => entry.event),
    });
  const imageOf = (run: Entry[]) => endpoint + "/e.gif" + query() + "&b=" + encodeURIComponent(batchOf(run));

  const wait = (ms: number) => {
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      timer = undefined;
      next();
    }, ms);
  };
  /** Full jitter: anything up to a bound that doubles with every attempt. */
  const retry = (atLeast: number) => wait(Math.max(atLeast, Math.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * Math.pow(2, attempts++))));
  const kick = () => {
    if (stopped) queue.entries = [];
    if (timer === undefined && !stopped) wait(LINGER_MS);
  };
  const forget = (run: Entry[]) => {
    for (const { stream, seq } of run) queue.remove(stream, seq, seq);
  };
  const settled = (evicted: number) => {
    attempts = 0;
    queue.evicted -= evicted;
    if (queue.entries.length) wait(0);
  };

  const heard = (frame: ServerFrame | undefined, status: number, run: Entry[], evicted: number) => {
    if (frame?.t === "ack") {
      misses = 0;
      token = frame.token ?? token;
      queue.refused += frame.refused?.length ?? 0;
      queue.remove(frame.stream, frame.first, frame.upto);
      if (run.length) most = MAX_BATCH_EVENTS;
      return settled(evicted);
    }
    const reason = frame && "reason" in frame ? frame.reason : "";
    if (frame?.t === "stop" || reason === "unknown_site" || reason === "origin_denied") {
      stopped = true;
      queue.entries = [];
      queue.save();
    } else if (frame?.t === "nack") {
      retry(frame.retry_ms);
    } else if (frame?.t === "error" && status !== 408) {
      // Refused whole. Alone it is known which event was at fault, and that one is given up.
      if (most === 1) {
        forget(run);
        queue.refused += run.length;
      }
      most = 1;
      retry(0);
    } else {
      misses++;
      retry(0);
    }
  };

  const sendImage = () => {
    let run = queue.head(token, PIXEL_EVENTS, maxAddress());
    while (run.length > 1 && imageOf(run).length > maxAddress()) run = run.slice(0, -1);
    if (imageOf(run).length > maxAddress()) {
      // Nothing on this way can carry it, and it would hold up all others.
      forget(run);
      queue.evicted++;
      return wait(0);
    }
    const { evicted } = queue;
    const address = imageOf(run);
    for (const entry of run) entry.token = entry.token ?? token;
    busy = true;
    pixel(address, (taken) => {
      busy = false;
      if (!taken) {
        misses++;
        return retry(0);
      }
      misses = 2;
      forget(run);
      settled(evicted);
    });
  };

  const sendRequest = () => {
    const run = token ? queue.head(token, most, MAX_BATCH_BYTES) : [];
    const { evicted } = queue;
    const body = batchOf(run);
    for (const entry of run) entry.token = entry.token ?? token;
    busy = true;
    try {
      post(endpoint + "/e" + query(), body, (frame, status) => {
        busy = false;
        heard(frame, status, run, evicted);
      });
    } catch {
      // A policy or an extension may forbid it.
      busy = false;
      misses++;
      retry(0);
    }
  };

  const next = () => {
    if (busy || stopped || !queue.entries.length) return;
    if (overPixel()) sendImage();
    else sendRequest();
  };

  return {
    state: () => (stopped ? "stopped" : overPixel() ? "pixel" : token ? "http" : "none"),
    kick,
    leave() {
      // Without storage an image is the last chance; it often leaves with the page.
      if (!queue.save() && queue.entries.length && !stopped) sendImage();
    },
  };
}
