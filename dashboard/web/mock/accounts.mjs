// Accounts, sites and all that is set up, as a node would hold them: the REST addresses of the page, in memory, with who
// may do what and with refusals that name the field. One browser at a time: there is no cookie, only who is signed in.
import { MINUTE, refuse, checkGrants, checkName, checkPassword, checkSite, checkUserName } from './checks.mjs';

const SET = '(set)';
const OWNER = { '*': 'owner' };

export class Accounts {
  users = new Map();
  keys = new Map();
  links = new Map();
  /** By key: { site, declared }. */
  sites = new Map();
  /** By site: what `/api/firings` tells. */
  firings = new Map();
  /** By site: what `/api/doctor` tells in place of the made-up numbers. */
  doctor = new Map();
  setUpToken = 'first-one';
  /** The next changes are answered with these: { status, body, headers }. */
  refusals = [];
  /** ms by which every answer is late. */
  delay = 0;
  #ids = 0;

  /** `control.signedIn` is shared with whoever serves the sockets; `written` is told of sites, `counted` tells of one. */
  constructor(control, { written, counted }) {
    this.control = control;
    this.written = written;
    this.counted = counted;
    this.user = 'operator';
  }

  addSite({ key, goals }, name, isPublic = false) {
    this.sites.set(key, { site: { key, name, origins: [`https://${key}.example`], goals, ...(isPublic && { public: true }) }, declared: key === 'shop' });
  }

  /** `token`: what its address ends with. */
  addLink(id, { token, ...link }) {
    const url = `http://127.0.0.1:8090/s/${link.site}?share=${encodeURIComponent(token)}`;
    this.links.set(id, { id, name: id, filter: {}, expires_at: null, created_at: Date.now(), created_by: this.user, ...link, url });
    return url;
  }

  addUser(name, password, grants, declared = false) {
    this.users.set(name, { password, grants, created_at: Date.now() - 90 * 24 * 60 * MINUTE, declared });
  }

  /** Answers a request of `/api/`; `null`: it is for somebody else. */
  async answer(method, url, body) {
    if (this.delay > 0) await new Promise((resolve) => setTimeout(resolve, this.delay));
    const path = url.pathname.slice('/api/'.length).split('/').map(decodeURIComponent);
    const route = this.#routes()[`${method} ${path[0]}${path.length > 1 ? '/' : ''}`];
    if (!route) return null;
    if (method !== 'GET' && this.refusals.length > 0) return this.refusals.shift();
    try {
      return { status: 200, body: {}, ...route({ id: path[1], query: url.searchParams, body }) };
    } catch (error) {
      if (!error.answer) throw error;
      return error.answer;
    }
  }

