// The connection to a dashboard node: subscribes, resumes, notices silence, comes back. When a WebSocket fails three times
// in a row it goes on with server-sent events, and tries a WebSocket beside them now and then.

import { Backoff } from './backoff';
import { BROWSER_OPENERS, openEvents, openSocket, type Channel, type Openers } from './channel';
import { isEmpty } from './filter';
import { feed, parseFrame, plain, subscribe, type Events, type ViewerErrorReason, type ViewerFrame } from './protocol';
import type { SiteState } from './state';

/** A node says something at least every few seconds; one that is silent for longer is taken for gone. */
export const SILENCE_MS = 15_000;
/** So many WebSockets in a row that brought nothing. */
export const FAILED_SOCKETS = 3;
/** While server-sent events serve: until the next try of a WebSocket; the last holds on. */
export const PROBE_MS = [5_000, 30_000, 120_000] as const;

/** A node ends a stream every few minutes, and the browser comes back: until then nothing is lost. */
export const INTERRUPTED_MS = 3_000;

export type Connection =
  | { phase: 'connecting' }
  | { phase: 'connected'; via: Channel['kind'] }
  /** `since`: when the node was last heard, ms since 1970; 0: never. */
  | { phase: 'lost'; since: number }
  | { phase: 'refused'; reason: ViewerErrorReason; detail: string };

export interface Listener {
  connection(connection: Connection): void;
  /** The state took something over. */
  changed(): void;
  /** A frame with the node's clock (ms since 1970) came in. */
  heard(now: number): void;
  events(events: Events): void;
  /** A connection failed; the session may have ended. */
  failed(): void;
}

export interface Addresses {
  /** Of `/live`, with `ws:` or `wss:`. */
  socket: string;
  /** Of `/live/events`. */
  events: string;
  /** Token of a share link. */
  share: string | null;
}

export interface Surroundings extends Openers {
  now(): number;
  random(): number;
}

const BROWSER: Surroundings = { ...BROWSER_OPENERS, now: () => Date.now(), random: () => Math.random() };

export class LiveSocket {
  readonly #backoff: Backoff;
  #channel: Channel | null = null;
  /** A WebSocket that is tried while server-sent events serve. */
  #probe: Channel | null = null;
  #probes = 0;
  #probing: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #failedSockets = 0;
  #lastTried: Channel['kind'] = 'events';
  /** A stream has ended, and its next is due. */
  #missed: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  #isOpen = false;
  /** The channel brought a frame. */
  #serves = false;
  #feedOn = false;
  #stopped = false;

