// Joins socket, state and frame into what the page's parts read. Parts read plain values that change once a frame.

import { Frame } from './frame';
import { LiveSocket, type Connection } from './socket';
import { SiteState } from './state';
import { ageOf, secondsOf, viewOf, type Age, type Seconds, type View } from './view';

/** The log's clock is let run on for so long between two updates, then the moving chart stands still. */
const RUN_ON_MS = 5_000;

export class Watch {
  view = $state.raw<View>() as View;
  seconds = $state.raw<Seconds>() as Seconds;
  age = $state.raw<Age>({ kind: 'waiting' });
  connection = $state.raw<Connection>({ phase: 'connecting' });

  readonly #state: SiteState;
  readonly #socket: LiveSocket;
  readonly #frame: Frame<'state' | 'tick'>;
  readonly #timer: ReturnType<typeof setInterval>;
  /** The node's clock less this page's monotonic one, ms. */
  #offset = Date.now() - performance.now();

  constructor(site: string, onFailed: () => void) {
    this.#state = new SiteState(site);
    this.#frame = new Frame((parts) => this.#draw(parts));
    this.view = viewOf(this.#state);
    this.seconds = secondsOf(this.#state, this.#now());
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    this.#socket = new LiveSocket(`${scheme}//${location.host}/live`, this.#state, {
      connection: (connection) => {
        this.connection = connection;
        this.#frame.mark('tick');
      },
      changed: () => this.#frame.mark('state'),
      heard: (now) => (this.#offset = now - performance.now()),
      failed: onFailed,
    });
    this.#timer = setInterval(() => this.#frame.mark('tick'), 1_000);
    addEventListener('online', this.#hurry);
    document.addEventListener('visibilitychange', this.#seen);
    this.#socket.start();
  }

  stop(): void {
    clearInterval(this.#timer);
    removeEventListener('online', this.#hurry);
    document.removeEventListener('visibilitychange', this.#seen);
    this.#socket.stop();
  }

  #hurry = () => this.#socket.hurry();

  #seen = () => {
    this.#frame.reschedule();
    if (!document.hidden) this.#socket.hurry();
  };

  #now(): number {
    return performance.now() + this.#offset;
  }

  #draw(parts: ReadonlySet<'state' | 'tick'>): void {
    if (parts.has('state')) this.view = viewOf(this.#state);
    const now = this.#now();
    this.age = ageOf(this.#state, now);
    this.seconds = secondsOf(this.#state, this.#edge(now));
  }

  /** Where the moving chart ends: it moves with time while numbers come, and stands still when they do not. */
  #edge(now: number): number {
    const clock = this.#state.freshness?.clock ?? 0;
    if (clock === 0 || this.age.kind === 'idle') return now;
    return Math.min(now, clock + RUN_ON_MS);
  }
}
