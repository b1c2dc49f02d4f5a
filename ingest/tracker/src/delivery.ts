/**
 * Moves events from the outbox to a node. Two connections in a row without a welcome lead a rung down: WebSocket, HTTP,
 * pixel. After a while on a lower rung WebSocket is tried again.
 *
 * Timers are not cancelled: each looks at what it finds.
 */

import { beside, data, now, safe, store, stream } from "./core";
import { copy, counts, flying, limit, most, put, queue, release, settle, shift, take } from "./outbox";
import { footfall, view } from "./page";
import { SUBPROTOCOL, type Ack, type Here, type Nack, type ServerFrame, type Settings, type TrackerEvent, type Welcome } from "./protocol";

const LINGER_MS = 150;
/** No welcome or no ack for this long, and up to twice as long: the connection is given up. */
const ANSWER_MS = 10_000;
const PROBE_MS = 60_000;
/** Until the other file is asked for again. */
const MORE_MS = 10_000;
const BACKOFF_MS = 500;
const BACKOFF_CAP_MS = 30_000;

interface Link {
  /** `frame` is a whole frame. */
  send(frame: string): void;
  close?(): void;
}

/** What `more.ts` works with. Names with an underscore at their end are one letter each in what is shipped. */
export interface Core {
  begin_: () => void;
  stop_: () => void;
  token_: () => string;
  address_: (path: string) => string;
  hear_: (frame: ServerFrame) => void;
  down_: () => void;
  send_: (frame: string) => void;
  flush_: () => void;
  view_: typeof view;
  put_: typeof put;
  queue_: typeof queue;
  counts_: typeof counts;
  limit_: typeof limit;
  shift_: typeof shift;
  release_: typeof release;
}

/** What is seldom needed: pixels, rules of the site, frames that hint or refuse, events of earlier page loads. */
export interface More {
  /** ms that events are gathered for. */
  linger_?: number | undefined;
  /** What stays of query and fragment. */
  keep_: RegExp;
  /** Begins, or says why not. */
  start_: () => void;
  /** Brings an event to the site's rules; true: it is not wanted. */
  drop_: (event: TrackerEvent) => boolean;
  /** A token is there. */
  ready_: (settings: Settings | undefined) => void;
  /** Also the code that a connection was closed with. */
  hear_: (frame: ServerFrame | number) => void;
  /** Sends a frame as a pixel. */
  send_: (frame: string) => void;
}

/** Key of what this page load leaves in storage. */
const own = `footfall:${data.site}:${stream}`;

export let more: More | undefined;
let link: Link | undefined;
/** 0: WebSocket, 1: HTTP, 2: pixel. */
let rung = 0;
/** Events may be sent. */
let live = false;
/** Not begun, or ended for this page load. */
let stopped = true;
let token = "";
let settings: Settings | undefined;
/** A flush is to come. */
let flushing: ReturnType<typeof setTimeout> | undefined;
let heard = false;
let attempts = 0;
/** Connections in a row that ended before a welcome. */
let misses = 0;
/** Wait at least this long before the next connection. */
let hint = 0;

export const state = (): string => (live ? (["ws", "http", "pixel"][rung] as string) : "none");

const address = (path: string) => `${beside(path)}?k=${data.site}&t=${token}`;

const close = () => {
  link?.close?.();
  link = undefined;
  live = false;
  release();
};

/** Brings storage up to date; whether the next page load will find there what is left. */
const save = (): boolean => {
  try {
    if (!store) return false;
    if (queue[0]) store[own] = JSON.stringify([Date.now(), now(), token, ...copy()]);
    else store.removeItem(own);
    return true;
  } catch {
    // None, full or forbidden.
    return false;
  }
};

/** Ends it for this page load, and forgets what is held. */
export const stop = (): void => {
  stopped = true;
  close();
  shift(queue.length);
  save();
};

const down = (code?: number) => {
  misses = live || rung > 1 ? 0 : misses + 1;
  close();
  // Policy, and frames that the node cannot take.
  if ((code as number) > 1006 && (code as number) < 1010) seldom(() => more?.hear_(code as number));
  // Full jitter; but WebSocket gives way to HTTP at once.
  setTimeout(open, Math.max(hint, misses === 2 ? 0 : Math.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** attempts++)));
  hint = 0;
};

const send = (frame: string) => {
  footfall.debug?.(frame);
  heard = true;
  link?.send(frame);
};

/** Sends what there is without lingering. */
export const flush = (): void => {
  flushing = undefined;
  // Over HTTP one at a time, or acks come out of order.
  while (live && queue[flying] && !((rung || most < 2) && flying)) send(take(most));
};

