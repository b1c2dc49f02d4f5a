/**
 * What may be said about an element. Never the value of a field, never anything on or inside an element that has
 * `data-footfall-ignore`, never what the visitor wrote.
 */

const IGNORE = "data-footfall-ignore";
const INTERACTIVE =
  "a,button,input,select,textarea,summary,option,[onclick]," +
  ["button", "link", "menuitem", "tab", "checkbox", "radio", "switch", "option"].map((role) => `[role=${role}]`).join();
const LABELLED = "a,button,[role=button],[role=link]";
/** Text that is not the element's own label. */
const FOREIGN = `[${IGNORE}],script,style,select,textarea,[contenteditable]`;

const MAX_LEVELS = 3;
const MAX_CLASSES = 2;
const MAX_PATH_BYTES = 200;
const MAX_TEXT_CHARS = 64;
/** The longest property that a node takes. */
const MAX_ADDRESS_BYTES = 512;

/** Elements from the one that was hit up to the document, those in open shadow trees included. */
const lineOf = (event: Event) => event.composedPath().filter((node): node is Element => node instanceof Element);

/** The element that an event may be told about: none where the visitor writes, or where the page forbids it. */
export function targetOf(event: Event): Element | undefined {
  const { target } = event;
  const secret = lineOf(event).some(
    (element) => element.hasAttribute(IGNORE) || element.matches("input[type=password]") || (element as HTMLElement).isContentEditable,
  );
  return target instanceof Element && !secret ? target : undefined;
}

/** What a click on `target` works: a control, or whatever shows the pointer of one. */
export function controlOf(target: Element): Element | undefined {
  const control = target.closest(INTERACTIVE);
  if (control) return control;
  // The browser clicks a label's field next, and that is the click to tell.
  if (target.closest("label")?.control) return;
  const pointed = (element: Element) => getComputedStyle(element).cursor === "pointer";
  if (!pointed(target)) return;
  // Children inherit the pointer from the element that means it.
  while (target.parentElement && pointed(target.parentElement)) target = target.parentElement;
  return target;
}

/** Letters only, so that a byte is a character; and no number in it that looks like a row's or a visitor's. */
const isStable = (name: string) => /^[a-z][\w-]*$/i.test(name) && !/\d{3}/.test(name);

function levelOf(element: Element): string {
  const id = element.getAttribute("id") ?? "";
  if (isStable(id)) return `${element.localName}#${id}`;
  return [element.localName, ...[...element.classList].filter(isStable).slice(0, MAX_CLASSES)].join(".");
}

/** Like a selector, for example `form#letter > div.row > button.primary`. An id ends it. */
export function pathOf(element: Element): string {
  let path = levelOf(element).slice(0, MAX_PATH_BYTES);
  let parent = element.parentElement;
  for (let level = 1; level < MAX_LEVELS && parent && parent !== document.body && !path.includes("#"); level++) {
    const longer = `${levelOf(parent)} > ${path}`;
    if (longer.length > MAX_PATH_BYTES) break;
    path = longer;
    parent = parent.parentElement;
  }
  return path;
}

/** The label of a button or link. */
export function textOf(element: Element): string | undefined {
  if (!element.matches(LABELLED)) return;
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    node instanceof Element && node.matches(FOREIGN) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
  );
  let text = "";
  for (let node = walker.nextNode(); node; node = walker.nextNode()) text += node instanceof Text ? node.data : "";
  return Array.from(text.trim().replace(/\s+/g, " ")).slice(0, MAX_TEXT_CHARS).join("") || undefined;
}

function addressOf(element: Element, attribute: string): URL | undefined {
  const url = new URL(element.getAttribute(attribute) ?? "", element.baseURI);
  // An address of mail or telephone is somebody's.
  return url.protocol.startsWith("http") ? url : undefined;
}

/** Host and path of a link; a query may name the visitor. */
export function hrefOf(element: Element): string | undefined {
  const url = element.matches("a[href]") && addressOf(element, "href");
  return url ? (url.host + url.pathname).slice(0, MAX_ADDRESS_BYTES) : undefined;
}

export const formOf = (form: Element): { form: string | undefined; action: string | undefined } => ({
  // Attributes, as fields hide the properties of the same name.
  form: (form.getAttribute("id") || form.getAttribute("name") || "").slice(0, MAX_PATH_BYTES) || undefined,
  action: addressOf(form, "action")?.pathname.slice(0, MAX_ADDRESS_BYTES),
});
