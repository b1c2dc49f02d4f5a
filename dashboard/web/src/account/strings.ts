// Texts of the ways in: signing in, the first owner, a new password.

import type { Strength } from './password';

export const account = {
  signIn: {
    title: 'Sign in',
    name: 'Name',
    password: 'Password',
    submit: 'Sign in',
    busy: 'Signing in…',
    missing: 'Write your name and your password.',
    wrong: 'Name or password is wrong.',
    tooMany: (wait: string) => `Too many attempts. Wait ${wait}, then try again.`,
    submitIn: (seconds: string) => `Sign in (in ${seconds})`,
    failed: (reason: string) => `Signing in did not work: ${reason}.`,
    link: {
      title: 'No password at hand?',
      lead: 'On the machine that runs Footfall, type',
      command: 'footfall login',
      end: 'and open the link it prints. It works once.',
      again: 'I have opened it: try again',
    },
  },
  firstTime: {
    title: 'Nobody has an account yet',
    lead: 'Footfall prints a set-up link when it starts. Whoever opens it makes the first account, which owns everything.',
    where: 'Look for this in what Footfall printed, or in its log:',
    example: (origin: string) => `${origin}/#/set-up/…`,
    again: 'It is printed at every start until the first account is made.',
  },
  setUp: {
    title: 'Set up Footfall',
    lead: 'This makes the first account. It owns everything: sites, users and keys.',
    name: 'Name',
    nameHelp: 'Your mail address will do, in small letters.',
    submit: 'Create the account',
    busy: 'Creating…',
    wrongLink: 'This link opens nothing (any more). Open the whole link that Footfall printed last.',
    done: 'There is an owner already. Ask them for an account, or sign in.',
    signIn: 'Go to sign in',
  },
  password: {
    title: 'Change password',
    lead: (user: string) => `Of the account ${user}. Your other sessions end.`,
    operator: 'You came in by a link, as operator: there is no password to change. Make an account under Users.',
    old: 'Password until now',
    fresh: 'New password',
    label: 'Password',
    again: 'The same once more',
    submit: 'Change password',
    busy: 'Changing…',
    done: 'The password is changed.',
    show: 'Show',
    hide: 'Hide',
    strength: {
      short: 'At least 8 characters. Several words in a row are easy to remember and hard to guess.',
      fair: 'Long enough. Twelve characters or more are better.',
      good: 'Good.',
      strong: 'Very good.',
    } satisfies Record<Strength, string>,
  },
  invalid: {
    name: 'Write 1 to 64 of a–z, 0–9 and . _ @ + - .',
    short: 'Shorter than 8 characters.',
    differ: 'The two are not the same.',
    old: 'Write the password you have now.',
  },
};
