// What scripts add to the page: charts that answer to the pointer and the legend, and the filters of the samples.
// Everything is there without them. Nothing a model wrote is ever read as markup: only textContent and data attributes.
"use strict";

function each(selector, action, root = document) {
  root.querySelectorAll(selector).forEach(action);
}

// A chart takes the width there is, up to that of its picture.
function fit(view, width) {
  const svg = view.container().querySelector("svg");
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  svg.style.maxWidth = width;
}

async function charts(show) {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const views = [];
  for (const [name, spec] of Object.entries(specs)) {
    const figure = document.getElementById(name);
    const still = figure.querySelector("svg");
    const holder = document.createElement("div");
    const options = { mode: "vega-lite", ast: true, renderer: "svg", actions: false, defaultStyle: false };
    const { view } = await vegaEmbed(holder, spec, options);
    still.replaceWith(holder);
    fit(view, still.style.maxWidth);
    view.addEventListener("click", (_, item) => {
      if (item?.datum?.ids?.length) show(item.datum.task, item.datum.ids);
    });
    views.push([view, still.style.maxWidth]);
  }
  const off = new Set();
  each(".toggle", (key) => {
    key.disabled = false;
    key.addEventListener("click", async () => {
      const entry = key.dataset.entry;
      if (!off.delete(entry)) off.add(entry);
      each(".toggle", (other) => {
        if (other.dataset.entry === entry) other.setAttribute("aria-pressed", String(!off.has(entry)));
      });
      for (const [view, width] of views) {
        await view.signal("off", [...off]).runAsync();
        fit(view, width);
      }
    });
  });
  document.documentElement.dataset.charts = "live";
}

// The filters; gives the function by which a chart shows the samples of some prompts.
function samples() {
  const form = document.getElementById("sample-filters");
  if (!form) return () => {};
  let chosen = null;
  const page = 12;
  let room = page;
  const count = document.getElementById("sample-count");
  const more = document.getElementById("sample-more");
  const cases = [...document.querySelectorAll(".case")];
  const wanted = () => Object.fromEntries(new FormData(form));

  function fits(cell, want) {
    return (!want["by-method"] || cell.dataset.method === want["by-method"]) && (!want["by-state"] || cell.dataset.state === want["by-state"]);
  }

  function apply() {
    const want = wanted();
    const words = want["by-text"].trim().toLowerCase();
    let found = 0;
    for (const one of cases) {
      let any = false;
      const here = (!chosen || chosen.has(one.dataset.prompt)) && (!want["by-task"] || one.dataset.task === want["by-task"]) &&
        (!words || one.querySelector(".asked").textContent.toLowerCase().includes(words));
      each(".cell", (cell) => {
        let shown = 0;
        each(".completion", (text) => {
          text.hidden = Boolean(want["by-verdict"]) && text.dataset.verdict !== want["by-verdict"];
          shown += !text.hidden;
        }, cell);
        cell.hidden = !fits(cell, want) || (Boolean(want["by-verdict"]) && shown === 0);
        any ||= !cell.hidden;
      }, one);
      const match = here && any;
      found += match;
      one.hidden = !match || found > room;
    }
    count.textContent = `${found} of ${cases.length} prompts`;
    more.hidden = found <= room;
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { room = page; apply(); });
  form.addEventListener("reset", () => setTimeout(() => { chosen = null; room = page; apply(); }));
  more.addEventListener("click", () => { room += page; apply(); });
  apply();
  return (task, ids) => {
    form.reset();
    setTimeout(() => {
      chosen = new Set(ids);
      form.elements["by-task"].value = task;
      apply();
      document.getElementById("samples").scrollIntoView();
    });
  };
}

// A table that is wider than the page says so: scroll bars are often hidden.
function cuts() {
  each(".scroll", (box) => box.toggleAttribute("data-cut", box.scrollWidth > box.clientWidth + 1));
}

document.getElementById("scripts-off").remove();
cuts();
addEventListener("resize", cuts);
document.addEventListener("toggle", cuts, true);
charts(samples());
