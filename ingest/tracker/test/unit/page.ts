/** The built files in a page that the test drives: its clock, its network, its storage, the node's part. */

import { readFileSync } from "node:fs";
import vm from "node:vm";
import type { Footfall, State } from "../../src/main";
import type { Batch, Here, ServerFrame, Settings } from "../../src/protocol";

const file = (name: string) => readFileSync(new URL(`../../dist/${name}`, import.meta.url), "utf8");

/** A WebSocket that the test plays the node's part of. */
export class Socket {
  onmessage?: (event: { data: string }) => void;
  onclose?: (event: { code: number }) => void;
  readonly sent: string[] = [];
  closed = false;
  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {}
  send(text: string): void {
    if (this.closed) throw new Error("sent on a closed socket");
    this.sent.push(text);
  }
  close(): void {
    this.closed = true;
  }
  says(frame: ServerFrame): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
  ends(code = 1006): void {
    this.closed = true;
    this.onclose?.({ code });
  }
  welcome(token = "tok", settings?: Settings): void {
    const limits = { batch_events: 256, batch_bytes: 65_536, idle_ms: 60_000 };
    this.says({ t: "welcome", token, node: "n", now: 0, limits, ...(settings && { settings }) });
  }
  /** Acks the last batch. */
  ack(refused?: { seq: number; reason: string; detail: string }[]): void {
    const { stream, first, events } = this.batches().at(-1)!;
    this.says({ t: "ack", stream, first, upto: first + events.length - 1, ...(refused && { refused }) });
  }
  frames(): (Batch | Here)[] {
    return this.sent.map((text) => JSON.parse(text) as Batch | Here);
  }
  batches(): Batch[] {
    return this.frames().filter((frame) => frame.t === "batch");
  }
}

/** A request that waits for the test to answer. */
export interface Request {
  url: string;
  batch: Batch;
  answer(frame: ServerFrame): Promise<void>;
  fail(): Promise<void>;
}

export interface PageOptions {
  /** Of the script tag, besides `data-site`. */
  dataset?: Record<string, string>;
  url?: string;
  referrer?: string;
  title?: string;
  storage?: Record<string, string>;
  /** Storage throws when it is touched, or when it is written. */
  forbidden?: "storage" | "writing";
  webdriver?: boolean;
  doNotTrack?: boolean;
  prerendering?: boolean;
  wallAt?: number;
  stub?: Partial<Footfall>;
  filesAreGone?: boolean;
  random?: () => number;
}

type Task = (event: Record<string, unknown>) => void;

let serial = 0;

const settled = async () => {
  for (let i = 0; i < 8; i++) await Promise.resolve();
};

export class Page {
  readonly sockets: Socket[] = [];
  readonly requests: Request[] = [];
  readonly beacons: Batch[] = [];
  readonly images: { src: string; onload?: () => void; onerror?: () => void }[] = [];
  readonly loaded: string[] = [];
  readonly said: string[] = [];
  beaconTakes = true;
  /** Files beside f.js cannot be loaded. */
  filesAreGone = false;
  socketsThrow = false;
  storage: Record<string, string>;
  clock = 0;
  readonly window: Record<string, unknown> & { footfall: Footfall };
  readonly document;
  readonly location: URL;
  scroll = { y: 0, height: 1000, of: 2000 };
  private timers: { at: number; task: () => void; every?: number; id: number }[] = [];
  private ids = 0;
  private listeners = new Map<string, Task[]>();
  private attention = true;

