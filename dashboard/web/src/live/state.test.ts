import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { NO_FILTER } from './filter';
import { parseFrame, subscribe, type LiveChange, type ViewUpdate } from './protocol';
import { SiteState } from './state';

function golden(name: string): string {
  return readFileSync(new URL(`../../../../schemas/golden/${name}`, import.meta.url), 'utf8').trim();
}

function update(text: string): ViewUpdate {
  const frame = parseFrame(text);
  if (frame?.kind !== 'snapshot' && frame?.kind !== 'delta') throw new Error(`no update: ${text}`);
  return frame;
}

function views(state: SiteState): number {
  return [...state.minutes.values()].reduce((sum, minute) => sum + minute.views, 0);
}

describe('golden files', () => {
  it('a snapshot and its delta give what the node holds', () => {
    const state = new SiteState('demo');
    expect(state.resume).toBeNull();
    expect(state.apply(update(golden('viewer_snapshot.json')))).toBe('applied');
    expect(state.online).toEqual({ visitors: 3, visible: 2, pages: new Map([['/', 1], ['/shop', 2]]) });
    expect(state.freshness).toEqual({ clock: 1800000000000, newest: 1799999999500, silentPartitions: 0, nodes: 1 });
    expect(state.ledger?.refused).toEqual(new Map([['bad_url', 2]]));
    expect(views(state)).toBe(4);

    expect(state.apply(update(golden('viewer_delta.json')))).toBe('applied');
    expect(views(state)).toBe(5);
    expect(state.tops.get('page')).toEqual(new Map([['/', 4], ['/shop', 1]]));
    expect(state.tops.get('country')).toEqual(new Map([['DE', 4]]));
    expect(state.online?.visitors, 'what a delta leaves out stays').toBe(3);
    expect(state.resume).toEqual({ epoch: 1799990000001, seq: 13 });
  });

  it('heartbeats and errors are read', () => {
    expect(parseFrame(golden('viewer_heartbeat.json'))).toEqual({ kind: 'heartbeat', now: 1800000005000 });
    expect(parseFrame(golden('viewer_error.json'))).toMatchObject({ kind: 'error', reason: 'unknown_site' });
  });

  it('a subscription is written as the node reads it', () => {
    const resume = { epoch: 1799990000001, seq: 12 };
    expect(JSON.parse(subscribe('demo', NO_FILTER, resume))).toEqual(JSON.parse(golden('viewer_subscribe.json')));
  });
});

describe('parsing', () => {
  it.each([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['another kind', '{"t":"welcome"}'],
    ['a text where a number is due', '{"t":"heartbeat","now":"1"}'],
    ['a minute that is no number', '{"t":"delta","site":"s","epoch":1,"seq":1,"now":1,"live":{"minutes":{"x":{"views":1,"events":1,"visitors":1,"sessions":1}}}}'],
  ])('refuses %s', (_, text) => expect(parseFrame(text)).toBeNull());

  it('a page named like a property of objects is a page', () => {
    const text = '{"t":"snapshot","site":"s","epoch":1,"seq":1,"now":1,"live":{"tops":{"page":{"__proto__":2,"constructor":1}}}}';
    expect(update(text).live.tops.get('page')).toEqual(new Map([['__proto__', 2], ['constructor', 1]]));
  });
});

function change(part: Partial<LiveChange>): LiveChange {
  return { totals: null, seconds: new Map(), minutes: new Map(), tops: new Map(), errors: new Map(), ...part };
}

function made(kind: 'snapshot' | 'delta', epoch: number, seq: number, part: Partial<ViewUpdate> = {}): ViewUpdate {
  const rest = { now: 0, online: null, freshness: null, ledger: null, live: change({}), goals: new Map<string, number>(), alerts: null };
  return { kind, site: 'demo', position: { epoch, seq }, ...rest, ...part };
}

describe('sequence', () => {
  it.each([
    ['the next', 1, 8, 'applied'],
    ['the same again', 1, 7, 'ignored'],
    ['an older one', 1, 3, 'ignored'],
    ['one too far', 1, 9, 'gap'],
    ['another epoch', 2, 8, 'gap'],
    ['another epoch with a lower sequence', 2, 1, 'gap'],
  ] as const)('%s', (_, epoch, seq, outcome) => {
    const state = new SiteState('demo');
    state.apply(made('snapshot', 1, 7));
    expect(state.apply(made('delta', epoch, seq))).toBe(outcome);
  });

  it('after a gap nothing counts until the snapshot, which is asked for once', () => {
    const state = new SiteState('demo');
    state.apply(made('snapshot', 1, 1));
    expect(state.apply(made('delta', 1, 3))).toBe('gap');
    expect(state.resume).toBeNull();
    expect(state.apply(made('delta', 1, 2))).toBe('ignored');
    expect(state.apply(made('delta', 1, 5))).toBe('ignored');
    expect(state.apply(made('snapshot', 1, 6))).toBe('applied');
    expect(state.resume).toEqual({ epoch: 1, seq: 6 });
  });

  it('a frame of the site watched before is left alone', () => {
    const state = new SiteState('demo');
    expect(state.apply(made('snapshot', 1, 1, { site: 'shop' }))).toBe('ignored');
  });
});

