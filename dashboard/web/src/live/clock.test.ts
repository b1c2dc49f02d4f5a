import { describe, expect, it } from 'vitest';
import { LatencyMeter, NodeClock } from './clock';

const EPOCH = 1_800_000_000_000;

describe('the node’s clock', () => {
  it('is guessed until a frame came, then the fastest frame tells', () => {
    const clock = new NodeClock(7);
    expect(clock.now(100)).toBe(107);
    clock.heard(EPOCH, 100);
    clock.heard(EPOCH + 1_000, 1_180);
    clock.heard(EPOCH + 2_000, 2_090);
    expect(clock.now(3_000)).toBe(EPOCH + 2_910);
  });

  it('half of the quickest answer is added', () => {
    const clock = new NodeClock(0);
    clock.heard(EPOCH, 0);
    for (const ms of [80, 30, 200]) clock.exchanged(ms);
    expect(clock.now(0)).toBe(EPOCH + 15);
  });

  it('follows a clock that was set back', () => {
    const clock = new NodeClock(0);
    for (let at = 0; at <= 120_000; at += 1_000) clock.heard(EPOCH + at - (at > 20_000 ? 5_000 : 0), at);
    expect(clock.now(120_000)).toBe(EPOCH + 115_000);
  });

  it('knows nothing of a node it has just come to', () => {
    const clock = new NodeClock(7);
    clock.heard(EPOCH, 0);
    clock.reset();
    expect(clock.now(0)).toBe(7);
  });
});

describe('event to screen', () => {
  it('says what half and nearly all were quicker than', () => {
    const meter = new LatencyMeter();
    expect(meter.read(0)).toBeNull();
    for (let ms = 100; ms >= 1; ms -= 1) meter.add(ms, 0);
    expect(meter.read(0)).toEqual({ p50: 50, p99: 99, count: 100 });
  });

  it('forgets what is old, and keeps no more than it needs', () => {
    const meter = new LatencyMeter(1_000);
    meter.add(900, 0);
    meter.add(5, 500);
    expect(meter.read(1_200)).toEqual({ p50: 5, p99: 5, count: 1 });
    for (let n = 0; n < 5_000; n += 1) meter.add(n, 1_200);
    expect(meter.read(1_200)?.count).toBe(1_000);
  });
});
