// What a site does to name its own events, and a panel that shows what the tracker makes of them.
"use strict";

// The queue stub: calls made before f.js has loaded wait in `q`.
window.footfall = window.footfall || function () { (footfall.q = footfall.q || []).push(arguments); };

/** `data-prop-price="9.5"` is the number 9.5, `data-prop-plant="fern"` the text. */
function propsOf(element) {
  const props = {};
  for (const [name, value] of Object.entries(element.dataset)) {
    if (!name.startsWith("prop")) continue;
    props[name.slice(4).toLowerCase()] = value !== "" && isFinite(value) ? Number(value) : value;
  }
  return props;
}

document.addEventListener("click", (click) => {
  const lab = click.target.closest("[data-lab]");
  if (lab) greenhouse[lab.dataset.lab](lab);
  const button = click.target.closest("button[data-event]");
  if (!button) return;
  const { revenue } = button.dataset;
  footfall(button.dataset.event, { props: propsOf(button), revenue: revenue && { amount: Number(revenue), currency: "EUR" } });
  if (button.dataset.event === "add_to_basket") addToBasket();
  if (button.dataset.event === "checkout") empty("Thank you. Nothing was bought.");
});

document.addEventListener("submit", (submit) => {
  submit.preventDefault();
  const form = submit.target;
  if (!form.dataset.event) return;
  const props = propsOf(form);
  for (const field of form.elements) if (field.name) props[field.name] = field.value;
  footfall(form.dataset.event, { props });
  form.querySelector("button").textContent = "Thank you";
});

let items = 0;
const basket = document.querySelector("[data-basket]");
const checkout = document.querySelector("[data-checkout]");

function addToBasket() {
  items += 1;
  basket.textContent = items === 1 ? "One plant in your basket." : `${items} plants in your basket.`;
  checkout.dataset.propItems = items;
  checkout.disabled = false;
}

function empty(text) {
  items = 0;
  basket.textContent = text;
  checkout.disabled = true;
}

let steps = 0;
/** What the buttons of the greenhouse do. */
const greenhouse = {
  burst() {
    for (let i = 1; i <= 1000; i += 1) footfall("burst", { props: { i } });
  },
  push: () => history.pushState(null, "", `/demo/lab/${(steps += 1)}`),
  replace: () => history.replaceState(null, "", `?sorted=${(steps += 1)}`),
  hash: () => (location.hash = `bed-${(steps += 1)}`),
  wobble: (button) => button.animate([{ rotate: "-2deg" }, { rotate: "2deg" }, { rotate: "0deg" }], 200),
  slow() {
    const end = performance.now() + 300;
    while (performance.now() < end);
  },
  shift: () => setTimeout(() => document.querySelector("main").prepend(element("p", "notice", "This was not here before.")), 700),
  hide: () => (location.href = "/demo/"),
  reload: () => setTimeout(() => location.reload()),
  forget: () => footfall.consent?.(false),
};

const names = { ws: "over WebSocket", http: "over HTTP", pixel: "by images", none: "not connected" };
const counts = ["acked", "pending", "refused", "evicted"];

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function panel() {
  const box = element("details", "tracker");
  // Its numbers change by themselves: no answer to a click.
  box.dataset.footfallIgnore = "";
  // Open where there is room beside the text, one line elsewhere. What the reader makes of it lasts as long as the page.
  box.open = matchMedia("(min-width: 60rem)").matches;
  const summary = element("summary");
  summary.title = "What the tracker has sent";
  const status = element("span", "", "tracker");
  const brief = element("span", "brief");
  summary.append(element("span", "dot"), status, brief);
  const body = element("div", "body");
  const list = element("dl");
  const cells = {};
  for (const name of [...counts, "stream"]) {
    const row = element("div", name === "stream" ? "stream" : "");
    cells[name] = element("dd", "", "–");
    cells[name].dataset.count = name;
    row.append(element("dt", "", name), cells[name]);
    list.append(row);
  }
  const burst = element("button", "button quiet", "Send 100 events");
  burst.type = "button";
  burst.addEventListener("click", () => {
    for (let i = 1; i <= 100; i += 1) footfall("burst", { props: { i } });
  });
  body.append(list, burst);
  box.append(summary, body);
  document.body.append(box);

  const draw = () => {
    if (!footfall.state) {
      status.textContent = "tracker not loaded";
      return;
    }
    const state = footfall.state();
    box.dataset.transport = state.transport;
    status.textContent = names[state.transport];
    brief.textContent = `${state.acked} acked`;
    for (const name of Object.keys(cells)) cells[name].textContent = state[name];
  };
  draw();
  setInterval(draw, 250);
}

panel();
