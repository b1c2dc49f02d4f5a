// What is asked of names and passwords, as dashboard/src/password.rs and schemas/src/directory.rs have it.

export const MIN_CHARS = 8;
/** From here on guessing takes too long, whatever it is made of. */
const GOOD_CHARS = 12;
const STRONG_CHARS = 16;

export type Strength = 'short' | 'fair' | 'good' | 'strong';

/** By length alone: it is what counts most, and rules about characters make people write passwords down. */
export function strength(password: string): Strength {
  const chars = [...password].length;
  if (chars < MIN_CHARS) return 'short';
  if (chars < GOOD_CHARS) return 'fair';
  return chars < STRONG_CHARS ? 'good' : 'strong';
}

export const isUserName = (name: string): boolean => /^[a-z0-9._@+-]{1,64}$/.test(name);

/** 20 characters of 5 random bits each, in groups that can be read out. */
export function makePassword(): string {
  const letters = 'abcdefghijkmnpqrstuvwxyz23456789';
  const bytes = crypto.getRandomValues(new Uint8Array(20));
  const text = [...bytes].map((byte) => letters.charAt(byte % 32)).join('');
  return (text.match(/.{5}/g) ?? []).join('-');
}
