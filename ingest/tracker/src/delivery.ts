import { dialHttp } from "./http";
import type { Link, Listener } from "./link";
import type { Entry, Outbox } from "./outbox";
import { batchFrame, type PageContext, type ServerFrame } from "./protocol";
import { dialSocket } from "./socket";

/** What delivery needs besides the network and the timers of the global scope. */
export interface Terms {
  stream: string;
  /** Origin of the node, and the query that names the site. */
  endpoint: string;
  query: string;
  ctx: PageContext;
  now: () => number;
  log: (...what: unknown[]) => void;
  /** Events that another page has taken over leave the outbox. */
  reclaim: () => void;
  /** Brings storage up to date, if anything is in it. */
  save: () => void;
}

/** Moves events from the outbox to a node: WebSocket first, HTTP when that fails twice, a beacon at the end. */
export interface Delivery {
  state(): "ws" | "http" | "none" | "stopped";
  open: () => void;
  /** The network is back: no reason to wait. */
  retry: () => void;
  /** Something was put into the outbox. */
  kick(): void;
  /** Sends what there is without lingering. */
  flush(): void;
  /** Which page is shown; told over WebSocket alone, where it lives as long as the connection. */
  show(here: string): void;
  /**
   * The page goes away, perhaps for good. `save` tells whether the next page load will find in storage what is left.
   * An event that goes without a token can never be recognised again, so it is not sent a second time.
   */
  leave(save: () => boolean): void;
}

type Timer = ReturnType<typeof setTimeout> | undefined;

const LINGER_MS = 150;
/** No welcome or no ack for this long: the connection is given up. */
const ANSWER_MS = 10_000;
/** On HTTP: WebSocket is tried again after this. */
const PROBE_MS = 60_000;
const BACKOFF_MS = 500;
const BACKOFF_CAP_MS = 30_000;
/** Of a node's limit for a batch, what is left to the fields around the events. */
const ENVELOPE_BYTES = 1_024;
/** Close codes of `schemas/src/refusal.rs`. */
const BAD_UTF8 = 1007;
const POLICY = 1008;
const TOO_BIG = 1009;
const TRY_LATER = 1013;

/** Full jitter: anything up to a bound that doubles with every attempt. `random` is 0 to 1. */
export const backoff = (attempt: number, random: number): number =>
  random * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** attempt);

