"use strict";
// The page: its data, which queries are shown and in what order, keyboard and views.
//
// The page's script is page.js, queries.js, detail.js and charts.js, one after the other. Queries,
// runs (challenge files) and clips are known by number. Text of the data goes into the page through
// `element` alone, as text nodes and attributes, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const { answers, clips, templates, objects, annotations, queries, runs, perQuery } = data;
const total = queries.text.length;
const numbers = (values) => Float64Array.from(values, (value) => value ?? NaN);

const truth = numbers(queries.truth); // 2 a query
const hasTruth = truth.some((value) => !Number.isNaN(value));
for (const run of runs) {
  run.windows = numbers(run.windows); // 2 * perQuery a query
  run.iou = numbers(run.iou); // perQuery a query
  // best[k - 1][query]: highest IoU of the first k; NaN where it can't be evaluated.
  run.best = Array.from({ length: perQuery }, () => new Float64Array(total).fill(NaN));
  for (let query = 0; query < total; query++) {
    if (!run.answered[query] || Number.isNaN(truth[2 * query])) continue;
    let most = 0;
    for (let k = 0; k < perQuery; k++) {
      most = Math.max(most, run.iou[query * perQuery + k] || 0);
      run.best[k][query] = most;
    }
  }
}
const haystack = queries.text.map((text, query) =>
  [
    text,
    objects[queries.object[query]],
    clips[queries.clip[query]].uid,
    annotations[queries.annotation[query]],
  ]
    .join("\n")
    .toLowerCase(),
);
const lowerObjects = objects.map((name) => name.toLowerCase());

const narrow = matchMedia("(max-width: 50rem)"); // as in page.css
const state = { shown: [], selected: -1, zoomed: false };

// --- building blocks

const byId = (id) => document.getElementById(id);

