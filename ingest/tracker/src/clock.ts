/** ms since this page load began, by the monotonic clock. */
export const now = (): number => Math.round(performance.now());

/** Names this page load: 48 bits of wall clock, then 48 random bits, in hex. */
export function newStream(): string {
  const random = Array.from(crypto.getRandomValues(new Uint16Array(3)), (word) => 2 ** 16 + word);
  // The added power of 16 keeps the leading zeros and is cut off.
  return [2 ** 48 + Date.now(), ...random].map((part) => part.toString(16).slice(1)).join("");
}
