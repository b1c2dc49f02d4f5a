const loaded = new Date().getTime();

/** ms since this page load began; by the wall clock, since this file ran, where there is no better one. */
export const now = (): number => {
  const { performance } = window as { performance?: Performance };
  return performance?.now ? Math.round(performance.now()) : new Date().getTime() - loaded;
};

/** ms since 1970 when `now` was 0. */
export const ORIGIN = loaded - now();

/** 16 bits in hex. */
function word(): string {
  const { crypto } = window as { crypto?: Crypto };
  const bits = crypto?.getRandomValues ? (crypto.getRandomValues(new Uint16Array(1))[0] ?? 0) : Math.floor(Math.random() * 65_536);
  return (65_536 + bits).toString(16).slice(1);
}

/** Names this page load: 48 bits of wall clock, then 48 random bits, in hex. */
export const newStream = (): string => (Math.pow(2, 48) + loaded).toString(16).slice(1) + word() + word() + word();
