// The connection to a dashboard node: subscribes, resumes, notices silence, comes back.

import { Backoff } from './backoff';
import { SUBPROTOCOL, parseFrame, subscribe, type ViewerErrorReason, type ViewerFrame } from './protocol';
import type { SiteState } from './state';

/** A node says something at least every few seconds; one that is silent for longer is taken for gone. */
export const SILENCE_MS = 15_000;
/** Closed by the page: not a node's code. */
const GIVEN_UP = 4_000;

export type Connection =
  | { phase: 'connecting' }
  | { phase: 'connected' }
  /** `since`: when the node was last heard, ms since 1970; 0: never. */
  | { phase: 'lost'; since: number }
  | { phase: 'refused'; reason: ViewerErrorReason; detail: string };

export interface Listener {
  connection(connection: Connection): void;
  /** The state took something over. */
  changed(): void;
  /** A frame with the node's clock (ms since 1970) came in. */
  heard(now: number): void;
  /** A connection failed; the session may have ended. */
  failed(): void;
}

export interface Surroundings {
  open(url: string, subprotocol: string): WebSocket;
  now(): number;
  random(): number;
}

const BROWSER: Surroundings = {
  open: (url, subprotocol) => new WebSocket(url, subprotocol),
  now: () => Date.now(),
  random: () => Math.random(),
};

export class LiveSocket {
  readonly #backoff: Backoff;
  #socket: WebSocket | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  #stopped = false;

  constructor(
    readonly url: string,
    readonly state: SiteState,
    readonly listener: Listener,
    readonly around: Surroundings = BROWSER,
  ) {
    this.#backoff = new Backoff(undefined, undefined, around.random);
  }

  start(): void {
    this.listener.connection({ phase: 'connecting' });
    this.#open();
  }

  /** Try now instead of at the end of the wait: the network is back, or the page is looked at again. */
  hurry(): void {
    if (this.#retry === undefined) return;
    this.#open();
  }

  stop(): void {
    this.#stopped = true;
    this.#drop();
  }

  #open(): void {
    this.#drop();
    let socket: WebSocket;
    try {
      socket = this.around.open(this.url, SUBPROTOCOL);
    } catch {
      this.#lost();
      return;
    }
    this.#socket = socket;
    this.#watch();
    socket.onopen = () => this.#subscribe();
    socket.onmessage = (message: MessageEvent<unknown>) => this.#frame(message.data);
    socket.onclose = () => this.#lost();
  }

  #subscribe(): void {
    this.#socket?.send(subscribe(this.state.site, this.state.resume));
    this.listener.connection({ phase: 'connected' });
  }

  #frame(data: unknown): void {
    const frame = typeof data === 'string' ? parseFrame(data) : null;
    if (!frame) {
      // Another version, or something between that rewrites frames: start anew, without what may be torn.
      this.state.awaitSnapshot();
      this.#lost();
      return;
    }
    this.#heardAt = this.around.now();
    this.#watch();
    if (frame.kind === 'error') {
      this.#refused(frame);
      return;
    }
    this.#backoff.reset();
    this.listener.heard(frame.now);
    if (frame.kind === 'heartbeat') return;
    switch (this.state.apply(frame)) {
      case 'applied':
        this.listener.changed();
        break;
      case 'gap':
        this.#socket?.send(subscribe(this.state.site, null));
        break;
      case 'ignored':
        break;
    }
  }

  /** Asking again would get the same answer: only a person can change it. */
  #refused(frame: Extract<ViewerFrame, { kind: 'error' }>): void {
    this.#drop();
    this.listener.connection({ phase: 'refused', reason: frame.reason, detail: frame.detail });
    this.listener.failed();
  }

  #lost(): void {
    if (this.#stopped) return;
    this.#drop();
    this.listener.connection({ phase: 'lost', since: this.#heardAt });
    this.listener.failed();
    this.#retry = setTimeout(() => this.#open(), this.#backoff.nextMs());
  }

  #watch(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  /** Lets go of the socket at once: the close handshake of a dead connection may take minutes. */
  #drop(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    this.#retry = undefined;
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(GIVEN_UP);
  }
}
