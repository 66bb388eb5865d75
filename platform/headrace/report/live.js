// Keeps the page up to date: asks for it every two seconds and takes over what is new, without a reload.
"use strict";
const live = document.getElementById("live");
let tag = `"${live.dataset.tag}"`;
async function look() {
  try {
    const got = await fetch("/", { headers: { "If-None-Match": tag }, cache: "no-store" });
    if (got.status === 200) {
      const next = new DOMParser().parseFromString(await got.text(), "text/html");
      const open = [...document.querySelectorAll("main details")].map((each) => each.open);
      document.querySelector("main").replaceWith(document.adoptNode(next.querySelector("main")));
      document.querySelectorAll("main details").forEach((each, place) => { each.open = each.open || open[place] === true; });
      document.title = next.title;
      tag = got.headers.get("ETag");
    }
    live.textContent = got.ok || got.status === 304 ? "live" : `not live: ${await got.text()}`;
  } catch {
    live.textContent = "not live: `headrace report --serve` does not answer any more";
  }
  setTimeout(look, 2000);
}
setTimeout(look, 2000);
