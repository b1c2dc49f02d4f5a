// Accounts of a firm that has used Footfall for a while: for looking at the screens with something on them.
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

export function furnish({ accounts }) {
  const now = Date.now();
  accounts.addUser('ada@example.com', 'correct horse', { '*': 'owner' });
  accounts.addUser('grace', 'battery staple', { demo: 'owner', shop: 'viewer' });
  accounts.addUser('wall-screen', 'paper clip 99', { '*': 'viewer' }, true);
  accounts.user = 'ada@example.com';
  Object.assign(accounts.sites.get('demo').site, {
    origins: ['https://demo.example', 'https://*.demo.example', 'http://localhost:*'],
    public: true,
    embed_origins: ['https://blog.example'],
    query_allowlist: ['q'],
    secret: '0f'.repeat(32),
    alerts: [
      { name: 'Spike', kind: 'change', factor: 3, min: 100, minutes: 5, cooldown_minutes: 5 },
      { name: '404 surge', kind: 'threshold', page: '/404', at_least: 50, minutes: 5, cooldown_minutes: 10 },
      { name: 'Nothing since the deploy', kind: 'silence', measure: 'events', minutes: 10, cooldown_minutes: 5 },
      { name: 'Goal: Signed up', kind: 'threshold', event: 'signup', at_least: 1, minutes: 5, cooldown_minutes: 5 },
    ],
    alert_webhooks: [{ url: 'https://hooks.example/services/T0/B1/x', secret: 'aa'.repeat(32) }],
  });
  accounts.firings.set('demo', [
    { id: '1', site: 'demo', rule: 'Spike', kind: 'change', opened_at: now - 26 * HOUR, resolved_at: now - 25.6 * HOUR, value: 1_842.5, threshold: 1_200, text: '' },
    { id: '2', site: 'demo', rule: '404 surge', kind: 'threshold', opened_at: now - 7 * 60_000, value: 57.5, threshold: 50, text: '' },
    { id: '3', site: 'demo', rule: 'Nothing since the deploy', kind: 'silence', opened_at: now - 3 * HOUR, resolved_at: now - 2.8 * HOUR, value: 12, threshold: 10, text: '' },
  ]);
  accounts.keys.set('5eed1234', { id: '5eed1234', name: 'Nightly report', grants: { demo: 'viewer' }, created_at: now - 40 * DAY, created_by: 'ada@example.com' });
  const link = (id, more) => accounts.addLink(id, { token: `${id}.m3XwPq`, site: 'demo', created_at: now - 3 * DAY, ...more });
  link('a1', { name: 'Screen in the office', filter: {}, expires_at: null });
  link('a2', { name: 'Agency, autumn campaign', filter: { campaign: 'autumn-sale', country: 'DE' }, expires_at: now + 20 * DAY });
  link('a3', { name: 'Board meeting', filter: {}, expires_at: now - DAY, created_at: now - 9 * DAY });
  accounts.doctor.set('empty', {
    received: 62,
    connected: 0,
    refused: [
      { reason: 'origin_denied', count: 41, last_at: now - 4_000, detail: "origin: https://www.empty.example is not among the site's; add it to `origins` under [[sites]]" },
      { reason: 'bad_props', count: 21, last_at: now - 30_000, detail: 'p.colour: longer than 512 bytes; shorten it' },
    ],
  });
}