  #routes() {
    return {
      'GET session': () => this.#session(),
      'POST login': ({ body }) => this.#logIn(body),
      'POST set-up': ({ body }) => this.#setUp(body),
      'POST password': ({ body }) => this.#password(body),
      'GET sites': ({ query }) => this.#list(query),
      'GET sites/': ({ id }) => this.#site(id),
      'PUT sites/': ({ id, body }) => this.#putSite(id, body),
      'DELETE sites/': ({ id }) => this.#removeSite(id),
      'GET users': () => (this.#everything(), { body: { users: [...this.users].map(([name, { grants, created_at, declared }]) => ({ name, grants, created_at, declared })) } }),
      'PUT users/': ({ id, body }) => this.#putUser(id, body),
      'DELETE users/': ({ id }) => this.#removeUser(id),
      'GET keys': () => (this.#everything(), { body: { keys: [...this.keys.values()] } }),
      'POST keys': ({ body }) => this.#makeKey(body),
      'DELETE keys/': ({ id }) => (this.#everything(), this.#gone(this.keys, id)),
      'GET links': ({ query }) => (this.#owner(query.get('site')), { body: { links: [...this.links.values()].filter(({ site }) => site === query.get('site')) } }),
      'POST links': ({ body }) => this.#makeLink(body),
      'DELETE links/': ({ id }) => (this.#owner(this.links.get(id)?.site), this.#gone(this.links, id)),
      'GET firings': ({ query }) => (this.#viewer(query.get('site')), { body: { firings: this.firings.get(query.get('site')) ?? [] } }),
      'GET doctor': ({ query }) => this.#facts(query.get('site')),
    };
  }

  #grants() {
    if (!this.control.signedIn) refuse(401, 'not_logged_in', 'log in, or open a link that `footfall login` prints');
    return this.user === 'operator' ? OWNER : (this.users.get(this.user)?.grants ?? {});
  }

  #role(site) {
    const grants = this.#grants();
    const roles = [grants['*'], grants[site]];
    return roles.includes('owner') ? 'owner' : roles.includes('viewer') ? 'viewer' : null;
  }

  /** Whoever asks with this query may watch of the site what `filter` leaves. */
  mayWatch(key, query, filter = {}) {
    const listed = this.sites.get(key);
    if (!listed) return false;
    if (listed.site.public || (this.control.signedIn && this.#role(key) !== null)) return true;
    return this.#links(query).some((link) => link.site === key && Object.entries(link.filter).every(([name, value]) => filter[name] === value));
  }

  /** Links that are named in the query and still hold. */
  #links(query) {
    const token = query.get('share');
    return [...this.links.values()].filter(({ url, expires_at }) => new URL(url).searchParams.get('share') === token && (expires_at ?? Infinity) > Date.now());
  }

  /** Sites of which whoever asks may see anything. */
  seen(query) {
    const shared = this.#links(query).map(({ site }) => site);
    return [...this.sites].filter(([key]) => shared.includes(key) || this.mayWatch(key, query));
  }

  #everything() {
    if (this.#grants()['*'] !== 'owner') refuse(403, 'not_allowed', 'you may not do this; ask who owns this installation');
  }

  #owner(site) {
    if (this.#role(site) !== 'owner') refuse(403, 'not_allowed', 'you may not do this; ask who owns this installation');
  }

  #viewer(site) {
    if (!this.sites.has(site)) refuse(404, 'unknown_site', 'site: no such site is configured here');
    if (this.#role(site) === null) refuse(403, 'not_allowed', 'you may not do this; ask who owns this installation');
  }

  hasOwner() {
    return [...this.users.values()].some(({ grants }) => grants['*'] === 'owner');
  }

  #session() {
    if (!this.control.signedIn) {
      return { status: 401, body: { error: 'not_logged_in', detail: 'log in, or open a link that `footfall login` prints', set_up: !this.hasOwner() } };
    }
    const now = Date.now();
    return { body: { user: this.user, everything: this.#grants()['*'] === 'owner', expires_at: now + 7 * 24 * 60 * MINUTE, now } };
  }

  #enter(name) {
    this.user = name;
    this.control.signedIn = true;
    return { status: 204 };
  }

  #logIn({ name, password }) {
    if (this.users.get(name)?.password !== password) refuse(401, 'wrong_login', 'name or password is wrong');
    return this.#enter(name);
  }

  #setUp({ token, name, password }) {
    if (token !== this.setUpToken) refuse(403, 'wrong_link', 'this link is not valid: open the whole link that Footfall printed last');
    checkUserName(name);
    checkPassword('password', password);
    if (this.hasOwner()) refuse(409, 'set_up_done', 'there is an owner already: ask them for a user');
    this.addUser(name, password, OWNER);
    return this.#enter(name);
  }

  #password({ old, new: fresh }) {
    this.#grants();
    const user = this.users.get(this.user);
    if (!user) refuse(403, 'not_allowed', 'you may not do this; ask who owns this installation');
    if (user.password !== old) refuse(400, 'invalid', 'old: this is not your password', 'old');
    checkPassword('new', fresh);
    user.password = fresh;
    return { status: 204 };
  }

  #list(query) {
    const seen = this.seen(query);
    if (seen.length === 0) this.#grants();
    const sites = seen.map(([key, { site, declared }]) => ({
      key,
      name: site.name || key,
      snippet: `<script defer src="http://127.0.0.1:8080/f.js" data-site="${key}"></script>`,
      demo: key === 'shop' ? null : 'http://127.0.0.1:8080/demo/',
      role: (this.control.signedIn && this.#role(key)) || 'viewer',
      declared,
      public: site.public === true,
      goals: site.goals ?? [],
      filter: this.#links(query).find((link) => link.site === key)?.filter ?? {},
    }));
    return { body: { sites } };
  }

  #site(key) {
    this.#owner(key);
    const listed = this.sites.get(key);
    if (!listed) refuse(404, 'unknown_site', 'site: no such site is configured here');
    const shown = structuredClone(listed.site);
    for (const part of [shown, ...(shown.alert_webhooks ?? [])]) if (part.secret) part.secret = SET;
    return { body: { site: shown, declared: listed.declared } };
  }

