// Accounts and settings in Chromium against the stand-in server: npm run build && npm run test:browser
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { furnish } from '../mock/furnish.mjs';
import { start } from '../mock/server.mjs';
import { launch, open } from './browser.mjs';

let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

/** A page at `hash`; `as`: who is signed in, of the furnished stand-in. */
async function at(test, hash, { as = 'ada@example.com', empty = false, prepare, width = 1280 } = {}) {
  const mock = await start({ signedIn: as !== null, tickMs: 100, ...(empty && { sites: {} }) });
  mock.control.paused = true;
  test.after(() => mock.stop());
  if (!empty) furnish(mock);
  if (as !== null) mock.accounts.user = as;
  prepare?.(mock);
  const { page, context, complaints } = await open(browser, `${mock.url}/${hash}`, { viewport: { width, height: 900 } });
  test.after(() => context.close());
  page.setDefaultTimeout(10_000);
  return { mock, page, complaints };
}

const press = (page, name) => page.getByRole('button', { name }).click();
const heading = (page, name) => page.getByRole('heading', { level: 1, name }).waitFor();
const says = (page, text) => page.getByRole('status').filter({ hasText: text }).waitFor();
/** What a field's line tells those who listen. */
const described = (field) => field.evaluate((input) => document.getElementById(input.getAttribute('aria-describedby')).textContent);
const site = (mock, key = 'demo') => mock.accounts.sites.get(key).site;

describe('from the first start', () => {
  it('an owner is made, adds a site, a goal and a rule, shares it, lets somebody watch, and signs out', async (test) => {
    const { mock, page, complaints } = await at(test, '#/set-up/first-one', { as: null, empty: true });
    await heading(page, 'Set up Footfall');
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password', { exact: true }).fill('long enough');
    await page.getByLabel('The same once more').fill('long enough');
    await press(page, 'Create the account');

    await heading(page, 'Add your first site');
    assert.doesNotMatch(page.url(), /set-up/, 'the token stays out of the history');
    await page.getByLabel('Name').fill('My Blog');
    assert.equal(await page.getByLabel('Key').inputValue(), 'my-blog');
    await page.getByLabel('Origins').fill('blog.example');
    await press(page, 'Add the site');
    await heading(page, 'Install: My Blog');
    assert.match(await page.getByTestId('snippet').innerText(), /data-site="my-blog"/);
    assert.deepEqual(site(mock, 'my-blog').origins, ['https://blog.example']);

    await page.getByRole('link', { name: 'Settings' }).click();
    await press(page, 'Add a goal');
    await page.getByLabel('Goal', { exact: true }).fill('Signed up');
    await page.getByLabel('Page or event').fill('signup');
    await press(page, 'Save');
    await says(page, 'The settings are saved.');
    assert.deepEqual(site(mock, 'my-blog').goals, [{ name: 'Signed up', event: 'signup' }]);

    await page.getByRole('link', { name: 'Alerts' }).click();
    await press(page, /^Goal reached/);
    assert.match(await page.getByTestId('sentence').innerText(), /at least 1 “signup” events within 5 minutes/);
    await press(page, 'Save');
    await page.getByRole('button', { name: 'Edit Goal: Signed up' }).waitFor();
    assert.deepEqual(site(mock, 'my-blog').alerts, [{ name: 'Goal: Signed up', kind: 'threshold', minutes: 5, event: 'signup', at_least: 1, cooldown_minutes: 5 }]);
    assert.deepEqual(site(mock, 'my-blog').goals, [{ name: 'Signed up', event: 'signup' }], 'what another screen wrote stays');

    await page.getByRole('link', { name: 'Share' }).click();
    await page.getByLabel('What it is for').fill('Office');
    await press(page, 'Make the link');
    assert.match(await page.getByTestId('made-link').innerText(), /\/s\/my-blog\?share=/);

    await press(page, /^Account/);
    await page.getByRole('link', { name: 'Users' }).click();
    await press(page, 'Add a user');
    await page.getByLabel('Name').fill('grace');
    await page.getByRole('textbox', { name: 'Password' }).fill('battery staple');
    await page.getByLabel('My Blog', { exact: true }).selectOption('viewer');
    await press(page, 'Save');
    await page.getByText('watches My Blog').waitFor();
    await press(page, /^Account/);
    await press(page, 'Sign out');

    await page.getByLabel('Name').fill('grace');
    await page.getByLabel('Password').fill('battery staple');
    await page.keyboard.press('Enter');
    await page.getByRole('link', { name: 'Live' }).waitFor();
    for (const name of ['Settings', 'Alerts', 'Share']) assert.equal(await page.getByRole('link', { name }).count(), 0, name);
    await press(page, /^Account/);
    for (const name of ['Users', 'API keys']) assert.equal(await page.getByRole('link', { name }).count(), 0, name);
    await page.goto(`${mock.url}/#/settings/my-blog`);
    await page.getByText('You may watch this site, not change it.').waitFor();
    assert.deepEqual(complaints.filter((text) => !/401/.test(text)), []);
  });

  it('says where the set-up link is to be found, and what a used one is', async (test) => {
    const { mock, page } = await at(test, '', { as: null, empty: true });
    await heading(page, 'Nobody has an account yet');
    await page.getByText(`${mock.url}/#/set-up/…`).waitFor();
    await page.goto(`${mock.url}/#/set-up/another`);
    await heading(page, 'Set up Footfall');
    await page.getByLabel('Name').fill('Ada');
    await page.getByLabel('Password', { exact: true }).fill('short');
    await press(page, 'Create the account');
    assert.match(await described(page.getByLabel('Name')), /Write 1 to 64/);
    assert.match(await described(page.getByLabel('Password', { exact: true })), /Shorter/);
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password', { exact: true }).fill('long enough');
    await page.getByLabel('The same once more').fill('long enoughh');
    await press(page, 'Create the account');
    assert.match(await described(page.getByLabel('The same once more')), /not the same/);
    await page.getByLabel('The same once more').fill('long enough');
    await press(page, 'Create the account');
    await page.getByRole('alert').getByText('This link opens nothing').waitFor();
    assert.equal(mock.accounts.users.size, 0);
  });
});

