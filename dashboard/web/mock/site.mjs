// A made-up site: visitors come and go, and what the aggregators would tell of it is worked out second by second.

const PAGES = ['/', '/shop', '/shop/lamp-oak', '/shop/chair-birch', '/pricing', '/blog', '/blog/counting-in-the-open', '/about', '/cart', '/checkout', '/docs/install', '/docs/privacy', '/blog/2026/a-very-long-path-that-somebody-really-uses-because-a-title-was-turned-into-an-address', '/<img src=x onerror=alert(1)>', '/search?q=%E2%80%AEevil'];
/** What visitors of a made-up site do; another may be given. */
export const TABLES = {
  page: PAGES,
  referrer: ['google.com', 'news.ycombinator.com', 'duckduckgo.com', 'github.com', 'bing.com', 'mastodon.social', 'lobste.rs', 'reddit.com', 'javascript:alert(1)'],
  channel: ['direct', 'search', 'referral', 'social', 'email'],
  campaign: ['autumn-sale', 'newsletter-47'],
  country: ['DE', 'US', 'FR', 'GB', 'NL', 'JP', 'BR', 'IN', 'CA', 'PL', 'SE', 'AU', 'SG', 'ZA', ''],
  device: ['desktop', 'mobile', 'tablet'],
  browser: ['Chrome', 'Safari', 'Firefox', 'Edge', 'Samsung Internet'],
  system: ['Windows', 'Android', 'iOS', 'macOS', 'Linux'],
  event: ['add_to_cart', 'signup', 'search', 'purchase'],
};
export const GOALS = [
  { name: 'Signed up', event: 'signup' },
  { name: 'Bought something', event: 'purchase' },
  { name: 'Read the docs', page: '/docs/' },
  { name: 'Asked for an offer', event: 'offer' },
];

