const encoder = new TextEncoder();

/** Length in bytes of UTF-8. */
export const bytesOf = (text: string): number => encoder.encode(text).length;

/** The longest start of `text` that fits in `bytes`, never half a character; a lone surrogate becomes U+FFFD. */
export function clip(text: string, bytes: number): string {
  const room = new Uint8Array(bytes);
  return new TextDecoder().decode(room.subarray(0, encoder.encodeInto(text, room).written));
}