describe('windows', () => {
  it('forget what has left them by the log’s clock', () => {
    const views = { views: 1, events: 1 };
    const state = new SiteState('demo');
    const minutes = new Map(Array.from({ length: 40 }, (_, n) => [n * 60, { ...views, visitors: 1, sessions: 0 }]));
    const seconds = new Map(Array.from({ length: 2_400 }, (_, n) => [n, views]));
    const freshness = { clock: 39 * 60_000 + 59_999, newest: 0, silentPartitions: 0, nodes: 1 };
    state.apply(made('snapshot', 1, 1, { freshness, live: change({ minutes, seconds }) }));
    expect(state.minutes.size).toBe(30);
    expect(state.seconds.size).toBe(60);
    expect(Math.max(...state.seconds.keys())).toBe(2_399);
  });

  it('an entry of zeros removes', () => {
    const state = new SiteState('demo');
    const minute = { views: 0, events: 1, visitors: 1, sessions: 0 };
    state.apply(made('snapshot', 1, 1, { live: change({ minutes: new Map([[60, minute]]), seconds: new Map([[60, minute]]), tops: new Map([['page', new Map([['/', 1]])]]) }) }));
    const none = { views: 0, events: 0, visitors: 0, sessions: 0 };
    state.apply(made('delta', 1, 2, { live: change({ minutes: new Map([[60, none]]), seconds: new Map([[60, none]]), tops: new Map([['page', new Map([['/', 0]])]]) }) }));
    expect([state.minutes.size, state.seconds.size, state.tops.size]).toEqual([0, 0, 0]);
  });
});

/** A node that changes at random, and remembers what it held at every position. */
class Node {
  epoch = 1;
  seq = 0;
  pages = new Map<string, number>();
  readonly held = new Map<string, string>();

  constructor(readonly random: () => number) {
    this.#remember();
  }

  step(): ViewUpdate {
    if (this.random() < 0.02) {
      this.epoch += 1;
      this.seq = 0;
      this.pages.clear();
    }
    this.seq += 1;
    const changed = new Map<string, number>();
    for (let n = 0; n < 3; n += 1) {
      const page = `/${Math.floor(this.random() * 8)}`;
      const count = Math.floor(this.random() * 4);
      changed.set(page, count);
      if (count === 0) this.pages.delete(page);
      else this.pages.set(page, count);
    }
    this.#remember();
    return made('delta', this.epoch, this.seq, { live: change({ tops: new Map([['page', changed]]) }) });
  }

  snapshot(): ViewUpdate {
    const tops = new Map([['page', new Map(this.pages)]]);
    return made('snapshot', this.epoch, this.seq, { live: change({ tops }) });
  }

  #remember(): void {
    this.held.set(`${this.epoch}/${this.seq}`, text(this.pages));
  }
}

function text(pages: Map<string, number> | undefined): string {
  return JSON.stringify([...(pages ?? [])].sort());
}

/** mulberry32: small, seeded, so that a failure can be repeated. */
function seeded(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

describe('whatever is lost or doubled on the way', () => {
  it.each(Array.from({ length: 50 }, (_, seed) => [seed + 1]))('the page is never torn and heals (seed %i)', (seed) => {
    const random = seeded(seed);
    const node = new Node(random);
    const state = new SiteState('demo');
    const deliver = (frame: ViewUpdate) => {
      // The snapshot that a gap asks for arrives some frames later, as on a real wire.
      if (state.apply(frame) === 'gap') asked = 1 + Math.floor(random() * 4);
      if (state.position && state.resume) {
        const { epoch, seq } = state.position;
        expect(text(state.tops.get('page'))).toBe(node.held.get(`${epoch}/${seq}`));
      }
    };
    let asked = 1;
    for (let n = 0; n < 400; n += 1) {
      const delta = node.step();
      if (asked > 0 && --asked === 0) deliver(node.snapshot());
      if (random() < 0.1) continue;
      deliver(delta);
      if (random() < 0.1) deliver(delta);
    }
    // One more that surely arrives: it either applies or shows the gap, and the snapshot closes it.
    deliver(node.step());
    if (!state.resume) deliver(node.snapshot());
    expect(text(state.tops.get('page'))).toBe(text(node.pages));
    expect(state.position).toEqual({ epoch: node.epoch, seq: node.seq });
  });
});
