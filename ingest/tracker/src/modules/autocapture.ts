/** Clicks on controls, rage clicks, dead clicks and submitted forms, as custom events. */

import { watchDead } from "./dead";
import { controlOf, formOf, hrefOf, pathOf, targetOf, textOf } from "./element";
import { safe, track } from "./track";

const RAGE_CLICKS = 3;
const RAGE_MS = 1_000;
const RAGE_PX = 30;

/** Answers whether a click is the third of a burst in one place. */
function createRage(): (event: MouseEvent) => boolean {
  let burst: MouseEvent[] = [];
  let told = false;
  return (event) => {
    burst = burst.filter(
      ({ timeStamp, clientX, clientY }) =>
        event.timeStamp - timeStamp < RAGE_MS && Math.hypot(event.clientX - clientX, event.clientY - clientY) < RAGE_PX,
    );
    if (!burst.length) told = false;
    burst.push(event);
    if (told || burst.length < RAGE_CLICKS) return false;
    return (told = true);
  };
}

/** Leaves out what is not known. */
const tell = (name: string, props: Record<string, string | undefined>) =>
  track(name, Object.fromEntries(Object.entries(props).filter((entry): entry is [string, string] => entry[1] !== undefined)));

const describe = (element: Element) => ({ target: pathOf(element), text: textOf(element), href: hrefOf(element) });

safe(() => {
  const isRage = createRage();
  const watch = watchDead();
  const on = <K extends keyof DocumentEventMap>(type: K, task: (event: DocumentEventMap[K], target: Element) => void) =>
    document.addEventListener(
      type,
      safe((event) => {
        const target = targetOf(event);
        // What a script clicks, nobody did.
        if (event.isTrusted && target) task(event, target);
      }),
      { capture: true, passive: true },
    );

  on("click", (event, target) => {
    const control = controlOf(target);
    const told = describe(control ?? target);
    if (control) {
      tell("click", told);
      watch(event, control, () => tell("dead_click", told));
    }
    // A key clicks without a place. Three clicks select a paragraph.
    if (event.detail && (control ?? getSelection()?.type !== "Range") && isRage(event)) tell("rage_click", told);
  });
  on("submit", (_, form) => tell("form_submit", { target: pathOf(form), ...formOf(form) }));
})();
