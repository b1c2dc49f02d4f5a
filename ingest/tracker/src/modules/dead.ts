/** Finds clicks after which nothing happened. In doubt something did. */

import { safe } from "./track";

/** So long a page may take to react. */
const PATIENCE_MS = 2_500;

/** Signs of life besides mutations. `blur` of the window: a dialog or another window came. */
const EFFECTS = ["scroll", "input", "change", "submit", "reset", "invalid", "toggle", "play", "pause", "copy", "fullscreenchange", "visibilitychange", "pagehide"];
/** Their effects are the browser's to show (a caret, a list, a file chooser), or drawn without a mutation. */
const OPAQUE = "select,textarea,option,canvas,video,audio,iframe,object,embed,input:not([type=button],[type=submit],[type=reset],[type=image],[type=checkbox],[type=radio])";

/** What changes without an event that tells it from what the press of the button did before the click. */
const stateOf = () => {
  const { anchorNode, anchorOffset, focusNode, focusOffset } = getSelection() ?? {};
  return [location.href, document.activeElement, anchorNode, anchorOffset, focusNode, focusOffset];
};

/** The browser follows it, however long that takes: a page, a file, another program. */
const leads = (control: Element) => control.matches("a[href]") && !/^(#|javascript:)/.test(control.getAttribute("href") ?? "");

const isOpaque = (control: Element) => control.matches(OPAQUE) || !!control.shadowRoot || control.localName.includes("-");

/** Answers with what to call at a click. `report` is called when it was dead. */
export function watchDead(): (event: Event, control: Element, report: () => void) => void {
  const pending = new Set<Element>();
  let effects = 0;
  /** `effects` when the button of the mouse went down: a menu may open then, before the click. */
  let pressed: number | undefined;
  let idle: ReturnType<typeof setTimeout> | undefined;
  const alive = () => {
    effects++;
  };
  // What is ignored answers to no click: a clock, a ticker.
  const observer = new MutationObserver((mutations) => {
    const isIgnored = ({ target }: MutationRecord) => !!(target instanceof Element ? target : target.parentElement)?.closest("[data-footfall-ignore]");
    if (!mutations.every(isIgnored)) alive();
  });

  /** Mutations are observed around clicks only: a busy page has many. */
  const observe = () => {
    clearTimeout(idle);
    observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    idle = setTimeout(() => observer.disconnect(), 2 * PATIENCE_MS);
  };

  const on = (type: string, task: () => void) => window.addEventListener(type, safe(task), { capture: true, passive: true });
  for (const type of EFFECTS) on(type, alive);
  window.addEventListener("blur", alive, { passive: true });
  on("pointerdown", () => {
    pressed = effects;
    observe();
  });

  return (event, control, report) => {
    const before = pressed ?? effects;
    pressed = undefined;
    if (pending.has(control) || isOpaque(control)) return;
    observe();
    pending.add(control);
    const state = stateOf();
    setTimeout(
      safe(() => {
        pending.delete(control);
        const same = stateOf().every((part, index) => part === state[index]);
        if (effects === before && same && (event.defaultPrevented || !leads(control))) report();
      }),
      PATIENCE_MS,
    );
  };
}
