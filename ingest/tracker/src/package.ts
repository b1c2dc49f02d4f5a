/**
 * The npm package: loads the tracker from your node, so that both are of one version, and answers before it is there.
 *
 * ```ts
 * import { init, track } from "footfall-tracker";
 * init({ site: "shop", node: "https://stats.example" });
 * track("signup", { props: { plan: "pro" } });
 * ```
 */

import type { Footfall, Options, State } from "./main";

export type { Footfall, Options, State };

export interface Settings {
  /** Key of the site. */
  site: string;
  /** Where `f.js` lies: the node, or a path of your own site that leads to it. */
  node: string;
  /** Files that the tracker loads besides: `links`, `vitals`, `autocapture`. */
  modules?: ("links" | "vitals" | "autocapture")[];
  /** Counts pages of this machine and automated browsers, too. */
  include?: ("localhost" | "automation")[];
  /** `false`: nothing is written to storage. */
  storage?: boolean;
  /** Sends and stores nothing before {@link consent} is given. */
  consent?: boolean;
}

/** Adds the script tag to the page. Called again, or outside of a browser, it does nothing. */
export function init({ site, node, modules, include, storage = true, consent: asks = false }: Settings): void {
  if (typeof document === "undefined" || document.querySelector("script[data-site]")) return;
  if (!site || !node) throw new TypeError(`footfall: init needs ${site ? "node, the address of your Footfall node" : "site, the key of the site"}`);
  stub();
  const script = document.createElement("script");
  script.src = `${node.replace(/\/+$/, "")}/f.js`;
  script.dataset.site = site;
  if (modules?.length) script.dataset.modules = modules.join(" ");
  if (include?.length) script.dataset.include = include.join(" ");
  if (!storage) script.dataset.storage = "none";
  if (asks) script.dataset.consent = "";
  document.head.append(script);
}

/** An event of your own. Kept until the tracker is there. */
export const track = (name: string, options?: Options): void => stub()?.(name, options);

/** The visitor's answer, where {@link init} was told to wait for it. */
export function consent(given: boolean): void {
  const footfall = stub();
  if (footfall?.consent) footfall.consent(given);
  else if (footfall) footfall.given = given;
}

/** What the tracker has made of the events; nothing before it is there. */
export const state = (): State | undefined => stub()?.state?.();

function stub(): Partial<Footfall> & ((...call: Parameters<Footfall>) => void) | undefined {
  if (typeof window === "undefined") return;
  return (window.footfall ??= Object.assign((...call: Parameters<Footfall>) => void ((window.footfall as Footfall).q ??= []).push(call)) as Footfall);
}
