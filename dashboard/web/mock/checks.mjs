// What a node checks of what is written, as far as the page has to show it.

export const MINUTE = 60_000;

/** Throws an answer: `{"error": reason, "detail": text, "field"?: name}`. */
export function refuse(status, error, detail, field) {
  throw Object.assign(new Error(detail), { answer: { status, body: { error, detail, ...(field && { field }) } } });
}

const wrong = (field, detail) => refuse(400, 'invalid', detail, field);

export function checkUserName(name) {
  if (!/^[a-z0-9._@+-]{1,64}$/.test(name)) wrong('name', `name: "${name}" is not 1 to 64 of a-z 0-9 . _ @ + -`);
}

export function checkPassword(field, password) {
  if ([...password].length < 8) wrong(field, 'password: shorter than 8 characters; choose a longer one');
}

export function checkName(name) {
  if (name.trim() === '' || [...name].length > 64) wrong('name', 'name: write 1 to 64 characters on one line');
}

export function checkGrants(grants) {
  const scope = Object.keys(grants).find((key) => key !== '*' && !/^[a-z0-9_.-]{1,64}$/.test(key));
  if (scope !== undefined) wrong('grants', `grants: "${scope}" is neither a site's key nor "*"`);
}

const FIELDS = ['key', 'name', 'origins', 'enabled', 'secret', 'tracker', 'query_allowlist', 'path_rules', 'session_gap_minutes', 'goals', 'public', 'embed_origins', 'alerts', 'alert_webhooks'];

export function checkSite(site) {
  const unknown = Object.keys(site).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined) wrong(unknown, `unknown field \`${unknown}\``);
  for (const field of ['origins', 'embed_origins']) {
    for (const origin of site[field] ?? []) {
      if (origin !== '*' && !/^https?:\/\/(\*\.)?[a-z0-9.-]+(:(\*|\d+))?$/.test(origin)) wrong(field, `"${origin}" is no origin: write https://example.com, https://*.example.com, http://localhost:* or *`);
    }
  }
  if (site.origins.length === 0) wrong('origins', `origins: site "${site.key}" allows no origin, so no page could send; name its origins`);
  const gap = site.session_gap_minutes ?? 30;
  if (!(gap >= 1 && gap <= 720)) wrong('session_gap_minutes', `session_gap_minutes: site "${site.key}" has ${gap}, which is not 1 to 720`);
  for (const secret of [site.secret, ...(site.alert_webhooks ?? []).map((webhook) => webhook.secret ?? '')]) {
    if (secret !== undefined && !/^[0-9a-f]{64}$/i.test(secret)) wrong('secret', 'secret: write 64 hexadecimal digits (openssl rand -hex 32)');
  }
  for (const { name, kind, page, event, measure, at_least, factor, min, minutes, cooldown_minutes, ...rest } of site.alerts ?? []) {
    const invalid = (key, reason) => wrong('alerts', `alert "${name}": ${key}: ${reason}`);
    const longest = { threshold: 29, change: 14, silence: 25 }[kind];
    if (Object.keys(rest).length > 0) wrong('alerts', `unknown field \`${Object.keys(rest)[0]}\``);
    if (kind === 'threshold' ? !(at_least > 0) : at_least !== undefined) invalid('at_least', 'say how many must come, 1 or more');
    if (kind === 'change' ? !(factor >= 0 && factor <= 1000 && factor !== 1) : factor !== undefined) invalid('factor', 'write 3.0 for three times as many, 0.2 for a fifth; 0 to 1000 and not 1');
    if (kind === 'change' ? !(min > 0) : min !== undefined) invalid('min', 'say how many are worth a word, 1 or more: few numbers change by chance');
    if (!(minutes >= 1 && minutes <= longest)) invalid('minutes', `${minutes} is not 1 to ${longest}, of kind "${kind}"`);
    if (!(cooldown_minutes >= 1 && cooldown_minutes <= 1440)) invalid('cooldown_minutes', `${cooldown_minutes} is not 1 to 1440`);
    if ([page, event, measure].filter((one) => one !== undefined).length > 1) invalid('measure / page / event', 'give one of them, or none');
  }
  for (const { name, page, event } of site.goals ?? []) {
    if ((page === undefined) === (event === undefined)) wrong('goals', `goal "${name}": event / page: give one of them`);
  }
}