export function createDelivery(outbox: Outbox, { stream, endpoint, query, ctx, now, log, reclaim, save }: Terms): Delivery {
  let link: Link | undefined;
  let overHttp = false;
  /** A token is there and events may be sent. */
  let live = false;
  /** Refused by the node: silent for the rest of the page's life. */
  let stopped = false;
  let token = "";
  let shown = "";
  let linger = LINGER_MS;
  let limits: [events?: number, bytes?: number] = [];
  let pausedUntil = 0;
  let attempts = 0;
  /** WebSockets in a row that ended before a welcome. */
  let misses = 0;
  /** Wait at least this long before the next connection. */
  let hint = 0;
  let flushing: Timer;
  let answer: Timer;
  let next: Timer;

  const httpUrl = `${endpoint}/e${query}`;

  const close = () => {
    link?.close();
    link = undefined;
    live = false;
    [flushing, answer, next].forEach(clearTimeout);
    flushing = undefined;
    outbox.release();
  };

  const stop = () => {
    stopped = true;
    close();
    save();
  };

  /** A node cannot say which batch it could not read. */
  const fault = () => {
    const given = outbox.fault();
    if (given) log("given up", given);
    if (!outbox.list().length) save();
  };

  const down = (code: number) => {
    const missed = !live && !overHttp;
    if (code === BAD_UTF8 || code === TOO_BIG) fault();
    close();
    log("down", code);
    if (code === POLICY) return stop();
    if (code === TRY_LATER) attempts = Math.max(attempts, 4);
    if (overHttp) misses = 1;
    else if (missed) misses++;
    next = setTimeout(open, missed && misses === 2 ? 0 : Math.max(hint, backoff(attempts++, Math.random())));
    hint = 0;
  };

  const expectAnswer = () => {
    clearTimeout(answer);
    if (link && (!live || outbox.flying().length)) answer = setTimeout(down, ANSWER_MS, 0);
  };

  /** A batch of nothing asks for a token. */
  const frameOf = (run: Entry[]) => {
    const head = run[0] ?? { stream, seq: 1, token: "" };
    // Over WebSocket the connection's token need not be repeated.
    const named = live && !overHttp && head.token === token ? "" : head.token;
    const events = run.map((entry) => entry.json);
    return batchFrame(head.stream, head.seq, now(), named, ctx, outbox.report(), events);
  };

  /** Over HTTP because browsers cap what keepalive requests may carry together. */
  const oneByOne = () => overHttp || outbox.suspect();

  const flush = () => {
    clearTimeout(flushing);
    flushing = undefined;
    if (!live) return;
    if (pausedUntil > now()) return kick();
    const idle = !outbox.flying().length;
    while (!oneByOne() || !outbox.flying().length) {
      const run = outbox.take(token, ...limits);
      if (!run.length) break;
      log("send", run);
      link?.send(frameOf(run));
    }
    if (idle) expectAnswer();
  };

  const kick = () => {
    if (live && !flushing) flushing = setTimeout(flush, Math.max(linger, pausedUntil - now()));
  };

  const show = (here: string) => {
    shown = here;
    if (here && live && !overHttp) link?.send(here);
  };

  const ready = () => {
    live = true;
    reclaim();
    outbox.stamp(token);
    save();
    show(shown);
    flush();
    expectAnswer();
  };

  const settle = (of: string, first: number, upto: number, refused: number) => {
    const waiting = oneByOne();
    outbox.settle(of, first, upto, refused);
    if (!outbox.list().length) save();
    if (!live) ready();
    else if (waiting) flush();
    expectAnswer();
  };

  const frame = (frame: ServerFrame) => {
    log("got", frame);
    if (frame.t === "welcome") {
      token = frame.token;
      misses = 0;
      limits = [frame.limits.batch_events, frame.limits.batch_bytes - ENVELOPE_BYTES];
      ready();
    } else if (frame.t === "ack") {
      token = frame.token ?? token;
      attempts = 0;
      settle(frame.stream, frame.first, frame.upto, frame.refused?.length ?? 0);
    } else if (frame.t === "nack") {
      hint = frame.retry_ms;
      pausedUntil = now() + hint;
      outbox.release(frame.stream, frame.first, frame.upto);
      if (!live) return down(0);
      expectAnswer();
      kick();
    } else if (frame.t === "slow") {
      linger = frame.linger_ms;
    } else if (frame.t === "bye") {
      hint = frame.retry_ms;
    } else if (frame.t === "stop" || (frame.t === "error" && (frame.reason === "unknown_site" || frame.reason === "origin_denied"))) {
      outbox.shut();
      stop();
    } else if (frame.t === "error") {
      if (!live) {
        down(0);
      } else {
        fault();
        expectAnswer();
        kick();
      }
    }
  };

  const listener: Listener = { frame, down };

  const open = () => {
    if (link || stopped) return;
    clearTimeout(next);
    limits = [];
    linger = LINGER_MS;
    overHttp = misses > 1;
    try {
      if (!overHttp) {
        link = dialSocket(
          `${endpoint.replace("http", "ws")}/ws${query}${token && `&t=${encodeURIComponent(token)}`}`,
          listener,
        );
      } else {
        link = dialHttp(httpUrl, listener);
        next = setTimeout(() => {
          close();
          misses = 1;
          open();
        }, PROBE_MS);
        if (token) return ready();
        link.send(frameOf([]));
      }
      expectAnswer();
    } catch {
      // A content security policy or an extension may forbid it.
      down(0);
    }
  };

  return {
    state: () => (live ? (overHttp ? "http" : "ws") : stopped ? "stopped" : "none"),
    open,
    retry() {
      if (live) return;
      close();
      misses = attempts = hint = 0;
      open();
    },
    kick,
    flush,
    show,
    leave(save) {
      close();
      outbox.stamp(token);
      const kept = save();
      if (stopped || (kept && !token)) return;
      for (;;) {
        const run = outbox.take(token);
        if (!run.length) break;
        const gone = navigator.sendBeacon(httpUrl, frameOf(run));
        log("beacon", gone, run);
        if (!gone) break;
        if (!token) outbox.remove((entry) => run.includes(entry));
      }
      outbox.release();
    },
  };
}