const flushIn = (ms: number) => {
  flushing = setTimeout(flush, ms);
};

/** Something was put into the outbox. */
export const kick = (): void => {
  if (!flushing) flushIn(more?.linger_ ?? LINGER_MS);
};

/** Which page is shown; told over WebSocket alone, where it lives as long as the connection. */
export const show = (): void => {
  if (live && !rung) send(JSON.stringify({ t: "here", path: location.pathname, visible: !document.hidden } satisfies Here));
};

/** Goes on when `more.ts` is there. */
export const seldom = (then: () => void): void => {
  if (more) return then();
  document.head.append(
    Object.assign(document.createElement("script"), {
      src: beside("f-more.js"),
      onload() {
        more = footfall.more?.({
          begin_: begin,
          stop_: stop,
          token_: () => token,
          address_: address,
          hear_: hear,
          down_: down,
          send_: send,
          flush_: flush,
          view_: view,
          put_: put,
          queue_: queue,
          counts_: counts,
          limit_: limit,
          shift_: shift,
          release_: release,
        });
        then();
      },
      // Without it the page may never begin.
      onerror: () => setTimeout(seldom, MORE_MS, then),
    }),
  );
};

/** A token is there. Until the site's settings hold, nothing is sent. */
const ready = () => {
  if (settings && !more) return seldom(ready);
  more?.ready_(settings);
  if (stopped) return;
  live = true;
  show();
  flush();
};

const isWelcome = (frame: ServerFrame): frame is Welcome => !!(frame as Welcome).limits;

const hear = safe((frame: ServerFrame) => {
  footfall.debug?.(frame);
  heard = true;
  const { retry_ms } = frame as Nack;
  if (retry_ms) {
    // A nack, or a node that is about to close.
    release();
    clearTimeout(flushing);
    flushIn((hint = retry_ms));
    if (!live) down();
  } else if (isWelcome(frame) || (frame as Ack).stream === stream) {
    const { token: renewed = token, settings: told = settings } = frame as Welcome | Ack;
    token = renewed;
    settings = told;
    if (isWelcome(frame)) {
      misses = 0;
      limit(frame.limits.batch_events);
    } else {
      attempts = 0;
      settle(frame as Ack);
      if (store?.[own]) save();
    }
    if (live) flush();
    else ready();
  } else seldom(() => more?.hear_(frame));
});

export const open = (): void => {
  if (link || stopped) return;
  release();
  rung = misses >> 1;
  try {
    if (rung) {
      const mine: Link = (link = {
        send: (body) =>
          void (rung > 1
            ? more?.send_(body)
            : // Text needs no preflight. An ack counts however late it comes.
              fetch(address("e"), { method: "POST", body })
                .then((response) => response.json() as Promise<ServerFrame>)
                .then(hear)
                .catch(() => link === mine && down())),
      });
      setTimeout(retry, PROBE_MS);
      if (rung > 1) seldom(ready);
      else if (token) ready();
      // A batch of nothing asks for a token.
      else send(take(0));
    } else {
      const socket = (link = new WebSocket(address("ws").replace("http", "ws"), SUBPROTOCOL));
      socket.onmessage = ({ data }) => hear(JSON.parse(data as string) as ServerFrame);
      // Where a policy forbids it, Chromium tells of an error and of no end.
      socket.onerror = socket.onclose = (event: Event) => link === socket && down((event as CloseEvent).code);
    }
  } catch {
    // A content security policy or an extension may forbid it.
    down();
  }
};

/** No reason to wait: WebSocket is tried at once. */
export const retry = (): void => {
  if (live && !rung) return;
  close();
  misses = attempts = hint = 0;
  open();
};

/**
 * The page goes away, perhaps for good. An event that goes without a token can never be recognised again, so it is not
 * sent a second time; kept for the next page load, it need not be sent that way.
 */
export const leave = (): void => {
  if (stopped) return;
  // Once more when it is hidden: what came since then goes.
  if (link) close();
  if (save() && !token) return;
  while (queue[flying] && navigator.sendBeacon(address("e"), take(most)));
  if (!token) shift(queue.length);
};

/** The page is hidden and may never run again. */
export const pause = (): void => {
  if (!link) return leave();
  flush();
  save();
};

export const begin = (): void => {
  stopped = false;
  open();
  setInterval(() => {
    if (link && !heard && (!live || flying)) down();
    heard = false;
  }, ANSWER_MS);
};
