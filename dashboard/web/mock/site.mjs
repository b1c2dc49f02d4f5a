// A made-up site: visitors come and go, and what the aggregators would tell of it is worked out second by second.

const PAGES = ['/', '/shop', '/shop/lamp-oak', '/shop/chair-birch', '/pricing', '/blog', '/blog/counting-in-the-open', '/about', '/cart', '/checkout', '/docs/install', '/docs/privacy', '/blog/2026/a-very-long-path-that-somebody-really-uses-because-a-title-was-turned-into-an-address', '/<img src=x onerror=alert(1)>', '/search?q=%E2%80%AEevil'];
const TABLES = {
  page: PAGES,
  referrer: ['google.com', 'news.ycombinator.com', 'duckduckgo.com', 'github.com', 'bing.com', 'mastodon.social', 'lobste.rs', 'reddit.com', 'javascript:alert(1)'],
  channel: ['direct', 'search', 'referral', 'social', 'email'],
  campaign: ['autumn-sale', 'newsletter-47'],
  country: ['DE', 'US', 'FR', 'GB', 'NL', 'JP', 'BR', 'IN', 'CA', 'PL', 'SE'],
  device: ['desktop', 'mobile', 'tablet'],
  browser: ['Chrome', 'Safari', 'Firefox', 'Edge', 'Samsung Internet'],
  system: ['Windows', 'Android', 'iOS', 'macOS', 'Linux'],
};
const EVENTS = ['add_to_cart', 'signup', 'search', 'purchase'];

