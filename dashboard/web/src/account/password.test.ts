import { expect, it } from 'vitest';
import { isUserName, makePassword, strength } from './password';

it.each([
  ['', 'short'],
  ['1234567', 'short'],
  ['12345678', 'fair'],
  ['123456789012', 'good'],
  ['1234567890123456', 'strong'],
  ['🦀🦀🦀🦀', 'short'],
])('%s is %s', (password, rated) => expect(strength(password)).toBe(rated));

it('a made password is strong, and never the same', () => {
  const made = Array.from({ length: 50 }, makePassword);
  expect(new Set(made).size).toBe(50);
  for (const password of made) expect(password).toMatch(/^[a-z2-9]{5}(-[a-z2-9]{5}){3}$/);
});

it.each([['ada@example.com', true], ['ada', true], ['Ada', false], ['', false], ['a b', false], ['x'.repeat(65), false]])('%s is a name: %s', (name, is) =>
  expect(isUserName(name)).toBe(is));
