/** Length in bytes of UTF-8. Throws when `text` holds half a character. */
export const bytesOf = (text: string): number => encodeURIComponent(text).replace(/%../g, "x").length;

/** The longest start of `text` that fits in `bytes`, without half characters. */
export function clip(text: string, bytes: number): string {
  const whole = text.replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])/g, "\uFFFD").replace(/(^|[^\uD800-\uDBFF])[\uDC00-\uDFFF]/g, "$1\uFFFD");
  let end = whole.length;
  // A character of 16 bits is 3 bytes at most, so most texts are not cut at all.
  while (end * 3 > bytes) {
    const start = whole.slice(0, end);
    if (!/[\uD800-\uDBFF]$/.test(start) && bytesOf(start) <= bytes) break;
    end--;
  }
  return whole.slice(0, end);
}