/** An HTML element; children are elements, or text that stays text. */
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function drawing(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Options of a select: value -> text. */
function setOptions(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
}

const seconds = (value) => (Number.isFinite(value) ? value.toFixed(1) : "–");
/** h:mm:ss */
const clock = (value) => {
  const whole = Math.round(value);
  const two = (number) => String(number % 60).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60))}:${two(whole)}`;
};
const moment = (value) => (answers && Number.isFinite(value) ? clock(value) : seconds(value));
const fraction = (value) => (Number.isFinite(value) ? value.toFixed(2) : "–");
const percent = (value) => (Number.isFinite(value) ? (100 * value).toFixed(2) : "–");
const colour = (run) => `run-${run}`;

// --- scores of the queries shown, as utils.metrics has them

/** The queries, of `rows`, that a run is scored on. */
function evaluated(run, rows) {
  return rows.filter((query) => !Number.isNaN(runs[run].best[0][query]));
}

/** R@k IoU=t: share of `rows` with an IoU above t among the first k; NaN of none. */
function recall(run, rows, k, threshold) {
  const best = runs[run].best[k - 1];
  return rows.reduce((count, query) => count + (best[query] > threshold), 0) / rows.length;
}

function meanIou(run, rows) {
  return rows.reduce((sum, query) => sum + runs[run].best[0][query], 0) / rows.length;
}

const measures = {
  "R@1 IoU=0.3": (run, rows) => recall(run, rows, 1, 0.3),
  "R@1 IoU=0.5": (run, rows) => recall(run, rows, 1, 0.5),
  "R@5 IoU=0.3": (run, rows) => recall(run, rows, perQuery, 0.3),
  "R@5 IoU=0.5": (run, rows) => recall(run, rows, perQuery, 0.5),
  mIoU: meanIou,
};

// --- which queries, in what order

function readFilters() {
  const number = (id, otherwise) => (byId(id).value === "" ? otherwise : Number(byId(id).value));
  return {
    words: byId("search").value.toLowerCase().split(/\s+/).filter(Boolean),
    template: Number(byId("template").value),
    object: byId("object").value.trim().toLowerCase(),
    clip: Number(byId("clip").value),
    run: Number(byId("run").value),
    against: Number(byId("against").value),
    best: Number(byId("best").value),
    low: number("low", 0),
    high: number("high", 1),
    order: byId("order").value,
  };
}

function filtered(filters) {
  const { words, template, object, clip, low, high } = filters;
  const best = runs[filters.run].best[filters.best - 1];
  const wanted = object && new Set(lowerObjects.flatMap((n, i) => (n.includes(object) ? [i] : [])));
  const ranged = low > 0 || high < 1;
  const shown = [];
  for (let query = 0; query < total; query++) {
    if (template >= 0 && queries.template[query] !== template) continue;
    if (clip >= 0 && queries.clip[query] !== clip) continue;
    if (wanted && !wanted.has(queries.object[query])) continue;
    if (ranged && !(best[query] >= low && best[query] <= high)) continue;
    if (!words.every((word) => haystack[query].includes(word))) continue;
    shown.push(query);
  }
  return shown;
}

const orders = {
  file: { text: "as in the file" },
  "iou-down": { text: "IoU, highest first", key: (q, of) => -of.best[q] },
  "iou-up": { text: "IoU, lowest first", key: (q, of) => of.best[q] },
  gain: { text: "largest gain in IoU", key: (q, of) => of.other[q] - of.best[q], two: true },
  loss: { text: "largest loss in IoU", key: (q, of) => of.best[q] - of.other[q], two: true },
  "length-up": { text: "shortest true window first", key: (q) => truth[2 * q + 1] - truth[2 * q] },
  "length-down": { text: "longest true window first", key: (q) => truth[2 * q] - truth[2 * q + 1] },
};

/** Sort in place; queries without a value come last, equal ones in the order of the file. */
function sort(shown, filters) {
  const { key } = orders[filters.order];
  if (!key) return shown;
  const of = {
    best: runs[filters.run].best[filters.best - 1],
    other: runs[filters.against].best[filters.best - 1],
  };
  const keys = new Float64Array(total);
  for (const query of shown) {
    const value = key(query, of);
    keys[query] = Number.isNaN(value) ? Infinity : value;
  }
  return shown.sort((a, b) => (keys[a] === keys[b] ? a - b : keys[a] < keys[b] ? -1 : 1));
}

/** Filter, sort and draw again; the first query is selected, or `keep` if it is shown. */
function update(keep = -1) {
  const filters = readFilters();
  state.shown = sort(filtered(filters), filters);
  drawSummary();
  byId("list").scrollTop = 0;
  select(state.shown.includes(keep) ? keep : (state.shown[0] ?? -1));
  if (!byId("charts").hidden) drawCharts();
}

function drawSummary() {
  byId("count").textContent = `${state.shown.length} of ${total} queries`;
  const heads = hasTruth ? [...Object.keys(measures), "evaluated"] : ["answered"];
  const head = element("tr", {}, ...["file", ...heads].map((name) => element("th", { scope: "col" }, name)));
  const lines = runs.map((run, number) => {
    const rows = evaluated(number, state.shown);
    const answered = state.shown.filter((query) => run.answered[query]).length;
    const cells = hasTruth
      ? [...Object.values(measures).map((of) => percent(of(number, rows))), rows.length]
      : [answered];
    return element(
      "tr",
      {},
      element(
        "th",
        { scope: "row", class: colour(number), title: run.name },
        element("span", { class: "name" }, run.name),
      ),
      ...cells.map((cell) => element("td", {}, String(cell))),
    );
  });
  byId("figures").replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
}

// --- views, selection and keyboard

function showView(name) {
  for (const view of ["queries", "charts"]) {
    const on = view === name;
    byId(view).hidden = !on;
    byId(`tab-${view}`).setAttribute("aria-selected", on);
    byId(`tab-${view}`).tabIndex = on ? 0 : -1;
  }
  if (name === "charts") drawCharts();
  else drawRows();
}

/** On a narrow screen the list and the selected query take turns. */
function showDetail(on) {
  document.body.dataset.view = on ? "detail" : "list";
  (on ? byId("detail") : byId("list")).focus({ preventScroll: true });
  if (on) {
    byId("detail").scrollTop = 0;
    drawAxis();
  } else drawRows();
}

function step(by) {
  const place = state.shown.indexOf(state.selected);
  const next = Math.min(Math.max(place + by, 0), state.shown.length - 1);
  if (state.shown.length) select(state.shown[next]);
}

const page = () => Math.max(1, Math.floor(byId("list").clientHeight / ROW) - 1);
const listKeys = {
  PageDown: () => step(page()),
  PageUp: () => step(-page()),
  Home: () => step(-total),
  End: () => step(total),
  Enter: () => showDetail(true),
};
const keys = {
  j: () => step(1),
  k: () => step(-1),
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  "/": () => {
    showDetail(false);
    byId("search").focus();
    byId("search").select();
  },
  z: () => zoom(!state.zoomed),
  p: () => playBest(),
  c: () => answers || showView(byId("charts").hidden ? "charts" : "queries"),
  Escape: () => showDetail(false),
  "?": () => byId("help").showModal(),
};
const keyHelp = [
  ["j, ↓ / k, ↑", "next / previous query"],
  ["Page Down / Page Up, Home / End", "further, in the list"],
  ["/", "search"],
  ["z", "zoom the timeline to the windows"],
  ["p", `play the ${hasTruth ? "true" : "first"} window, where there is a video`],
  ...(answers ? [] : [["c", "charts and back"]]),
  ["Enter / Esc", "open the query / back to the list"],
  ["?", "this help"],
];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const at = event.target;
  if (at.matches("input, select, textarea")) {
    if (event.key === "Escape") byId("list").focus();
    return;
  }
  const arrow = event.key.startsWith("Arrow");
  if (arrow && (at.closest("[role=tablist], video, #charts, .narrations") || event.shiftKey)) return;
  const act = (at.id === "list" && listKeys[event.key]) || keys[event.key];
  if (!act || (event.key === "Enter" && at.id !== "list")) return;
  event.preventDefault();
  act();
});

// --- start

function start() {
  const named = (names, none) =>
    names.map((name, number) => [number, name || none]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
  setOptions(byId("template"), [[-1, "any"], ...named(templates, "(none)")]);
  setOptions(byId("clip"), [[-1, "any"], ...named(clips.map((clip) => clip.uid))]);
  setOptions(byId("run"), runs.map((run, number) => [number, run.name]));
  setOptions(byId("against"), runs.map((run, number) => [number, run.name]));
  byId("objects").replaceChildren(
    ...[...new Set(lowerObjects)].filter(Boolean).sort().map((value) => element("option", { value })),
  );
  const possible = Object.entries(orders).filter(
    ([name, { two }]) => name === "file" || (hasTruth && (!two || runs.length > 1)),
  );
  setOptions(byId("order"), possible.map(([name, { text }]) => [name, text]));
  byId("run").lastElementChild.defaultSelected = runs.length > 1;
  for (const [selector, there] of [
    [".of-truth", hasTruth],
    [".of-runs", hasTruth && runs.length > 1],
    [".of-two", hasTruth && runs.length > 1],
  ]) {
    document.querySelector(selector).hidden = !there;
  }
  byId("keys").replaceChildren(
    ...keyHelp.flatMap(([key, text]) => [element("dt", {}, key), element("dd", {}, text)]),
  );

  byId("filters").addEventListener("input", () => update());
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(() => update()));
  byId("more").addEventListener("click", () => {
    byId("more").setAttribute("aria-expanded", byId("filters").classList.toggle("expanded"));
  });
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("back").addEventListener("click", () => showDetail(false));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("zoom").addEventListener("click", () => zoom(!state.zoomed));
  for (const view of ["queries", "charts"]) {
    byId(`tab-${view}`).addEventListener("click", () => showView(view));
  }
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = byId("charts").hidden ? "charts" : "queries";
    showView(other);
    byId(`tab-${other}`).focus();
  });
  byId("list").addEventListener("scroll", drawRows, { passive: true });
  new ResizeObserver(drawAgain).observe(document.querySelector("main"));
  addEventListener("hashchange", () => state.shown.includes(linked()) && select(linked()));
  update(linked());
}

/** What depends on how much room there is. */
function drawAgain() {
  if (!byId("charts").hidden) drawCharts();
  else {
    drawRows();
    drawAxis();
  }
}

/** The query that the address names; -1 if it names none. */
function linked() {
  const found = /^#query=(\d+)$/.exec(location.hash);
  return found ? Number(found[1]) : -1;
}

// After the other parts of the script, which define what the page is drawn with.
addEventListener("DOMContentLoaded", start);
