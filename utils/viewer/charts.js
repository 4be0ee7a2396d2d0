// Charts of the queries shown: recall over IoU, length and place of windows, templates.

const THRESHOLDS = Array.from({ length: 20 }, (_, step) => step / 20);
const LENGTHS = [0, 1, 2, 5, 10, 20, 50, 100, Infinity]; // bounds of the bins in seconds
const PLACES = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, Infinity]; // in per cent of the clip
let barMeasure = "R@1 IoU=0.3";

function drawCharts() {
  const box = byId("charts");
  const charts = [];
  if (hasTruth) charts.push(curves("R@1", 1), curves(`R@${perQuery}`, perQuery));
  charts.push(lengthHistogram(), placeHistogram());
  if (hasTruth) charts.push(templateBars());
  const top = box.scrollTop;
  box.replaceChildren(legend(), ...charts.map(figure));
  for (const chart of box.querySelectorAll("figure")) chart.draw();
  box.scrollTop = top;
}

function legend() {
  const entry = (kind, text) => element("li", { class: kind }, text);
  return element(
    "ul",
    { class: "legend" },
    hasTruth ? entry("truth", "Ground truth") : null,
    ...runs.map((run, number) => entry(colour(number), run.name)),
  );
}

/**
 * A chart with its numbers as a table under it.
 *
 * chart: title, what (explanation), heads and rows of the table, draw(width) -> SVG parts and
 * height, and control, an element beside the title.
 */
function figure({ title, what, heads, rows, draw, control = null, wide = false }) {
  const canvas = element("div", { class: "canvas" });
  const node = element(
    "figure",
    { class: wide ? "wide" : "" },
    element("figcaption", {}, element("h2", {}, title), control, element("p", { class: "soft" }, what)),
    canvas,
    element(
      "details",
      {},
      element("summary", {}, "Numbers"),
      element(
        "div",
        { class: "numbers" },
        element(
          "table",
          { "aria-label": title },
          element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
          element(
            "tbody",
            {},
            ...rows.map(([head, ...cells]) =>
              element(
                "tr",
                {},
                element("th", { scope: "row" }, head),
                ...cells.map((cell) => element("td", {}, cell)),
              ),
            ),
          ),
        ),
      ),
    ),
  );
  // Drawn as wide as there is room, once the figure is in the page: text keeps its size.
  node.draw = () => {
    const width = Math.max(220, canvas.clientWidth);
    const { height, parts } = draw(width);
    canvas.replaceChildren(
      drawing("svg", { width, height, role: "img", "aria-label": `${title}: ${what}` }, ...parts),
    );
  };
  return node;
}

const text = (x, y, words, anchor = "start", kind = "") =>
  drawing("text", { x, y, "text-anchor": anchor, class: kind }, words);
const rule = (x1, y1, x2, y2) => drawing("line", { x1, y1, x2, y2, class: "rule" });
const hover = (words) => drawing("title", {}, words);

const LETTER = 6.6; // pixels, about, at the size of the text of charts

/** Words in lines that are at most so many pixels wide. */
function brokenLines(words, width) {
  const lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && longer.length * LETTER <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** A round bound for values up to `most`, in steps that are few. */
function scale(most) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((one) => most / one <= 5) ?? 0.25;
  const steps = Math.max(1, Math.ceil(most / step - 1e-9));
  return { top: steps * step, ticks: Array.from({ length: steps + 1 }, (_, at) => at * step) };
}

/** Frame of a chart with shares on the left: parts, and the functions that place values. */
function frame(width, height, most) {
  const [left, right, top, bottom] = [44, 14, 8, 36];
  const { top: bound, ticks } = scale(most);
  const y = (share) => top + (1 - share / bound) * (height - top - bottom);
  const x = (share) => left + share * (width - left - right);
  const parts = ticks.flatMap((tick) => [
    rule(left, y(tick), width - right, y(tick)),
    text(left - 6, y(tick) + 4, `${Math.round(100 * tick)}%`, "end"),
  ]);
  return { x, y, parts };
}

function curves(name, k) {
  const lines = runs.map((run, number) => {
    const rows = evaluated(number, state.shown);
    return THRESHOLDS.map((threshold) => recall(number, rows, k, threshold));
  });
  const windows = k === 1 ? "the first window" : `one of the first ${k} windows`;
  return {
    title: `${name} over IoU`,
    what: `share of queries with an IoU above the threshold for ${windows}`,
    heads: ["IoU above", ...runs.map((run) => run.name)],
    rows: THRESHOLDS.map((t, at) => [t.toFixed(2), ...lines.map((line) => percent(line[at]))]),
    draw(width) {
      const height = 260;
      const { x, y, parts } = frame(width, height, Math.max(0.05, ...lines.flat().filter(Number.isFinite)));
      for (const threshold of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
        parts.push(text(x(threshold), height - 20, threshold.toFixed(1), "middle"));
      }
      for (const threshold of [0.3, 0.5]) {
        parts.push(drawing("line", { x1: x(threshold), x2: x(threshold), y1: 8, y2: height - 36, class: "guide" }));
      }
      parts.push(text(x(0.5), height - 4, "IoU threshold", "middle"));
      lines.forEach((line, number) => {
        if (!line.every(Number.isFinite)) return;
        const points = line.map((share, at) => `${x(THRESHOLDS[at])},${y(share)}`).join(" ");
        parts.push(drawing("polyline", { points, class: `curve ${colour(number)}` }));
        line.forEach((share, at) => {
          const said = `${runs[number].name}: ${percent(share)} at IoU ${THRESHOLDS[at].toFixed(2)}`;
          parts.push(
            drawing("circle", { cx: x(THRESHOLDS[at]), cy: y(share), r: 3, class: colour(number) }, hover(said)),
          );
        });
      });
      return { height, parts };
    },
  };
}

