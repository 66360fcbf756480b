"use strict";
// What the pages cannot do without a script: times of the reader's zone, copying, the tree's twists, the live list.
// Everything else works without it.
document.documentElement.classList.add("script");

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(time.dateTime);
    const utc = document.createElement("small");
    const said = time.dateTime.slice(0, 19).replace("T", " ");
    const sameDay = moment.toISOString().slice(0, 10) === [moment.getFullYear(),
      String(moment.getMonth() + 1).padStart(2, "0"), String(moment.getDate()).padStart(2, "0")].join("-");
    utc.textContent = (sameDay ? said.slice(11) : said) + " UTC";
    time.replaceChildren(day.format(moment), " ", utc);
    time.dataset.local = "";
  }
}

let paused = false;
function look() {
  const live = document.querySelector("[data-live]");
  if (live && !paused && !document.hidden && !live.contains(document.activeElement)) htmx.trigger(live, "look");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) {
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: copy it";
    }
  } else if (button.id === "pause") {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
  } else if (button.classList.contains("twist")) {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    const branch = button.closest("li").querySelector(":scope > .branch");
    branch.hidden = !open;
  }
});

document.addEventListener("DOMContentLoaded", () => {
  localTimes(document);
  setInterval(look, 1000);
});
document.addEventListener("htmx:afterSwap", () => localTimes(document));