  #putSite(key, written) {
    this.#owner(key);
    const before = this.sites.get(key);
    if (before?.declared) refuse(409, 'declared', 'this site stands in the settings file: change it there');
    if (!before) this.#everything();
    const site = { ...structuredClone(written), key };
    if (site.secret === SET) site.secret = before?.site.secret;
    for (const webhook of site.alert_webhooks ?? []) {
      if (webhook.secret === SET) webhook.secret = before?.site.alert_webhooks?.find(({ url }) => url === webhook.url)?.secret;
    }
    checkSite(site);
    this.sites.set(key, { site, declared: false });
    this.written(site);
    return { status: 204 };
  }

  #removeSite(key) {
    this.#owner(key);
    if (this.sites.get(key)?.declared) refuse(409, 'declared', 'this site stands in the settings file: change it there');
    for (const [id, { site }] of this.links) if (site === key) this.links.delete(id);
    return this.#gone(this.sites, key);
  }

  #gone(map, id) {
    if (!map.delete(id)) refuse(404, 'unknown', 'there is none of this id');
    return { status: 204 };
  }

  #putUser(name, { password, grants }) {
    this.#everything();
    checkUserName(name);
    checkGrants(grants);
    this.#notDeclared(name);
    const before = this.users.get(name);
    if (!before && password === undefined) refuse(400, 'invalid', 'password: a new user needs one', 'password');
    if (password !== undefined) checkPassword('password', password);
    if (grants['*'] !== 'owner') this.#keepAnOwner(name);
    this.users.set(name, { created_at: Date.now(), declared: false, ...before, grants, password: password ?? before?.password });
    return { status: 204 };
  }

  #removeUser(name) {
    this.#everything();
    this.#notDeclared(name);
    this.#keepAnOwner(name);
    const gone = this.#gone(this.users, name);
    if (name === this.user) this.control.signedIn = false;
    return gone;
  }

  #notDeclared(name) {
    if (this.users.get(name)?.declared) refuse(409, 'declared', 'this user stands in the settings file: change it there');
  }

  #keepAnOwner(name) {
    const owners = [...this.users].filter(([, { grants }]) => grants['*'] === 'owner').map(([owner]) => owner);
    if (owners.length === 1 && owners[0] === name) refuse(409, 'last_owner', 'this is the last user who owns everything: make another one first');
  }

  #makeKey({ name, grants }) {
    this.#everything();
    checkName(name);
    checkGrants(grants);
    const id = this.#id();
    this.keys.set(id, { id, name, grants, created_at: Date.now(), created_by: this.user });
    return { body: { id, token: `fk_${id}_${'q7Rk'.repeat(10)}xyz` } };
  }

  #makeLink({ name, site, filter = {}, expires_at = null }) {
    this.#owner(site);
    checkName(name);
    if (expires_at !== null && expires_at <= Date.now()) refuse(400, 'invalid', 'expires_at: this time is over already', 'expires_at');
    const id = this.#id();
    const url = this.addLink(id, { token: `${id}.${'m3Xw'.repeat(8)}`, name, site, filter, expires_at });
    return { body: { id, url } };
  }

  #id() {
    this.#ids += 1;
    return (0x5eed_0000 + this.#ids).toString(16);
  }

  #facts(key) {
    this.#viewer(key);
    const none = { received: 0, accepted: 0, stored: 0, connected: 0, refused: [], last_event_at: null };
    return { body: { ...none, ...this.counted(key), origins: this.sites.get(key).site.origins, ...this.doctor.get(key) } };
  }
}
