/** Attention that one page view got: time while the page was visible and focused, and the largest scroll depth. */
export interface Engagement {
  /** From `at` on the page has the visitor's attention, or has not. */
  attend(attended: boolean, at: number): void;
  scrolled(percent: number): void;
  /** What has come since the last time it was taken; nothing without attention. */
  take(at: number): { d: number; s: number } | undefined;
}

export function createEngagement(): Engagement {
  let attending = false;
  let since = 0;
  let spent = 0;
  let depth = 0;

  const attend = (attended: boolean, at: number) => {
    if (attending) spent += at - since;
    attending = attended;
    since = at;
  };
  return {
    attend,
    scrolled(percent) {
      depth = Math.max(depth, Math.min(100, Math.round(percent)) || 0);
    },
    take(at) {
      attend(attending, at);
      const d = spent;
      spent = 0;
      return d ? { d, s: depth } : undefined;
    },
  };
}
