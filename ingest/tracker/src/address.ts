/** Campaigns and click ids. */
export const KEPT = /[?&](utm_|\w*(clk?|bra|fat_)id=)[^&#]*/g;

/** Cuts off query and fragment but for what is `kept`: they may hold anything, a password reset's token included. */
export const strip = (url: string, kept: RegExp): string => url.replace(/[?#].*/, (rest) => (rest.match(kept) || []).join("").replace(/^&/, "?"));
