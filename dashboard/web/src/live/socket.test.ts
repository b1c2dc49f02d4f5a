import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Backoff } from './backoff';
import { NO_FILTER, type Filter } from './filter';
import { INTERRUPTED_MS, LiveSocket, PROBE_MS, SILENCE_MS, type Connection } from './socket';
import { SiteState } from './state';

class FakeSocket {
  sent: unknown[] = [];
  closed: number | undefined;
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  close(code: number): void {
    this.closed = code;
  }
  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

class FakeEvents {
  readyState = 1;
  isClosed = false;
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onerror: (() => void) | null = null;

  close(): void {
    this.isClosed = true;
  }
  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

function watching({ filter = NO_FILTER, share = null }: { filter?: Filter; share?: string | null } = {}) {
  const sockets: FakeSocket[] = [];
  const phases: Connection[] = [];
  const state = new SiteState('demo', filter);
  const urls: string[] = [];
  const streams: FakeEvents[] = [];
  let changes = 0;
  let failures = 0;
  const listener = {
    connection: (connection: Connection) => phases.push(connection),
    changed: () => (changes += 1),
    heard: () => undefined,
    events: () => undefined,
    failed: () => (failures += 1),
  };
  const around = {
    socket: (url: string, subprotocol: string) => {
      urls.push(url);
      expect(subprotocol).toBe('footfall-live.v1');
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    events: (url: string) => {
      urls.push(url);
      const stream = new FakeEvents();
      streams.push(stream);
      return stream as unknown as EventSource;
    },
    now: () => Date.now(),
    random: () => 0.999,
  };
  const socket = new LiveSocket({ socket: 'ws://localhost/live', events: '/live/events', share }, state, listener, around);
  socket.start();
  const last = () => sockets.at(-1)!;
  return { socket, sockets, streams, urls, phases, last, state, changes: () => changes, failures: () => failures };
}

const snapshot = (seq: number) => ({ t: 'snapshot', site: 'demo', epoch: 1, seq, now: 1, live: {} });
const delta = (seq: number, epoch = 1) => ({ t: 'delta', site: 'demo', epoch, seq, now: 1, live: {} });

beforeEach(() => void vi.useFakeTimers({ now: 1_800_000_000_000 }));
afterEach(() => void vi.useRealTimers());

describe('a page that watches', () => {
  it('subscribes, and says so', () => {
    const { last, phases, changes } = watching();
    last().onopen?.();
    expect(last().sent).toEqual([{ t: 'subscribe', site: 'demo' }]);
    last().say(snapshot(1));
    expect(phases.map(({ phase }) => phase)).toEqual(['connecting', 'connected']);
    expect(changes()).toBe(1);
  });

  it('comes back by itself and resumes where it was', () => {
    const { last, sockets, phases } = watching();
    last().onopen?.();
    last().say(snapshot(7));
    last().onclose?.();
    expect(phases.at(-1)).toEqual({ phase: 'lost', since: Date.now() });
    vi.advanceTimersByTime(250);
    expect(sockets).toHaveLength(2);
    last().onopen?.();
    expect(last().sent).toEqual([{ t: 'subscribe', site: 'demo', resume: { epoch: 1, seq: 7 } }]);
    expect(phases.at(-1)).toEqual({ phase: 'connected', via: 'socket' });
  });

  it.each([
    ['a gap', delta(9)],
    ['another epoch', delta(8, 2)],
  ])('asks for a snapshot after %s, once', (_, torn) => {
    const { last } = watching();
    last().onopen?.();
    last().say(snapshot(7));
    last().say(torn);
    last().say(delta(10));
    expect(last().sent.slice(1)).toEqual([{ t: 'subscribe', site: 'demo' }]);
  });

  it('takes a silent node for gone and a talking one not', () => {
    const { last, sockets, phases } = watching();
    last().onopen?.();
    last().say(snapshot(1));
    const heard = Date.now() + SILENCE_MS - 1;
    vi.advanceTimersByTime(SILENCE_MS - 1);
    last().say({ t: 'heartbeat', now: 2 });
    vi.advanceTimersByTime(SILENCE_MS - 1);
    expect(sockets).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(phases.at(-1)).toEqual({ phase: 'lost', since: heard });
    expect(sockets[0]!.closed).toBe(4_000);
    vi.advanceTimersByTime(250);
    expect(sockets).toHaveLength(2);
  });

  it('starts anew after a frame it cannot read', () => {
    const { last, sockets } = watching();
    last().onopen?.();
    last().say(snapshot(3));
    last().onmessage?.({ data: 'what?' });
    vi.advanceTimersByTime(250);
    expect(sockets).toHaveLength(2);
    last().onopen?.();
    expect(last().sent).toEqual([{ t: 'subscribe', site: 'demo' }]);
  });

  it('does not ask again for what it may not see', () => {
    const { last, sockets, phases, failures } = watching();
    last().onopen?.();
    last().say({ t: 'error', reason: 'not_allowed', detail: 'no' });
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
    expect(phases.at(-1)).toEqual({ phase: 'refused', reason: 'not_allowed', detail: 'no' });
    expect(failures()).toBe(1);
  });

  it('is quiet once stopped', () => {
    const { socket, last, sockets } = watching();
    last().onopen?.();
    socket.stop();
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
    expect(last().closed).toBe(4_000);
  });

  it('tries at once when the network is back, and never holds two sockets', () => {
    const { socket, last, sockets } = watching();
    last().onclose?.();
    last().onclose?.();
    socket.hurry();
    socket.hurry();
    expect(sockets).toHaveLength(2);
    vi.advanceTimersByTime(10_000);
    expect(sockets).toHaveLength(2);
  });
});

describe('the wait before the next try', () => {
  it('doubles to a cap, with full jitter', () => {
    const longest = new Backoff(250, 10_000, () => 1);
    expect(Array.from({ length: 8 }, () => longest.nextMs())).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    const shortest = new Backoff(250, 10_000, () => 0);
    expect(Array.from({ length: 3 }, () => shortest.nextMs())).toEqual([0, 0, 0]);
    longest.reset();
    expect(longest.nextMs()).toBe(250);
  });
});

describe('where no WebSocket gets through', () => {
  /** Three sockets that fail, and the stream that is opened then. */
  function blocked(options: Parameters<typeof watching>[0] = {}) {
    const page = watching(options);
    for (let n = 0; n < 3; n += 1) {
      page.last().onclose?.();
      vi.advanceTimersByTime(10_000);
    }
    const stream = page.streams.at(-1)!;
    expect([page.sockets.length, page.streams.length]).toEqual([3, 1]);
    return { ...page, stream };
  }

  it('goes on with server-sent events, and says so', () => {
    const { stream, phases, urls, changes } = blocked({ filter: { country: 'DE' }, share: 'a b' });
    expect(urls.at(-1)).toBe('/live/events?site=demo&filter=%7B%22country%22%3A%22DE%22%7D&share=a+b');
    stream.onopen?.();
    stream.say(snapshot(1));
    expect(phases.at(-1)).toEqual({ phase: 'connected', via: 'events' });
    expect(changes()).toBe(1);
  });

  it('a socket that served and broke does not count', () => {
    const { last, streams, sockets } = watching();
    for (let n = 0; n < 6; n += 1) {
      last().onopen?.();
      last().say(snapshot(1));
      last().onclose?.();
      vi.advanceTimersByTime(10_000);
    }
    expect([sockets.length, streams.length]).toEqual([7, 0]);
    for (const told of [0, 0, 1]) {
      last().onclose?.();
      vi.advanceTimersByTime(10_000);
      expect(streams).toHaveLength(told);
    }
  });

  it('lets the browser come back by itself, and says that the connection is lost when it takes its time', () => {
    const { stream, streams, phases } = blocked();
    stream.onopen?.();
    stream.say(snapshot(1));
    stream.readyState = 0;
    stream.onerror?.();
    vi.advanceTimersByTime(INTERRUPTED_MS - 1);
    expect(phases.at(-1)?.phase).toBe('connected');
    vi.advanceTimersByTime(1);
    expect(phases.at(-1)?.phase).toBe('lost');
    stream.onopen?.();
    stream.say(delta(2));
    expect(phases.at(-1)?.phase).toBe('connected');
    expect(streams).toHaveLength(1);
    stream.readyState = 0;
    stream.onerror?.();
    stream.onopen?.();
    vi.advanceTimersByTime(INTERRUPTED_MS);
    expect(phases.filter(({ phase }) => phase === 'lost').length, 'three sockets and one stream').toBe(4);
  });

  it('comes back by itself when the browser does not', () => {
    const { stream, sockets } = blocked();
    stream.onopen?.();
    stream.say(snapshot(1));
    stream.readyState = 2;
    stream.onerror?.();
    vi.advanceTimersByTime(10_000);
    expect([sockets.length, stream.isClosed]).toEqual([4, true]);
  });

  it('tries both in turn while neither works', () => {
    const { stream, sockets, streams, last } = blocked();
    stream.readyState = 2;
    stream.onerror?.();
    vi.advanceTimersByTime(10_000);
    expect([sockets.length, streams.length]).toEqual([4, 1]);
    last().onclose?.();
    vi.advanceTimersByTime(10_000);
    expect([sockets.length, streams.length]).toEqual([4, 2]);
  });

  it('takes a WebSocket over with its first frame, and never shows a stream’s frame after it', () => {
    const { stream, last, sockets, state, phases } = blocked();
    stream.onopen?.();
    stream.say(snapshot(1));
    vi.advanceTimersByTime(PROBE_MS[0]);
    expect(sockets).toHaveLength(4);
    last().onopen?.();
    stream.say(delta(2));
    expect(state.position?.seq).toBe(2);
    expect(phases.at(-1)).toEqual({ phase: 'connected', via: 'events' });
    last().say(snapshot(3));
    expect(phases.at(-1)).toEqual({ phase: 'connected', via: 'socket' });
    expect([state.position?.seq, stream.isClosed]).toEqual([3, true]);
    stream.say(delta(4));
    expect(state.position?.seq).toBe(3);
  });

  it('a WebSocket that fails beside it changes nothing, and is tried later again', () => {
    const { stream, last, sockets, phases } = blocked();
    stream.onopen?.();
    stream.say(snapshot(1));
    vi.advanceTimersByTime(PROBE_MS[0]);
    last().onclose?.();
    expect(phases.at(-1)).toEqual({ phase: 'connected', via: 'events' });
    for (let waited = 0; waited < PROBE_MS[1]; waited += 5_000) {
      expect(sockets).toHaveLength(4);
      stream.say({ t: 'heartbeat', now: 1 });
      vi.advanceTimersByTime(5_000);
    }
    expect(sockets).toHaveLength(5);
  });

  it('asks anew after a gap: a stream takes no question', () => {
    const { stream, sockets } = blocked();
    stream.onopen?.();
    stream.say(snapshot(1));
    stream.say(delta(3));
    expect(stream.isClosed).toBe(true);
    vi.advanceTimersByTime(10_000);
    expect(sockets).toHaveLength(4);
  });
});

describe('the feed', () => {
  it('over a stream is asked for by a stream of its own', () => {
    const { socket, last, streams, urls } = watching();
    for (let n = 0; n < 3; n += 1) {
      last().onclose?.();
      vi.advanceTimersByTime(10_000);
    }
    streams[0]!.onopen?.();
    streams[0]!.say(snapshot(1));
    socket.feed(true);
    expect([urls.at(-1), streams[0]!.isClosed]).toEqual(['/live/events?site=demo&feed=true', true]);
    streams[1]!.onopen?.();
    socket.feed(false);
    expect(urls.at(-1)).toBe('/live/events?site=demo');
  });

  it('is asked for after the subscription, and again after every reconnect', () => {
    const { socket, last } = watching({ filter: { page: '/a' } });
    socket.feed(true);
    expect(last().sent).toEqual([]);
    last().onopen?.();
    expect(last().sent).toEqual([{ t: 'subscribe', site: 'demo', filter: { page: '/a' } }, { t: 'feed', on: true }]);
    last().onclose?.();
    vi.advanceTimersByTime(10_000);
    last().onopen?.();
    expect(last().sent.at(-1)).toEqual({ t: 'feed', on: true });
    socket.feed(false);
    expect(last().sent.at(-1)).toEqual({ t: 'feed', on: false });
  });
});
