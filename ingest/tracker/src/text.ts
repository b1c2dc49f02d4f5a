const encoder = new TextEncoder();

/** Length in bytes of UTF-8. */
export const bytesOf = (text: string): number => encoder.encode(text).length;

/** The longest start of `text` that fits in `bytes`, never half a character; a lone surrogate becomes U+FFFD. */
export function clip(text: string, bytes: number): string {
  // As part of a stream, a half character at the end waits for its other half.
  return new TextDecoder().decode(encoder.encode(text).subarray(0, bytes), { stream: true });
}
