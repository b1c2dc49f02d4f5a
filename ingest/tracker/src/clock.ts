/** ms since this page load began, by the monotonic clock. */
export const now = (): number => Math.round(performance.now());

/** Names this page load: 48 bits of wall clock, then 48 random bits, in hex. */
export function newStream(): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  const random = crypto.getRandomValues(new Uint8Array(6));
  return hex(Date.now(), 12) + Array.from(random, (byte) => hex(byte, 2)).join("");
}
