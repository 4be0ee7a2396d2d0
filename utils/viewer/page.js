// The page: its data, building blocks, scores, keyboard and views.
//
// The page's script is elements.js, page.js, queries.js, detail.js and charts.js, one after the
// other. Queries, runs (challenge files) and clips are known by number.

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
const clipOf = (query) => clips[queries.clip[query]];
const trueWindow = (query) => [truth[2 * query], truth[2 * query + 1]];
/** The window of a rank, counted from 0; [NaN, NaN] where there are fewer. */
const predictedWindow = (run, query, rank = 0) => {
  const at = 2 * (query * perQuery + rank);
  return [run.windows[at], run.windows[at + 1]];
};

const narrow = matchMedia("(max-width: 50rem)"); // as in page.css
const state = { shown: [], selected: -1, zoomed: false };

// --- building blocks

/** An SVG element, as `element` makes those of HTML. */
const drawing = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);


const linkButton = (text, onclick, title) => element("button", { type: "button", class: "link", onclick, title }, text);

/** Head and body of a table; a row is a head, its attributes, and cells. */
function tableParts(heads, rows) {
  const head = heads.map((text) => element("th", { scope: "col" }, text));
  const body = rows.map(([text, attributes, cells]) =>
    element("tr", {}, element("th", { scope: "row", ...attributes }, text), ...cells.map((cell) => element("td", {}, cell))),
  );
  return [element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)];
}

/** Options of a select: value -> text. */
function setOptions(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
}

const decimals = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

const moment = (value) => (answers && Number.isFinite(value) ? clock(value) : decimals(value, 1));
const percent = (value) => decimals(100 * value, 2);
const colour = (run) => `run-${run}`;

// --- scores of the queries shown, as utils.evaluation.metrics has them

/** The queries, of `rows`, that a run is scored on. */
const evaluated = (run, rows) => rows.filter((query) => !Number.isNaN(runs[run].best[0][query]));

const mean = (rows, value) => rows.reduce((sum, query) => sum + value(query), 0) / rows.length;

/** R@k IoU=t: share of `rows` with an IoU above t among the first k; NaN of none. */
const recall = (run, rows, k, threshold) => mean(rows, (query) => runs[run].best[k - 1][query] > threshold);

const measures = {
  "R@1 IoU=0.3": (run, rows) => recall(run, rows, 1, 0.3),
  "R@1 IoU=0.5": (run, rows) => recall(run, rows, 1, 0.5),
  "R@5 IoU=0.3": (run, rows) => recall(run, rows, perQuery, 0.3),
  "R@5 IoU=0.5": (run, rows) => recall(run, rows, perQuery, 0.5),
  mIoU: (run, rows) => mean(rows, (query) => runs[run].best[0][query]),
};

// --- what is shown

/** Filter, sort and draw again; the first query is selected, or `keep` if it is shown. */
function update(keep = -1) {
  const filters = readFilters();
  state.shown = sort(filtered(filters), filters);
  drawSummary();
  byId("rows").style.height = `${state.shown.length * ROW}px`; // else there is nothing to scroll to
  byId("list").scrollTop = 0;
  select(state.shown.includes(keep) ? keep : (state.shown[0] ?? -1));
  if (!byId("charts").hidden) drawCharts();
}

function drawSummary() {
  byId("count").textContent = `${state.shown.length} of ${total} queries`;
  const rows = runs.map((run, number) => {
    const scored = evaluated(number, state.shown);
    const figures = Object.values(measures).map((measure) => percent(measure(number, scored)));
    const cells = hasTruth
      ? [...figures, String(scored.length)]
      : [String(state.shown.filter((query) => run.answered[query]).length)];
    const name = element("span", { class: "name" }, run.name);
    return [name, { class: colour(number), title: run.name }, cells];
  });
  const heads = hasTruth ? [...Object.keys(measures), "evaluated"] : ["answered"];
  byId("figures").replaceChildren(...tableParts(["file", ...heads], rows));
}

// --- views, selection and keyboard

function showView(name) {
  for (const view of ["queries", "charts"]) {
    const chosen = view === name;
    byId(view).hidden = !chosen;
    byId(`tab-${view}`).setAttribute("aria-selected", chosen);
    byId(`tab-${view}`).tabIndex = chosen ? 0 : -1;
  }
  setAddress();
  drawAgain();
}

