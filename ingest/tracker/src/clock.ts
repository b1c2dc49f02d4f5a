/** ms since this page load began, by the monotonic clock. */
export const now = (): number => Math.round(performance.now());

/** Names this page load: 48 bits of wall clock, then 48 random bits, in hex. */
export function newStream(): string {
  // The added power of 16 keeps the leading zeros and is cut off.
  const time = (2 ** 48 + Date.now()).toString(16).slice(1);
  const random = [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => (256 + byte).toString(16).slice(1));
  return time + random.join("");
}
