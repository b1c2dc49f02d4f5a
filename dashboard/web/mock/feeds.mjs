// What a node tells of each (site, filter): numbered changes for whoever watches, over WebSocket or server-sent events.
import { changeTo } from './site.mjs';

const DELTAS_KEPT = 40;
/** Events told of a feed at once; the others are counted. */
const EVENTS_TOLD = 25;

export const keyOf = (site, filter = {}) => (Object.keys(filter).length > 0 ? `${site} ${JSON.stringify(filter)}` : site);

export class Feeds extends Map {
  #tell;

  /** `tell`: the state of a site under a filter. */
  constructor(sites, tell) {
    super();
    this.#tell = tell;
    this.sites = new Map();
    for (const site of sites) this.add(site);
  }

  add(site) {
    this.sites.set(site.key, site);
    this.#watch(site, {});
    return site;
  }

  #watch(site, filter) {
    const feed = { site, filter, epoch: Date.now() + this.size, seq: 1, told: this.#tell(site, filter), deltas: [], viewers: new Set() };
    this.set(keyOf(site.key, filter), feed);
    return feed;
  }

  /** `undefined`: there is no such site. */
  of(key, filter = {}) {
    const site = this.sites.get(key);
    return site && (this.get(keyOf(key, filter)) ?? this.#watch(site, filter));
  }

  filters() {
    return [...this.values()].filter(({ filter }) => Object.keys(filter).length > 0).length;
  }

  /** One change of every feed, and the events since the last. */
  step(now, ms) {
    for (const site of this.sites.values()) {
      site.step(now, ms);
      const events = site.takeEvents();
      for (const feed of this.values()) {
        if (feed.site !== site) continue;
        const newer = this.#tell(site, feed.filter);
        const change = changeTo(feed.told, newer);
        feed.told = newer;
        feed.seq += 1;
        const text = JSON.stringify({ t: 'delta', site: site.key, epoch: feed.epoch, seq: feed.seq, now: Date.now(), ...change });
        feed.deltas.push({ seq: feed.seq, text });
        if (feed.deltas.length > DELTAS_KEPT) feed.deltas.shift();
        for (const viewer of feed.viewers) viewer.send(text, `${feed.epoch}-${feed.seq}`);
        this.#tellEvents(feed, events);
      }
    }
  }

  #tellEvents(feed, events) {
    const watchers = [...feed.viewers].filter(({ feedOn }) => feedOn);
    if (watchers.length === 0) return;
    const { goal: _, ...by } = feed.filter;
    const matching = events.filter(({ values }) => Object.entries(by).every(([dimension, value]) => values[dimension] === value)).map(({ told }) => told);
    if (matching.length === 0) return;
    const text = JSON.stringify({ t: 'events', site: feed.site.key, events: matching.slice(-EVENTS_TOLD), skipped: Math.max(0, matching.length - EVENTS_TOLD) });
    for (const viewer of watchers) viewer.send(text, null);
  }

  /** Tells `viewer` what it lacks and goes on telling it. */
  join(feed, viewer, resume) {
    const missing = feed.deltas.filter(({ seq }) => seq > (resume?.seq ?? 0));
    const whole = resume?.epoch === feed.epoch && resume.seq <= feed.seq && missing.length === feed.seq - resume.seq;
    if (whole) for (const { seq, text } of missing) viewer.send(text, `${feed.epoch}-${seq}`);
    else viewer.send(this.snapshot(feed), `${feed.epoch}-${feed.seq}`);
    feed.viewers.add(viewer);
  }

  snapshot({ site, epoch, seq, told }) {
    return JSON.stringify({ t: 'snapshot', site: site.key, epoch, seq, now: Date.now(), ...told });
  }
}
