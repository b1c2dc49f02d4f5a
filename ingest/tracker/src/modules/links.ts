/**
 * Clicks that a page view does not tell of: links that lead away (`outbound_link`), downloads (`file_download`), and
 * elements that name an event: `<button data-footfall-event="signup" data-footfall-plan="pro">`.
 */

const FILES = /\.(pdf|xlsx?|docx?|pptx?|od[pst]|csv|txt|rtf|epub|zip|rar|7z|t?gz|tar|dmg|exe|msi|apk|deb|rpm|pkg|iso|mp3|mp4|m4a|mov|avi|wav|webm)$/i;

type Props = Record<string, string>;

const tell = (name: string, props: Props) => window.footfall?.(name, { props });

/** `data-footfall-plan="pro"` is the property `plan`. */
export function propsOf({ dataset }: HTMLElement): Props {
  const props: Props = {};
  for (const [name, value] of Object.entries(dataset)) {
    const [, first, rest] = /^footfall([A-Z])(.*)$/.exec(name) ?? [];
    if (value !== undefined && first && name !== "footfallEvent") props[first.toLowerCase() + (rest as string)] = value;
  }
  return props;
}

function clicked({ target, type, button }: MouseEvent): void {
  // Of other buttons only the middle one follows a link.
  if (!(target instanceof Element) || (type === "auxclick" && button !== 1)) return;
  const named = target.closest<HTMLElement>("[data-footfall-event]");
  // A form's event is its being sent.
  if (named && !(named instanceof HTMLFormElement)) tell(named.dataset.footfallEvent as string, propsOf(named));
  const link = target.closest<HTMLAnchorElement>("a[href]");
  // Of an SVG's link, href is an object.
  if (!link || !/^https?:$/.test(link.protocol)) return;
  const url = link.host + link.pathname;
  if (FILES.test(link.pathname) || link.hasAttribute("download")) tell("file_download", { url });
  else if (link.host !== location.host) tell("outbound_link", { url });
}

function sent({ target }: Event): void {
  if (target instanceof HTMLFormElement && target.dataset.footfallEvent) tell(target.dataset.footfallEvent, propsOf(target));
}

for (const type of ["click", "auxclick"] as const) document.addEventListener(type, clicked, { capture: true, passive: true });
document.addEventListener("submit", sent, { capture: true, passive: true });