/** On a narrow screen the list and the selected query take turns. */
function showDetail(on) {
  document.body.dataset.view = on ? "detail" : "list";
  (on ? byId("detail") : byId("list")).focus({ preventScroll: true });
  if (on) byId("detail").scrollTop = 0;
  drawAgain();
}

/** What depends on how much room there is. */
function drawAgain() {
  if (!byId("charts").hidden) return drawCharts();
  drawRows();
  drawAxis();
}

function step(by) {
  const place = state.shown.indexOf(state.selected);
  const next = Math.min(Math.max(place + by, 0), state.shown.length - 1);
  if (state.shown.length) select(state.shown[next]);
}

const otherView = () => (byId("charts").hidden ? "charts" : "queries");
const screenful = () => Math.max(1, Math.floor(byId("list").clientHeight / ROW) - 1);
const listKeys = {
  PageDown: () => step(screenful()),
  PageUp: () => step(-screenful()),
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
  c: () => answers || showView(otherView()),
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
  const focused = event.target;
  if (focused.matches("input, select, textarea")) {
    if (event.key === "Escape") byId("list").focus();
    return;
  }
  const arrow = event.key.startsWith("Arrow");
  if (arrow && (focused.closest("[role=tablist], video, #charts, .narrations") || event.shiftKey)) return;
  const act = (focused.id === "list" && listKeys[event.key]) || keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// --- start

function start() {
  const sorted = (names) => names.map((name, number) => [number, name]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
  setOptions(byId("template"), [[-1, "any"], ...sorted(templates.map((name) => name || "(none)"))]);
  setOptions(byId("clip"), [[-1, "any"], ...sorted(clips.map((clip) => clip.uid))]);
  for (const id of ["run", "against"]) setOptions(byId(id), runs.map((run, number) => [number, run.name]));
  byId("run").lastElementChild.defaultSelected = runs.length > 1;
  setOptions(byId("objects"), [...new Set(lowerObjects)].filter(Boolean).sort().map((name) => [name, null]));
  const possible = Object.entries(orders).filter(
    ([name, { two }]) => name === "file" || (hasTruth && (!two || runs.length > 1)),
  );
  setOptions(byId("order"), possible.map(([name, { text }]) => [name, text]));
  const served = { template: templates.some(Boolean), object: objects.some(Boolean), clip: clips.length > 1 };
  for (const [id, shown] of Object.entries(served)) byId(id).closest("label").hidden = !shown;
  for (const field of document.querySelectorAll(".of-truth, .of-two")) {
    field.hidden = !hasTruth || (field.matches(".of-two") && runs.length === 1);
  }
  byId("keys").replaceChildren(
    ...keyHelp.flatMap(([key, text]) => [element("dt", {}, key), element("dd", {}, text)]),
  );

  byId("filters").addEventListener("input", () => update());
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(() => update()));
  const buttons = {
    more: () => byId("more").setAttribute("aria-expanded", byId("filters").classList.toggle("expanded")),
    "tab-queries": () => showView("queries"),
    "tab-charts": () => showView("charts"),
    "help-button": keys["?"],
    back: keys.Escape,
    previous: keys.k,
    next: keys.j,
    zoom: keys.z,
  };
  for (const [id, act] of Object.entries(buttons)) byId(id).addEventListener("click", act);
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    showView(otherView());
    document.querySelector("[role=tab][aria-selected=true]").focus();
  });
  byId("list").addEventListener("scroll", drawRows, { passive: true });
  new ResizeObserver(drawAgain).observe(document.querySelector("main"));
  addEventListener("hashchange", goToAddress);
  const charts = location.hash === CHARTS && !answers;
  update(linked());
  if (charts) showView("charts");
}

const CHARTS = "#charts"; // the address of that view; a query's is #query=3

function goToAddress() {
  if (location.hash === CHARTS) return answers || showView("charts");
  const query = linked();
  if (!state.shown.includes(query)) return;
  showView("queries");
  select(query);
}

let addressing = 0;

/** The address names what is shown; not at every step, which browsers refuse when it is too often. */
function setAddress() {
  clearTimeout(addressing);
  const address = byId("charts").hidden ? `#query=${state.selected}` : CHARTS;
  addressing = setTimeout(() => history.replaceState(null, "", address), 300);
}

/** The query that the address names; -1 if it names none. */
function linked() {
  const match = /^#query=(\d+)$/.exec(location.hash);
  return match ? Number(match[1]) : -1;
}

// After the other parts of the script, which define what the page is drawn with.
addEventListener("DOMContentLoaded", start);
