// Joins connection, state and frame into what the page's parts read. Parts read plain values that change once a frame.

import { roundTripMs } from '../api';
import { shell } from '../shell';
import { LatencyMeter, NodeClock, type Latency } from './clock';
import { EventFeed, NOTHING_SHOWN, type Shown } from './feed';
import type { Filter } from './filter';
import { Forward } from './forward';
import { Frame } from './frame';
import { LiveSocket, type Connection } from './socket';
import { SiteState } from './state';
import { ageOf, secondsOf, viewOf, type Age, type Seconds, type View } from './view';

/** The log's clock is let run on for so long between two updates, then the moving chart stands still. */
const RUN_ON_MS = 5_000;
/** Questions from whose quickest answer the way to the node is taken. */
const EXCHANGES = 3;
/** The list of events is drawn no more often: nobody reads faster. */
const FEED_MS = 250;

type Part = 'state' | 'feed' | 'tick';

export class Watch {
  view = $state.raw<View>() as View;
  seconds = $state.raw<Seconds>() as Seconds;
  age = $state.raw<Age>({ kind: 'waiting' });
  connection = $state.raw<Connection>({ phase: 'connecting' });
  events = $state.raw<Shown>(NOTHING_SHOWN);
  /** From an event's receipt to this screen. */
  latency = $state.raw<Latency | null>(null);
  /** The numbers of a node that is behind what is shown are not drawn yet. */
  held = $state(false);

  readonly #state: SiteState;
  readonly #socket: LiveSocket;
  readonly #frame: Frame<Part>;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #forward = new Forward();
  readonly #feed = new EventFeed();
  readonly #clock = new NodeClock(Date.now() - performance.now());
  readonly #meter = new LatencyMeter();
  #feedDue: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly site: string,
    readonly filter: Filter,
    onFailed: () => void,
  ) {
    this.#state = new SiteState(site, filter);
    this.#frame = new Frame((parts) => this.#draw(parts));
    this.view = viewOf(this.#state);
    this.seconds = secondsOf(this.#state, this.#now());
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const addresses = { socket: `${scheme}//${location.host}/live`, events: '/live/events', share: shell.share };
    this.#socket = new LiveSocket(addresses, this.#state, {
      connection: (connection) => this.#connected(connection),
      changed: () => this.#frame.mark('state'),
      heard: (now) => this.#clock.heard(now, performance.now()),
      events: (events) => {
        this.#feed.take(events);
        this.#feedDue ??= setTimeout(() => this.#feedNow(), FEED_MS);
      },
      failed: onFailed,
    });
    this.#timer = setInterval(() => this.#frame.mark('tick'), 1_000);
    addEventListener('online', this.#hurry);
    document.addEventListener('visibilitychange', this.#seen);
    this.#socket.start();
    void this.#measureWay();
  }

  /** Whether the events themselves are told. */
  feed(on: boolean): void {
    if (on) this.#feed.clear();
    this.#socket.feed(on);
    this.#feedNow();
  }

  /** The list of events stands still, or moves again. */
  hold(still: boolean): void {
    if (still) this.#feed.hold();
    else this.#feed.release();
    this.#feedNow();
  }

  stop(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#feedDue);
    removeEventListener('online', this.#hurry);
    document.removeEventListener('visibilitychange', this.#seen);
    this.#socket.stop();
  }

  #feedNow(): void {
    clearTimeout(this.#feedDue);
    this.#feedDue = undefined;
    this.#frame.mark('feed');
  }

  #hurry = () => this.#socket.hurry();

  #seen = () => {
    this.#frame.reschedule();
    if (!document.hidden) this.#socket.hurry();
  };

  #connected(connection: Connection): void {
    if (connection.phase === 'connected') this.#clock.reset();
    this.connection = connection;
    this.#frame.mark('tick');
  }

  async #measureWay(): Promise<void> {
    for (let n = 0; n < EXCHANGES; n += 1) {
      const ms = await roundTripMs();
      if (ms !== null) this.#clock.exchanged(ms);
    }
  }

  #now(): number {
    return this.#clock.now(performance.now());
  }

  #draw(parts: ReadonlySet<Part>): void {
    const at = performance.now();
    this.held = !this.#forward.mayShow(this.#state, at);
    if (parts.has('state') && !this.held) this.#show(at);
    if (parts.has('feed')) this.events = this.#feed.shown();
    const now = this.#now();
    this.age = ageOf(this.view, now);
    if (!this.held) this.seconds = secondsOf(this.#state, this.#edge(now));
    if (parts.has('tick')) this.latency = this.#meter.read(at);
  }

  #show(at: number): void {
    const before = this.view;
    this.view = viewOf(this.#state);
    // Of the first numbers the newest event may be old, and a hidden page is not drawn.
    const isNew = before.known && this.view.newest > before.newest;
    if (isNew && !document.hidden) this.#meter.add(this.#now() - this.view.newest, at);
  }

  /** Where the moving chart ends: it moves with time while numbers come, and stands still when they do not. */
  #edge(now: number): number {
    const clock = this.#state.freshness?.clock ?? 0;
    if (clock === 0 || this.age.kind === 'idle') return now;
    return Math.min(now, clock + RUN_ON_MS);
  }
}