  constructor(options: PageOptions = {}) {
    const { dataset = {}, url = "https://shop.example/", wallAt = 1_800_000_000_000 } = options;
    this.storage = options.storage ?? {};
    this.filesAreGone = options.filesAreGone ?? false;
    this.location = new URL(url);
    const script = { src: "https://node.example/f.js", dataset: { site: "demo", ...dataset } };
    const listen = (type: string, task: Task) => this.listeners.set(type, [...(this.listeners.get(type) ?? []), task]);
    this.document = {
      currentScript: script,
      querySelector: () => script,
      hidden: false,
      title: options.title ?? "Shop",
      referrer: options.referrer ?? "",
      prerendering: options.prerendering,
      hasFocus: () => this.attention,
      documentElement: { get scrollHeight() { return 2000; } },
      createElement: () => ({}),
      head: { append: (element: { src: string; onload?: () => void; onerror?: () => void }) => this.load(element) },
      addEventListener: listen,
    };
    const navigator = {
      language: "en-GB",
      webdriver: options.webdriver ?? false,
      doNotTrack: options.doNotTrack ? "1" : null,
      sendBeacon: (_url: string, body: string) => {
        if (this.beaconTakes) this.beacons.push(JSON.parse(body) as Batch);
        return this.beaconTakes;
      },
    };
    const images = this.images;
    const opened = (socket: Socket) => {
      if (this.socketsThrow) throw new Error("forbidden");
      this.sockets.push(socket);
    };
    const time = () => wallAt + this.clock;
    // Names the stream.
    let isLoading = true;
    class DateNow extends Date {
      static override now = time;
    }
    const globals = {
      document: this.document,
      navigator,
      location: this.location,
      screen: { width: 1440 },
      innerHeight: 1000,
      performance: { now: () => this.clock },
      Date: DateNow,
      Math: Object.assign(Object.create(Math) as Math, { random: () => (isLoading ? (serial = (serial + 1) % 997) / 997 : (options.random?.() ?? 0.999)) }),
      history: {
        pushState: (_: unknown, __: string, to: string) => this.goes(to),
        replaceState: (_: unknown, __: string, to: string) => this.goes(to),
      },
      localStorage: this.store(options.forbidden),
      console: {
        info: (text: string) => this.said.push(text),
        warn: (text: string) => this.said.push(text),
        debug: (...what: unknown[]) => this.said.push(JSON.stringify(what)),
      },
      alert: (text: string) => this.said.push(text),
      setTimeout: (task: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => this.timer(() => task(...args), ms),
      setInterval: (task: () => void, ms: number) => this.timer(task, ms, ms),
      clearTimeout: (id: number) => (this.timers = this.timers.filter((timer) => timer.id !== id)),
      queueMicrotask,
      URL,
      WebSocket: class extends Socket {
        constructor(url: string, protocol: string) {
          super(url, protocol);
          opened(this);
        }
      },
      Image: function Image(this: never) {
        images.push(this);
      },
      fetch: (to: string, { body }: { body: string }) =>
        new Promise((resolve, reject) => {
          this.requests.push({
            url: to,
            batch: JSON.parse(body) as Batch,
            answer: (frame) => (resolve({ json: () => Promise.resolve(frame) }), settled()),
            fail: () => (reject(new TypeError("network")), settled()),
          });
        }),
      addEventListener: listen,
      ...(options.stub && { footfall: Object.assign(() => undefined, options.stub) }),
    };
    this.window = vm.createContext(globals) as Page["window"];
    Object.defineProperty(this.window, "scrollY", { get: () => this.scroll.y });
    this.window.window = this.window.self = this.window;
    if (options.forbidden === "storage")
      Object.defineProperty(this.window, "localStorage", { get: () => { throw new Error("forbidden"); } });
    vm.runInContext(file("f.js"), this.window);
    isLoading = false;
  }

  get socket(): Socket {
    return this.sockets.at(-1)!;
  }
  get request(): Request {
    return this.requests.at(-1)!;
  }
  state(): State {
    return this.window.footfall.state();
  }
  custom(name = "event", options?: Parameters<Footfall>[1]): void {
    this.window.footfall(name, options);
  }
  pass(ms: number): void {
    const until = this.clock + ms;
    for (;;) {
      const due = this.timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at || a.id - b.id)[0];
      if (!due) break;
      this.timers = this.timers.filter((timer) => timer !== due);
      this.clock = Math.max(this.clock, due.at);
      if (due.every) this.timers.push({ ...due, at: this.clock + due.every });
      due.task();
    }
    this.clock = until;
  }
  fires(type: string, event: Record<string, unknown> = {}): void {
    for (const task of this.listeners.get(type) ?? []) task({ type, ...event });
  }
  hides(): void {
    this.document.hidden = true;
    this.fires("visibilitychange");
  }
  leaves(): void {
    this.fires("pagehide");
    this.hides();
  }
  attends(attention: boolean): void {
    this.attention = attention;
    this.fires(attention ? "focus" : "blur");
  }
  pushes(to: string): void {
    (this.window.history as History).pushState(null, "", to);
  }
  private goes(to: string): void {
    this.location.href = new URL(to, this.location).href;
  }
  private timer(task: () => void, ms: number, every?: number): number {
    this.timers.push({ at: this.clock + Math.max(ms, 0), task, id: ++this.ids, ...(every && { every }) });
    return this.ids;
  }
  private load({ src, onload, onerror }: { src: string; onload?: () => void; onerror?: () => void }): void {
    const name = src.split("/").at(-1) as string;
    this.loaded.push(name);
    if (this.filesAreGone) return onerror?.();
    if (name !== "f-more.js") return;
    vm.runInContext(file(name), this.window);
    onload?.();
  }
  private store(forbidden?: string): Storage {
    const { storage } = this;
    return new Proxy(storage, {
      get: (_, key: string) => {
        if (key === "removeItem") return (name: string) => Reflect.deleteProperty(storage, name);
        if (key === "getItem") return (name: string) => storage[name] ?? null;
        return storage[key];
      },
      set: (_, key: string, value) => {
        if (forbidden === "writing") throw new Error("full");
        storage[key] = String(value);
        return true;
      },
    }) as unknown as Storage;
  }
}