describe('signing in', () => {
  it('is wrong, then right, and leads where the address says', async (test) => {
    const { page } = await at(test, '#/alerts/demo', { as: null });
    await page.getByLabel('Name').fill('grace');
    await page.getByLabel('Password').fill('wrong');
    await press(page, 'Sign in');
    await page.getByRole('alert').getByText('Name or password is wrong.').waitFor();
    assert.equal(await page.getByLabel('Name').inputValue(), 'grace');
    assert.equal(await page.evaluate(() => document.activeElement.name), 'password');
    await page.keyboard.type('battery staple');
    await page.keyboard.press('Enter');
    await heading(page, 'Alerts: Demo shop');
  });

  it('waits as long as the node says', async (test) => {
    const { mock, page } = await at(test, '', { as: null });
    mock.accounts.refusals.push({ status: 429, body: { error: 'too_many', detail: 'too many attempts: try again in 2 s' }, headers: { 'retry-after': '2' } });
    await page.getByLabel('Name').fill('grace');
    await page.getByLabel('Password').fill('battery staple');
    await press(page, 'Sign in');
    await page.getByRole('alert').getByText('Too many attempts. Wait 2s').waitFor();
    assert.equal(await page.getByRole('button', { name: /^Sign in \(in/ }).isDisabled(), true);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('link', { name: 'Live' }).waitFor();
  });

  it('can be done by a password manager', async (test) => {
    const { page } = await at(test, '', { as: null });
    await page.getByLabel('Name').waitFor();
    const kinds = await page.locator('input').evaluateAll((all) => all.map(({ autocomplete, type }) => [autocomplete, type]));
    assert.deepEqual(kinds, [['username', 'text'], ['current-password', 'password']]);
    // Some fill in without telling.
    await page.evaluate(() => {
      document.querySelector('[name=username]').value = 'grace';
      document.querySelector('[name=password]').value = 'battery staple';
      document.querySelector('form').requestSubmit();
    });
    await page.getByRole('link', { name: 'Live' }).waitFor();
  });

  it('a password is changed, with the old one', async (test) => {
    const { mock, page } = await at(test, '#/password', { as: 'grace' });
    await page.getByLabel('Password until now').fill('guess');
    await page.getByLabel('New password').fill('a new long one');
    await page.getByLabel('The same once more').fill('a new long one');
    await press(page, 'Change password');
    await page.getByText('This is not your password').waitFor();
    assert.equal(await page.getByLabel('New password').inputValue(), 'a new long one');
    await page.getByLabel('Password until now').fill('battery staple');
    await press(page, 'Change password');
    await says(page, 'The password is changed.');
    assert.equal(mock.accounts.users.get('grace').password, 'a new long one');
  });
});

describe('a site', () => {
  it('keeps what was typed when the node refuses a field, and says why there', async (test) => {
    const { mock, page } = await at(test, '#/settings/demo');
    await page.getByLabel('Name').fill('Renamed');
    mock.accounts.refusals.push({ status: 400, body: { error: 'invalid', detail: 'origins: no such name is registered', field: 'origins' } });
    await press(page, 'Save');
    await page.getByText('No such name is registered').waitFor();
    assert.equal(await described(page.getByLabel('Origins', { exact: true })), 'No such name is registered');
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-invalid')), 'true');
    assert.equal(await page.getByLabel('Name').inputValue(), 'Renamed');
    mock.accounts.refusals.push({ status: 503, body: { error: 'log_unavailable', detail: 'the log cannot be written' } });
    await press(page, 'Save');
    await page.getByText('Nothing was changed: the log cannot be written.').waitFor();
    assert.equal(site(mock).name, 'Demo shop');
    await press(page, 'Save');
    await says(page, 'The settings are saved.');
    assert.equal(site(mock).name, 'Renamed');
    await page.getByLabel('Site').getByText('Renamed').waitFor({ state: 'attached' });
  });

  it('keeps what others have changed meanwhile, and its secrets', async (test) => {
    const { mock, page } = await at(test, '#/settings/demo');
    await page.getByLabel('Name').fill('Renamed');
    site(mock).alerts = [];
    await press(page, 'Save');
    await says(page, 'The settings are saved.');
    assert.deepEqual([site(mock).alerts, site(mock).secret, site(mock).alert_webhooks[0].secret], [[], '0f'.repeat(32), 'aa'.repeat(32)]);
    await press(page, 'Replace');
    await press(page, 'Generate');
    const fresh = await page.getByLabel('New secret').inputValue();
    assert.match(fresh, /^[0-9a-f]{64}$/);
    await press(page, 'Save');
    await page.getByText('A secret is set.').waitFor();
    assert.equal(site(mock).secret, fresh);
    assert.ok(!(await page.content()).includes(fresh));
  });

  it('of the settings file is read-only and says where it is changed', async (test) => {
    const { page } = await at(test, '#/settings/shop');
    await page.getByText('This site stands in the settings file.').waitFor();
    assert.equal(await page.getByLabel('Name').isDisabled(), true);
    for (const name of ['Save', 'Remove this site']) assert.equal(await page.getByRole('button', { name }).count(), 0);
    await page.goto(page.url().replace('settings', 'alerts'));
    await page.getByText('This site stands in the settings file.').waitFor();
    assert.equal(await page.getByRole('button', { name: /^Spike/ }).count(), 0);
  });

  it('is removed once its key is typed', async (test) => {
    const { mock, page } = await at(test, '#/settings/demo');
    await press(page, 'Remove this site');
    const remove = page.getByRole('dialog').getByRole('button', { name: 'Remove' });
    assert.equal(await remove.isDisabled(), true);
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Remove this site', 'the focus comes back');
    await press(page, 'Remove this site');
    await page.getByLabel('Type demo to go on').fill('demo');
    await remove.click();
    await heading(page, 'Sites');
    assert.equal(mock.accounts.sites.has('demo'), false);
    assert.equal(await page.getByRole('option', { name: 'Demo shop' }).count(), 0);
  });

  it('is not written over by a new one of the same key', async (test) => {
    const { mock, page } = await at(test, '#/new-site');
    await page.getByLabel('Name').fill('Another');
    await page.getByLabel('Key').fill('demo');
    await page.getByLabel('Origins').fill('https://a.example');
    await press(page, 'Add the site');
    assert.match(await described(page.getByLabel('Key')), /a site with this key already/);
    // Made by somebody else since this page has read the list.
    mock.accounts.sites.set('late', { site: { key: 'late', origins: ['*'] }, declared: false });
    await page.getByLabel('Key').fill('late');
    await press(page, 'Add the site');
    await page.getByText('There is a site with this key already.').waitFor();
    assert.deepEqual(site(mock, 'late').origins, ['*']);
  });
});

describe('alerts', () => {
  it('open firings stand on top; a rule is changed, its error told at its field, and removed', async (test) => {
    const { mock, page } = await at(test, '#/alerts/demo');
    await page.getByTestId('firings').getByRole('listitem').first().waitFor();
    const states = await page.getByTestId('firings').getByRole('listitem').evaluateAll((all) => all.map(({ dataset }) => dataset.state));
    assert.deepEqual(states, ['open', 'over', 'over']);
    await press(page, 'Edit Spike');
    await page.getByLabel('Within minutes').fill('15');
    await press(page, 'Save');
    assert.equal(await described(page.getByLabel('Within minutes')), 'Write whole minutes, 1 to 14.');
    await page.getByLabel('Within minutes').fill('7');
    mock.accounts.refusals.push({ status: 400, body: { error: 'invalid', detail: 'alert "Spike": min: too few for this plan', field: 'alerts' } });
    await press(page, 'Save');
    await page.getByText('Too few for this plan').waitFor();
    assert.equal(await described(page.getByLabel('Only from')), 'Too few for this plan');
    await press(page, 'Save');
    await page.getByRole('button', { name: 'Edit Spike' }).waitFor();
    await page.getByText('within 7 minutes are at least 3 times').waitFor();
    assert.equal(site(mock).alerts[0].minutes, 7);
    await press(page, 'Remove 404 surge');
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await says(page, 'The rule 404 surge is removed.');
    assert.deepEqual(site(mock).alerts.map(({ name }) => name), ['Spike', 'Nothing since the deploy', 'Goal: Signed up']);
  });

  it('a webhook is added with a secret of its own, and those of the others stay', async (test) => {
    const { mock, page } = await at(test, '#/alerts/demo');
    await press(page, 'Add a webhook');
    await page.getByLabel('Address').fill('https://new.example/hook');
    await press(page, 'Generate');
    await press(page, 'Save');
    await says(page, 'The webhooks are saved.');
    const [old, fresh] = site(mock).alert_webhooks;
    assert.deepEqual([old.secret, fresh.url], ['aa'.repeat(32), 'https://new.example/hook']);
    assert.match(fresh.secret, /^[0-9a-f]{64}$/);
  });
});

describe('who may look', () => {
  it('a link shows the view that was looked at, and is revoked', async (test) => {
    const { mock, page } = await at(test, '#/live/demo?country=DE');
    await page.getByRole('link', { name: 'Share' }).click();
    await page.getByText('as in the view you looked at').waitFor();
    await page.getByLabel('What it is for').fill('Germany');
    await page.getByLabel('Works').selectOption('7');
    await press(page, 'Make the link');
    await page.getByTestId('made-link').waitFor();
    const [id, link] = [...mock.accounts.links].at(-1);
    assert.deepEqual(link.filter, { country: 'DE' });
    const address = new URL(await page.getByTestId('made-link').innerText());
    mock.control.signedIn = false;
    mock.accounts.sites.get('demo').site.public = false;
    const other = await page.context().newPage();
    await other.goto(`${mock.url}${address.pathname}${address.search}${address.hash}`);
    await other.locator('[data-filter=country]').waitFor();
    await other.getByTestId('row').first().waitFor();
    assert.equal(await other.getByText('This link shows a part of the site only').count(), 2);
    await other.close();
    mock.control.signedIn = true;
    assert.ok(Math.abs(link.expires_at - Date.now() - 7 * 86_400_000) < 60_000);
    await press(page, 'Revoke the link Germany');
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await says(page, 'The link Germany is revoked.');
    assert.equal(mock.accounts.links.has(id), false);
  });

  it('a key’s token is shown once', async (test) => {
    const { page } = await at(test, '#/keys');
    await page.getByLabel('What it is for').fill('Report');
    await press(page, 'Make the key');
    await page.getByText('Choose at least one site.').waitFor();
    await page.getByLabel('Demo shop', { exact: true }).selectOption('viewer');
    await press(page, 'Make the key');
    const token = await page.getByTestId('token').innerText();
    assert.match(token, /^fk_/);
    await page.reload();
    await page.getByTestId('keys').getByText('Report', { exact: true }).waitFor();
    assert.ok(!(await page.content()).includes(token));
  });

  it('who stands in the settings file is not changed here', async (test) => {
    const { page } = await at(test, '#/users');
    await page.getByRole('button', { name: 'Edit grace' }).waitFor();
    await page.getByText('settings file', { exact: true }).waitFor();
    for (const name of ['Edit wall-screen', 'Remove wall-screen']) assert.equal(await page.getByRole('button', { name }).count(), 0, name);
  });

  it('the last owner stays', async (test) => {
    const { mock, page } = await at(test, '#/users');
    await press(page, 'Remove ada@example.com');
    await page.getByLabel('Type ada@example.com to go on').fill('ada@example.com');
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('alert').getByText('this is the last user who owns everything').waitFor();
    assert.ok(mock.accounts.users.has('ada@example.com'));
  });
});

describe('the install page', () => {
  it('says why nothing arrives, allows the origin, and turns green with the first event', async (test) => {
    const { mock, page } = await at(test, '#/install/empty');
    await page.locator('[data-testid=first-event][data-state=waiting]').waitFor();
    const findings = page.getByTestId('findings').getByRole('listitem');
    await findings.first().waitFor();
    assert.deepEqual(await findings.evaluateAll((all) => all.map(({ dataset }) => dataset.reason)), ['origin_denied', 'bad_props']);
    await press(page, 'Allow https://www.empty.example');
    await says(page, 'Events from https://www.empty.example are taken from now on.');
    assert.deepEqual(site(mock, 'empty').origins, ['https://empty.example', 'https://www.empty.example']);
    await page.locator('[data-reason=origin_denied]').waitFor({ state: 'detached' });
    mock.feeds.get('empty').site.perSecond = 200;
    mock.control.paused = false;
    mock.tick();
    mock.control.paused = true;
    await page.locator('[data-testid=first-event][data-state=seen]').waitFor();
  });

  it('names what to look at when nothing reaches it, the policy’s line with it', async (test) => {
    const { page } = await at(test, '#/install/empty', { prepare: (mock) => mock.accounts.doctor.clear() });
    await page.getByTestId('checks').waitFor();
    assert.equal(await page.getByTestId('policy').innerText(), 'script-src http://127.0.0.1:8080; connect-src http://127.0.0.1:8080 ws://127.0.0.1:8080');
  });

  it('offers to change a site only to who may', async (test) => {
    const { page } = await at(test, '#/install/empty', { as: 'wall-screen' });
    await page.getByText('Whoever owns this site can allow it.').waitFor();
    assert.equal(await page.getByRole('button', { name: /^Allow/ }).count(), 0);
  });
});

describe('the keyboard', () => {
  it('skips to the content, opens and leaves the menu, and follows to the screen', async (test) => {
    const { page } = await at(test, '#/sites');
    await heading(page, 'Sites');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent.trim()), 'Skip to the content');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
    const menu = page.getByRole('button', { name: /^Account/ });
    await menu.focus();
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Sites');
    await page.keyboard.press('Escape');
    assert.equal(await menu.getAttribute('aria-expanded'), 'false');
    assert.equal(await menu.evaluate((button) => button === document.activeElement), true);
    await page.keyboard.press('Enter');
    await page.getByRole('link', { name: 'Users' }).press('Enter');
    await heading(page, 'Users');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  });

  it('nothing is wider than a phone', async (test) => {
    const { page } = await at(test, '#/sites', { width: 360 });
    for (const screen of ['sites', 'users', 'keys', 'password', 'alerts/demo', 'share/demo', 'settings/demo', 'install/empty']) {
      await page.evaluate((hash) => (location.hash = hash), `#/${screen}`);
      await page.waitForTimeout(300);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, screen);
    }
  });
});
