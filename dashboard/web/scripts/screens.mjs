// The screens behind the live one: for screenshots and for axe. Each is opened as the furnished stand-in has it.
const press = (name) => async (page) => page.getByRole('button', { name }).first().click();
const none = (mock) => {
  for (const map of ['users', 'keys', 'links', 'sites']) mock.accounts[map].clear();
};

export const SCREENS = [
  { name: 'install', hash: '#/install/demo' },
  { name: 'install-refused', hash: '#/install/empty' },
  { name: 'install-waiting', hash: '#/install/empty', prepare: (mock) => mock.accounts.doctor.clear() },
  { name: 'alerts', hash: '#/alerts/demo' },
  { name: 'alerts-none', hash: '#/alerts/empty' },
  { name: 'alerts-edit', hash: '#/alerts/demo', act: press('Edit Spike') },
  { name: 'alerts-webhook', hash: '#/alerts/demo', act: press('Add a webhook') },
  { name: 'share', hash: '#/share/demo?country=DE' },
  { name: 'settings', hash: '#/settings/demo' },
  { name: 'settings-declared', hash: '#/settings/shop' },
  {
    name: 'settings-wrong',
    hash: '#/settings/demo',
    act: async (page) => {
      await page.getByLabel('Origins', { exact: true }).fill('shop.example');
      await page.getByRole('button', { name: 'Save' }).click();
    },
  },
  { name: 'settings-remove', hash: '#/settings/demo', act: press('Remove this site') },
  { name: 'sites', hash: '#/sites' },
  { name: 'new-site', hash: '#/new-site' },
  { name: 'users', hash: '#/users' },
  { name: 'users-edit', hash: '#/users', act: press('Edit grace') },
  { name: 'keys', hash: '#/keys' },
  {
    name: 'keys-made',
    hash: '#/keys',
    act: async (page) => {
      await page.getByLabel('What it is for').fill('Report');
      await page.getByLabel('Demo shop', { exact: true }).selectOption('viewer');
      await page.getByRole('button', { name: 'Make the key' }).click();
      await page.getByTestId('token').waitFor();
    },
  },
  { name: 'password', hash: '#/password' },
  { name: 'account-menu', hash: '#/sites', act: press(/^Account/) },
  { name: 'not-owner', hash: '#/settings/shop', prepare: (mock) => (mock.accounts.user = 'grace') },
  { name: 'first-site', prepare: (mock) => mock.accounts.sites.clear() },
  { name: 'sign-in', signedIn: false, expected: /401/ },
  {
    name: 'sign-in-wrong',
    signedIn: false,
    expected: /401/,
    act: async (page) => {
      await page.getByLabel('Name').fill('ada');
      await page.getByLabel('Password').fill('wrong');
      await page.keyboard.press('Enter');
      await page.getByText('Name or password is wrong.').waitFor();
    },
  },
  { name: 'first-time', signedIn: false, expected: /401/, prepare: none },
  { name: 'set-up', hash: '#/set-up/first-one', signedIn: false, prepare: none },
];
