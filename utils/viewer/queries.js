// Which queries are shown, in what order, and their list.

const searched = queries.text.map((text, query) =>
  [
    text,
    objects[queries.object[query]],
    clipOf(query).uid,
    clipOf(query).videoUid,
    annotations[queries.annotation[query]],
  ]
    .join("\n")
    .toLowerCase(),
);
const lowerObjects = objects.map((name) => name.toLowerCase());

/** The fields above the list; `best` and `other` are IoU of the chosen file and of the one it is compared with. */
function readFilters() {
  const value = (id) => byId(id).value;
  const number = (id, otherwise) => (value(id) === "" ? otherwise : Number(value(id)));
  const [run, against] = [number("run", 0), number("against", 0)];
  return {
    words: value("search").toLowerCase().split(/\s+/).filter(Boolean),
    template: number("template", -1),
    object: value("object").trim().toLowerCase(),
    clip: number("clip", -1),
    run,
    against,
    best: runs[run].best[number("best", 1) - 1],
    other: runs[against].best[number("best", 1) - 1],
    low: number("low", 0),
    high: number("high", 1),
    order: value("order"),
  };
}

function filtered({ words, template, object, clip, best, low, high }) {
  const ranged = low > 0 || high < 1;
  return Array.from({ length: total }, (_, query) => query).filter(
    (query) =>
      (template < 0 || queries.template[query] === template) &&
      (clip < 0 || queries.clip[query] === clip) &&
      lowerObjects[queries.object[query]].includes(object) &&
      (!ranged || (best[query] >= low && best[query] <= high)) &&
      words.every((word) => searched[query].includes(word)),
  );
}

const trueLength = (query) => truth[2 * query + 1] - truth[2 * query];
const orders = {
  file: { text: "as in the file", key: () => 0 },
  "iou-down": { text: "IoU, highest first", key: (query, { best }) => -best[query] },
  "iou-up": { text: "IoU, lowest first", key: (query, { best }) => best[query] },
  gain: { text: "largest gain in IoU", key: (query, { best, other }) => other[query] - best[query], two: true },
  loss: { text: "largest loss in IoU", key: (query, { best, other }) => best[query] - other[query], two: true },
  "length-up": { text: "shortest true window first", key: trueLength },
  "length-down": { text: "longest true window first", key: (query) => -trueLength(query) },
};

/** Sort in place; queries without a value come last, equal ones in the order of the file. */
function sort(shown, filters) {
  const keys = new Map();
  for (const query of shown) {
    const key = orders[filters.order].key(query, filters);
    keys.set(query, Number.isNaN(key) ? Number.MAX_VALUE : key);
  }
  return shown.sort((a, b) => keys.get(a) - keys.get(b));
}

// --- the list: only the rows in view are in the page, however many there are

const ROW = 66; // height of a row in pixels, as in page.css
const AROUND = 6; // rows drawn above and below those in view

function drawRows() {
  const list = byId("list");
  const { shown, selected } = state;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - AROUND);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + AROUND);
  const places = Array.from({ length: Math.max(0, last - first) }, (_, at) => first + at);
  // The selected row is always there, for screen readers that follow it.
  const place = shown.indexOf(selected);
  if (place >= 0 && (place < first || place >= last)) places.push(place);
  byId("rows").replaceChildren(...places.map(drawRow));
  if (!shown.length) byId("rows").append(element("p", { class: "none" }, "No query matches."));
  list.setAttribute("aria-activedescendant", place >= 0 ? `query-${selected}` : "");
}

/** Runs whose IoU a row says: all, or the two that are compared, so that the query has room. */
function chipRuns() {
  if (!hasTruth) return [];
  if (runs.length <= 3) return [...runs.keys()];
  const { run, against } = readFilters();
  return [...new Set([against, run])].sort((a, b) => a - b);
}

function drawRow(place) {
  const query = state.shown[place];
  const chips = chipRuns().map((number) => {
    const value = decimals(runs[number].best[0][query], 2);
    const name = `${runs[number].name}: IoU of the first ${value}`;
    return element("span", { class: `chip ${colour(number)}`, title: name, role: "img", "aria-label": name }, value);
  });
  const row = element(
    "div",
    {
      id: `query-${query}`,
      class: "row",
      role: "option",
      "aria-selected": String(query === state.selected),
      "aria-posinset": place + 1,
      "aria-setsize": state.shown.length,
      onclick: () => {
        select(query);
        if (narrow.matches) showDetail(true);
      },
    },
    element("span", { class: "text" }, queries.text[query]),
    element("span", { class: "chips" }, ...chips),
    strip(query),
  );
  row.style.transform = `translateY(${place * ROW}px)`;
  return row;
}

/** The clip from end to end: the true window, and each run's first prediction. */
function strip(query) {
  const range = [0, clipOf(query).seconds];
  const marks = runs.map((run, number) => {
    const mark = bar(predictedWindow(run, query), range, colour(number));
    if (mark) mark.style.top = `${4 + (number * 10) / runs.length}px`;
    if (mark) mark.style.height = `${Math.max(2, 10 / runs.length - 1)}px`;
    return mark;
  });
  return element("span", { class: "strip", "aria-hidden": "true" }, bar(trueWindow(query), range, "truth"), ...marks);
}

/** A window as a bar in a box that shows the seconds from `low` to `high`; null if outside. */
function bar([start, end], [low, high], kind) {
  if (Number.isNaN(start) || end < low || start > high || high <= low) return null;
  const share = (time) => (100 * (Math.min(Math.max(time, low), high) - low)) / (high - low);
  const node = element("span", { class: `bar ${kind}` });
  node.style.left = `${share(start)}%`;
  node.style.width = `${share(end) - share(start)}%`;
  return node;
}

/** Make a query the one looked at, and bring its row into view. */
function select(query) {
  state.selected = query;
  const list = byId("list");
  const place = state.shown.indexOf(query);
  if (place >= 0) {
    const bottom = (place + 1) * ROW - list.clientHeight;
    list.scrollTop = Math.max(bottom, Math.min(list.scrollTop, place * ROW));
    setAddress();
  }
  drawRows();
  drawDetail();
}
