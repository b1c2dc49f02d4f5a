/** What the site asks of its trackers, applied before anything leaves the browser. */

import type { Settings } from "./protocol";

/** Campaigns and click ids: what stays of query and fragment in any case. */
const KEPT = "utm_\\w+|\\w*(?:clk?|bra|fat_)id";

export interface Rules {
  /** What stays of query and fragment. */
  kept: RegExp;
  /** The address to tell; nothing when the site wants nothing of the page. */
  tell: (url: string) => string | undefined;
}

const escape = (text: string) => text.replace(/[^\w]/g, "\\$&");

/** `*` is one whole segment of a path, `**` at the end any number of them. */
export const patternOf = (pattern: string): RegExp =>
  RegExp(`^${pattern.replace(/\/\*\*$|\*|[^*\w/]/g, (part) => (part === "*" ? "[^/]+" : part[1] ? "(/.*)?" : `\\${part}`))}$`);

export function rulesOf({ hash_routes, query_params = [], ignore_paths = [], mask_paths = [] }: Settings): Rules {
  const ignored = ignore_paths.map(patternOf);
  const masked = mask_paths.map((pattern) => [patternOf(pattern), pattern] as const);
  const names = [KEPT, ...query_params.map(escape)].join("|");
  return {
    kept: RegExp(`[?&](${names})=[^&#]*${hash_routes ? "|#.*" : ""}`, "g"),
    tell(text) {
      const url = new URL(text);
      if (ignored.some((pattern) => pattern.test(url.pathname))) return;
      const mask = masked.find(([pattern]) => pattern.test(url.pathname));
      return mask ? text.replace(url.pathname, mask[1]) : text;
    },
  };
}

/** Whether the browser asks not to be counted. */
export const objects = (): boolean => {
  const { doNotTrack, globalPrivacyControl } = navigator as Navigator & { globalPrivacyControl?: boolean };
  return globalPrivacyControl === true || doNotTrack === "1";
};