/** Repeatable, so that two screenshots differ only by what was changed. */
export function seeded(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export class MockSite {
  /** Page views of the last 30 minutes: { at, visitor, values, event? }. */
  #views = [];
  #random;
  #carry = 0;
  stored = 0;
  young = false;
  refused = {};

  constructor(key, perSecond, now, seed = 7) {
    this.key = key;
    this.perSecond = perSecond;
    this.#random = seeded(seed);
    if (perSecond > 0) {
      this.stored = 18_204;
      this.refused = { origin_denied: 12, bad_url: 3 };
    }
    for (let at = now - 30 * 60_000; at < now; at += 1_000) this.step(at, 1_000);
  }

  /** Forgets what came before this minute. */
  makeYoung(now) {
    this.young = true;
    this.#views = this.#views.filter(({ at }) => at >= Math.floor(now / 60_000) * 60_000 - 1_000);
  }

  #pick(list, bias = 2.2) {
    return list[Math.floor(this.#random() ** bias * list.length)];
  }

  /** Lets `ms` pass until `now`. */
  step(now, ms) {
    const wave = 1 + 0.35 * Math.sin(now / 210_000) + 0.2 * Math.sin(now / 47_000);
    this.#carry += (this.perSecond * wave * ms) / 1_000 * (0.4 + 1.2 * this.#random());
    while (this.#carry >= 1) {
      this.#carry -= 1;
      const values = Object.fromEntries(Object.entries(TABLES).map(([dimension, list]) => [dimension, this.#pick(list)]));
      if (this.#random() < 0.45) values.referrer = '';
      if (this.#random() < 0.8) values.campaign = '';
      const event = this.#random() < 0.18 ? this.#pick(EVENTS) : '';
      const visitor = Math.floor(now / 90_000) * 7 + Math.floor(this.#random() * 40 * Math.max(1, this.perSecond));
      this.#views.push({ at: now - Math.floor(this.#random() * ms), visitor, values, event });
      this.stored += event ? 3 : 2;
    }
    const from = now - 30 * 60_000;
    while (this.#views.length > 0 && this.#views[0].at < from) this.#views.shift();
  }

  /** The whole of what a viewer is told, as the protocol writes it. */
  state(clock) {
    const live = { totals: null, seconds: {}, minutes: {}, tops: {} };
    const visitorsOf = new Map();
    const lastMinute = Math.floor(clock / 60_000);
    const all = new Set();
    const active = new Set();
    const open = new Map();
    for (const { at, visitor, values, event } of this.#views) {
      const minute = Math.floor(at / 60_000);
      if (at > clock || minute <= lastMinute - 30) continue;
      all.add(visitor);
      if (at > clock - 5 * 60_000) active.add(visitor);
      if (at > clock - 45_000) open.set(visitor, values.page);
      const counts = (live.minutes[minute * 60] ??= { views: 0, events: 0, visitors: 0, sessions: 0 });
      counts.views += 1;
      counts.events += event ? 3 : 2;
      if (!visitorsOf.has(minute)) visitorsOf.set(minute, new Set());
      visitorsOf.get(minute).add(visitor);
      if (at > clock - 60_000) {
        const second = (live.seconds[Math.floor(at / 1_000)] ??= { views: 0, events: 0 });
        second.views += 1;
        second.events += 2;
      }
      for (const [dimension, value] of Object.entries({ ...values, event })) {
        if (value === '') continue;
        const top = (live.tops[dimension] ??= {});
        top[value] = (top[value] ?? 0) + 1;
      }
    }
    for (const [minute, visitors] of visitorsOf) live.minutes[minute * 60].visitors = visitors.size;
    live.totals = { active: active.size, visitors: all.size, stored: this.stored, duplicate: Math.floor(this.stored / 600), late: Math.floor(this.stored / 4_000), poison: 0 };
    const pages = {};
    for (const page of open.values()) pages[page] = (pages[page] ?? 0) + 1;
    const accepted = this.stored;
    const refused = Object.values(this.refused).reduce((sum, n) => sum + n, 0);
    return {
      online: { visitors: open.size, visible: Math.round(open.size * 0.62), pages },
      freshness: { clock, newest: this.#views.at(-1)?.at ?? 0, silent_partitions: 0, nodes: 2 },
      ledger: { received: accepted + refused + (accepted > 0 ? 17 : 0), accepted, refused: this.refused, retried: accepted > 0 ? 14 : 0, evicted: 0 },
      live,
    };
  }

  history(now) {
    const step = 15 * 60_000;
    const end = Math.floor(now / step) * step;
    const random = seeded(11);
    // As a node does: the first interval may lie partly before the 24 hours, the last still runs.
    const points = Array.from({ length: 97 }, (_, n) => {
      const at = end - (96 - n) * step;
      if (this.young && n < 96) return { at, views: 0, visitors: 0, sessions: 0, events: 0 };
      const hour = (at / 3_600_000) % 24;
      const day = Math.max(0.06, Math.sin(((hour - 5) / 24) * 2 * Math.PI) * 0.5 + 0.55);
      const views = this.perSecond === 0 ? 0 : Math.round(day * this.perSecond * 630 * (0.8 + 0.4 * random()) * (n === 96 ? ((now - at) / step) : 1));
      return { at, views, visitors: Math.round(views * 0.36), sessions: Math.round(views * 0.4), events: Math.round(views * 2.3) };
    });
    const sum = (name) => points.reduce((total, point) => total + point[name], 0);
    return { points, totals: { views: sum('views'), visitors: Math.round(sum('visitors') * 0.6), sessions: sum('sessions'), events: sum('events') } };
  }
}

/** What must be applied to `old` to get `newer`, as schemas/src/live.rs tells it. */
export function changeTo(old, newer) {
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const map = (a = {}, b = {}, none) => {
    const out = {};
    for (const key of Object.keys(b)) if (!same(a[key], b[key])) out[key] = b[key];
    for (const key of Object.keys(a)) if (!(key in b)) out[key] = none;
    return out;
  };
  const live = {
    seconds: map(old.live.seconds, newer.live.seconds, { views: 0, events: 0 }),
    minutes: map(old.live.minutes, newer.live.minutes, { views: 0, events: 0, visitors: 0, sessions: 0 }),
    tops: {},
  };
  if (!same(old.live.totals, newer.live.totals)) live.totals = newer.live.totals;
  for (const dimension of new Set([...Object.keys(old.live.tops), ...Object.keys(newer.live.tops)])) {
    const changed = map(old.live.tops[dimension], newer.live.tops[dimension], 0);
    if (Object.keys(changed).length > 0) live.tops[dimension] = changed;
  }
  const out = { live };
  for (const part of ['online', 'freshness', 'ledger']) if (!same(old[part], newer[part])) out[part] = newer[part];
  return out;
}