/** By values that visitors chose: `constructor` is one as any other. */
const tally = () => Object.create(null);

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
  #born = 0;
  #newest = [];
  alerts = [];
  refused = {};

  constructor(key, perSecond, now, { seed = 7, tables = TABLES, goals = GOALS } = {}) {
    this.tables = tables;
    this.goals = goals;
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
      const { event: events, ...others } = this.tables;
      const values = Object.fromEntries(Object.entries(others).map(([dimension, list]) => [dimension, this.#pick(list)]));
      if (this.#random() < 0.45) values.referrer = '';
      if (this.#random() < 0.8) values.campaign = '';
      const event = this.#random() < 0.18 ? this.#pick(events) : '';
      const visitor = Math.floor(now / 90_000) * 7 + Math.floor(this.#random() * 40 * Math.max(1, this.perSecond));
      const view = { id: `018c1f00-0000-7000-8000-${String((this.#born += 1)).padStart(12, '0')}`, at: now - Math.floor(this.#random() * ms), visitor, values, event };
      this.#views.push(view);
      this.#newest.push(view);
      this.stored += event ? 3 : 2;
    }
    const from = now - 30 * 60_000;
    while (this.#views.length > 0 && this.#views[0].at < from) this.#views.shift();
  }

  /** The events since the last call, as the feed tells them, with what they may be filtered by. */
  takeEvents() {
    const views = this.#newest;
    this.#newest = [];
    return views.flatMap(({ id, at, values, event }) => {
      const { page, referrer, channel, country, browser, device } = values;
      const told = { id, received_at: at, kind: 'view', page, referrer, channel, country, browser, device };
      const more = event ? { ...told, id: id.replace('-8000-', '-8001-'), kind: 'custom', name: event } : { ...told, id: id.replace('-8000-', '-8002-'), kind: 'engagement' };
      return [told, ...(event || id.endsWith('0') ? [more] : [])].map((told) => ({ told, values }));
    });
  }

  #reached(view) {
    return this.goals.filter(({ event, page }) => (event ? view.event === event : view.values.page.startsWith(page))).map(({ name }) => name);
  }

  /** The whole of what a viewer is told, as the protocol writes it. */
  state(clock, filter = {}) {
    const { goal, ...by } = filter;
    const matches = (view) => Object.entries(by).every(([dimension, value]) => view.values[dimension] === value);
    const reachers = goal && new Set(this.#views.filter((view) => this.#reached(view).includes(goal)).map(({ visitor }) => visitor));
    const goals = tally();
    for (const { name } of this.goals) goals[name] = 0;
    const sessions = new Map();
    const live = { totals: null, seconds: {}, minutes: {}, tops: {} };
    const visitorsOf = new Map();
    const lastMinute = Math.floor(clock / 60_000);
    const all = new Set();
    const active = new Set();
    const open = new Map();
    for (const view of this.#views) {
      const { at, visitor, values, event } = view;
      const minute = Math.floor(at / 60_000);
      if (at > clock || minute <= lastMinute - 30) continue;
      if (!matches(view) || (reachers && !reachers.has(visitor))) continue;
      for (const name of this.#reached(view)) goals[name] += 1;
      const session = sessions.get(visitor) ?? { entry: values.page, from: at, views: 0, events: 0 };
      sessions.set(visitor, Object.assign(session, { exit: values.page, to: Math.max(at, session.to ?? 0), views: session.views + 1, events: session.events + Number(event !== '') }));
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
        const top = (live.tops[dimension] ??= tally());
        top[value] = (top[value] ?? 0) + 1;
      }
    }
    for (const [minute, visitors] of visitorsOf) live.minutes[minute * 60].visitors = visitors.size;
    const ended = [...sessions.values()];
    for (const [dimension, page] of ended.flatMap(({ entry, exit }) => [['entry', entry], ['exit', exit]])) {
      const top = (live.tops[dimension] ??= tally());
      top[page] = (top[page] ?? 0) + 1;
    }
    const measures = {
      sessions: ended.length,
      bounces: ended.filter(({ views, events }) => views === 1 && events === 0).length,
      duration_ms: ended.reduce((sum, { from, to }) => sum + Math.max(0, to - from), 0),
    };
    live.totals = { active: active.size, visitors: all.size, ...measures, stored: this.stored, duplicate: Math.floor(this.stored / 600), late: Math.floor(this.stored / 4_000), poison: 0 };
    const pages = tally();
    for (const page of open.values()) pages[page] = (pages[page] ?? 0) + 1;
    const accepted = this.stored;
    const refused = Object.values(this.refused).reduce((sum, n) => sum + n, 0);
    const isFiltered = Object.keys(filter).length > 0;
    const whole = isFiltered ? {} : {
      online: { visitors: open.size, visible: Math.round(open.size * 0.62), pages },
      ledger: { received: accepted + refused + (accepted > 0 ? 17 : 0), accepted, refused: this.refused, retried: accepted > 0 ? 14 : 0, evicted: 0 },
    };
    return {
      ...whole,
      alerts: this.alerts,
      goals,
      freshness: { clock, newest: this.#views.at(-1)?.at ?? 0, silent_partitions: 0, nodes: 2 },
      live,
    };
  }

  /** Active visitors by 5 minutes: today so far, yesterday, a week ago. */
  day(now) {
    const step = 300_000;
    const midnight = Math.floor(now / 86_400_000) * 86_400_000;
    const curve = (seed, many) => {
      const random = seeded(seed);
      let drift = 0;
      return Array.from({ length: 288 }, (_, n) => {
        drift = drift * 0.8 + (random() - 0.5) * 0.2;
        const hour = n / 12;
        return Math.round(many * this.perSecond * 26 * (1 + drift) * Math.max(0.05, Math.sin(((hour - 6) / 24) * 2 * Math.PI) * 0.5 + 0.5));
      });
    };
    const so = Math.floor((now - midnight) / step);
    return {
      step_ms: step,
      series: [
        { label: 'today', from: midnight, points: curve(3, 1).map((value, n) => (n <= so ? value : null)) },
        { label: 'yesterday', from: midnight - 86_400_000, points: curve(5, 0.92) },
        { label: 'last_week', from: midnight - 7 * 86_400_000, points: curve(9, 0.8).map((value, n) => (n < 20 ? null : value)) },
      ],
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
  const map = (a = tally(), b = tally(), none) => {
    const out = tally();
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
  const goals = Object.fromEntries(Object.entries(newer.goals).filter(([name, count]) => old.goals[name] !== count));
  if (Object.keys(goals).length > 0) out.goals = goals;
  for (const part of ['online', 'freshness', 'ledger', 'alerts']) if (!same(old[part], newer[part])) out[part] = newer[part];
  return out;
}
