import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Backoff } from './backoff';
import { LiveSocket, SILENCE_MS, type Connection } from './socket';
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

function watching() {
  const sockets: FakeSocket[] = [];
  const phases: Connection[] = [];
  const state = new SiteState('demo');
  let changes = 0;
  let failures = 0;
  const listener = {
    connection: (connection: Connection) => phases.push(connection),
    changed: () => (changes += 1),
    heard: () => undefined,
    failed: () => (failures += 1),
  };
  const around = {
    open: (_url: string, subprotocol: string) => {
      expect(subprotocol).toBe('footfall-live.v1');
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    now: () => Date.now(),
    random: () => 0.999,
  };
  const socket = new LiveSocket('ws://localhost/live', state, listener, around);
  socket.start();
  const last = () => sockets.at(-1)!;
  return { socket, sockets, phases, last, state, changes: () => changes, failures: () => failures };
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
    expect(phases.at(-1)).toEqual({ phase: 'connected' });
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