  constructor(
    readonly addresses: Addresses,
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

  /** Starts or stops the events themselves. A stream is asked anew for them. */
  feed(on: boolean): void {
    if (on === this.#feedOn) return;
    this.#feedOn = on;
    if (!this.#isOpen) return;
    if (this.#channel?.kind === 'events') this.#open('events');
    else this.#channel?.send(feed(on));
  }

  stop(): void {
    this.#stopped = true;
    this.#drop();
  }

  #open(kind = this.#nextKind()): void {
    this.#drop();
    this.#lastTried = kind;
    const on = {
      opened: () => this.#opened(),
      frame: (text: unknown) => this.#frame(text),
      closed: (retries: boolean) => (retries ? this.#interrupted() : this.#lost()),
    };
    try {
      this.#channel = kind === 'events' ? openEvents(this.#eventsUrl(), this.around, on) : openSocket(this.#socketUrl(), this.around, on);
    } catch {
      this.#lost();
      return;
    }
    this.#watch();
  }

  /** Once WebSockets have failed, both in turn until one serves. */
  #nextKind(): Channel['kind'] {
    return this.#failedSockets >= FAILED_SOCKETS && this.#lastTried === 'socket' ? 'events' : 'socket';
  }

  #opened(): void {
    const channel = this.#channel;
    if (!channel) return;
    clearTimeout(this.#missed);
    this.#isOpen = true;
    channel.send(subscribe(this.state.site, this.state.filter, this.state.resume));
    if (this.#feedOn) channel.send(feed(true));
    if (channel.kind === 'events' && this.#probing === undefined) this.#probeLater();
    this.listener.connection({ phase: 'connected', via: channel.kind });
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
    this.#serves = true;
    if (this.#channel?.kind === 'socket') this.#failedSockets = 0;
    if (frame.kind === 'events') {
      if (frame.site === this.state.site) this.listener.events(frame);
      return;
    }
    this.listener.heard(frame.now);
    if (frame.kind === 'heartbeat') return;
    switch (this.state.apply(frame)) {
      case 'applied':
        this.listener.changed();
        break;
      case 'gap':
        // Server-sent events can only be asked anew.
        if (this.#channel?.kind === 'events') this.#lost();
        else this.#channel?.send(subscribe(this.state.site, this.state.filter, null));
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

  /** The browser tries again by itself, and tells the node what it had; if that brings nothing, silence ends it. */
  #interrupted(): void {
    if (!this.#isOpen) {
      this.#lost();
      return;
    }
    this.#isOpen = false;
    clearTimeout(this.#missed);
    this.#missed = setTimeout(() => {
      this.listener.connection({ phase: 'lost', since: this.#heardAt });
      this.listener.failed();
    }, INTERRUPTED_MS);
  }

  #lost(): void {
    if (this.#stopped) return;
    if (this.#lastTried === 'socket' && !this.#serves) this.#failedSockets += 1;
    this.#drop();
    this.listener.connection({ phase: 'lost', since: this.#heardAt });
    this.listener.failed();
    this.#retry = setTimeout(() => this.#open(), this.#backoff.nextMs());
  }

  #watch(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #probeLater(): void {
    const wait = PROBE_MS[Math.min(this.#probes, PROBE_MS.length - 1)] ?? 0;
    this.#probes += 1;
    this.#probing = setTimeout(() => this.#tryProbe(), wait);
  }

  #tryProbe(): void {
    const failed = () => {
      clearTimeout(this.#probing);
      this.#probe?.close();
      this.#probe = null;
      this.#probeLater();
    };
    let heard = false;
    this.#probing = setTimeout(failed, SILENCE_MS);
    try {
      this.#probe = openSocket(this.#socketUrl(), this.around, {
        // Taken over with its first frame only: what lets the upgrade through may still swallow the frames.
        opened: () => this.#probe?.send(subscribe(this.state.site, this.state.filter, null)),
        frame: (text) => {
          if (!heard) this.#takeOver();
          heard = true;
          this.#frame(text);
        },
        closed: () => (heard ? this.#lost() : failed()),
      });
    } catch {
      failed();
    }
  }

  #takeOver(): void {
    const probe = this.#probe;
    this.#probe = null;
    this.#drop();
    this.#channel = probe;
    this.#lastTried = 'socket';
    this.#isOpen = true;
    this.#probes = 0;
    // What server-sent events told is behind the snapshot that comes, or the same.
    this.state.awaitSnapshot();
    if (this.#feedOn) probe?.send(feed(true));
    this.listener.connection({ phase: 'connected', via: 'socket' });
  }

  #drop(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    clearTimeout(this.#probing);
    clearTimeout(this.#missed);
    this.#retry = this.#probing = undefined;
    this.#isOpen = this.#serves = false;
    this.#channel?.close();
    this.#channel = null;
    this.#probe?.close();
    this.#probe = null;
  }

  #socketUrl(): string {
    const { socket, share } = this.addresses;
    return share === null ? socket : `${socket}?share=${encodeURIComponent(share)}`;
  }

  #eventsUrl(): string {
    const { events, share } = this.addresses;
    const query = new URLSearchParams({ site: this.state.site });
    if (!isEmpty(this.state.filter)) query.set('filter', JSON.stringify(plain(this.state.filter)));
    if (this.#feedOn) query.set('feed', 'true');
    if (share !== null) query.set('share', share);
    return `${events}?${query.toString()}`;
  }
}
