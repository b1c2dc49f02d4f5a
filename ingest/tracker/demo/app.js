// A single-page app in one screen of code: routes by the history API, no framework.
"use strict";

const routes = {
  "": ["Today", "Nothing is thirsty. Look again tomorrow.", "task_done", { task: "look" }],
  week: ["This week", "Wednesday: water the monstera. Saturday: mist the fern.", "task_done", { task: "water" }],
  "plants/fern": ["Fern", "Mist it every other day; turn it once a week.", "plant_watered", { plant: "fern" }],
  "plants/monstera": ["Monstera", "A glass of water a week; wipe the leaves.", "plant_watered", { plant: "monstera" }],
};
const root = "/demo/app/";
const view = document.querySelector("[data-view]");

function show(path) {
  const name = path.slice(root.length).replace(/\/$/, "");
  const [title, text, event, props] = routes[name] || ["Not here", "The planner has no such page.", "not_found", {}];
  document.title = `${title}: Larkspur & Moss`;
  const heading = document.createElement("h1");
  heading.textContent = title;
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  const done = document.createElement("button");
  done.type = "button";
  done.className = "button";
  done.textContent = "Done";
  done.addEventListener("click", () => {
    footfall(event, { props });
    done.textContent = "Done, thank you";
    done.disabled = true;
  });
  view.replaceChildren(heading, paragraph, done);
  for (const link of document.querySelectorAll("a[data-route]")) {
    if (link.pathname === path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

document.addEventListener("click", (click) => {
  const link = click.target.closest("a[data-route]");
  if (!link || click.metaKey || click.ctrlKey || click.shiftKey) return;
  click.preventDefault();
  if (link.href === location.href) return;
  // The title first, so that the page view has it.
  show(link.pathname);
  history.pushState(null, "", link.href);
});
window.addEventListener("popstate", () => show(location.pathname));
show(location.pathname);