/** The true windows and each run's first ones: name, kind, and numbers of `value(start, end, query)`. */
function windowGroups(value) {
  const group = (name, kind, windows, each) => ({
    name,
    kind,
    values: state.shown
      .map((query) => value(windows[each * query], windows[each * query + 1], query))
      .filter((number) => !Number.isNaN(number)),
  });
  return [
    ...(hasTruth ? [group("Ground truth", "truth", truth, 2)] : []),
    ...runs.map((run, number) => group(run.name, colour(number), run.windows, 2 * perQuery)),
  ];
}

/** Shares of each group's values in bins; a value on a bound belongs to the bin above it. */
function histogram(title, what, groups, bounds, unit) {
  const bins = bounds.length - 1;
  const names = Array.from({ length: bins }, (_, bin) =>
    bin < bins - 1 ? `${bounds[bin]}–${bounds[bin + 1]}` : `${bounds[bin]} and more`,
  );
  const shares = groups.map(({ values }) => {
    const counts = new Array(bins).fill(0);
    for (const value of values) {
      let bin = 0;
      while (bin < bins - 1 && value >= bounds[bin + 1]) bin++;
      counts[bin]++;
    }
    return counts.map((count) => (values.length ? count / values.length : 0));
  });
  return {
    title,
    what,
    heads: [unit, ...groups.map((group) => group.name)],
    rows: names.map((name, bin) => [name, ...shares.map((own) => percent(own[bin]))]),
    draw(width) {
      const height = 240;
      const { x, y, parts } = frame(width, height, Math.max(0.05, ...shares.flat()));
      const room = (x(1) - x(0)) / bins;
      const thick = (0.8 * room) / groups.length;
      names.forEach((name, bin) => {
        parts.push(text(x(bin / bins), height - 20, String(bounds[bin]), "middle"));
        groups.forEach((group, number) => {
          const share = shares[number][bin];
          parts.push(
            drawing(
              "rect",
              {
                x: x(bin / bins) + 0.1 * room + number * thick,
                y: y(share),
                width: Math.max(1, thick - 1),
                height: y(0) - y(share),
                class: group.kind,
              },
              hover(`${group.name}, ${name} ${unit}: ${percent(share)} %`),
            ),
          );
        });
      });
      parts.push(text(x(0.5), height - 4, unit, "middle"));
      return { height, parts };
    },
  };
}

const lengthHistogram = () =>
  histogram(
    "Length of windows",
    "of the true windows and of each file's first windows",
    windowGroups((start, end) => end - start),
    LENGTHS,
    "seconds",
  );

const placeHistogram = () =>
  histogram(
    "Position of windows",
    "middle of the window, from the clip's start to its end",
    windowGroups((start, end, query) => (50 * (start + end)) / clips[queries.clip[query]].seconds),
    PLACES,
    "% of the clip",
  );

function templateBars() {
  const groups = new Map();
  for (const query of state.shown) {
    if (Number.isNaN(truth[2 * query])) continue;
    const name = templates[queries.template[query]] || "(none)";
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(query);
  }
  const lines = [...groups]
    .map(([name, rows]) => ({
      name,
      count: rows.length,
      values: runs.map((_, number) => measures[barMeasure](number, evaluated(number, rows))),
    }))
    .sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));
  const control = element("select", {
    "aria-label": "Measure",
    onchange: (event) => {
      barMeasure = event.target.value;
      drawCharts();
      byId("charts").querySelector("figure select").focus();
    },
  });
  setOptions(control, Object.keys(measures).map((name) => [name, name]));
  control.value = barMeasure;
  return {
    title: "By template",
    what: "the number of queries stands before each template",
    control,
    wide: true,
    heads: ["template", "queries", ...runs.map((run) => run.name)],
    rows: lines.map(({ name, count, values }) => [name, String(count), ...values.map(percent)]),
    draw(width) {
      const thick = 12;
      const most = Math.max(0.01, ...lines.flatMap(({ values }) => values).filter(Number.isFinite));
      const parts = [];
      let y = 0; // from the top down
      for (const { name, count, values } of lines) {
        for (const line of brokenLines(`${count} · ${name}`, width)) {
          y += 16;
          parts.push(text(0, y, line));
        }
        y += 6;
        values.forEach((value, number) => {
          const length = Math.max(1, Number.isFinite(value) ? (value / most) * (width - 60) : 0);
          parts.push(
            drawing(
              "rect",
              { x: 0, y, width: length, height: thick - 2, class: colour(number) },
              hover(`${runs[number].name}: ${percent(value)}`),
            ),
            text(length + 5, y + 9, percent(value), "start", "small"),
          );
          y += thick;
        });
        y += 12;
      }
      return { height: y, parts };
    },
  };
}
