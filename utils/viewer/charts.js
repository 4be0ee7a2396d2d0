// Charts of the queries shown: recall over IoU, length and place of windows.

const THRESHOLDS = Array.from({ length: 20 }, (_, step) => step / 20);
const LENGTHS = [0, 1, 2, 5, 10, 20, 50, 100, Infinity]; // bounds of the bins in seconds
const PLACES = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, Infinity]; // in per cent of the clip
const HEIGHT = 250; // of a chart, in pixels

function drawCharts() {
  const box = byId("charts");
  const length = ([start, end]) => end - start;
  const middle = ([start, end], query) => (50 * (start + end)) / clipOf(query).seconds;
  const charts = [
    ...(hasTruth ? [curves("R@1", 1), curves(`R@${perQuery}`, perQuery)] : []),
    histogram("Length of windows", "of the true windows and of each file's first windows", length, LENGTHS, "seconds"),
    histogram("Position of windows", "middle of the window, from the clip's start to its end", middle, PLACES,
      "% of the clip"),
  ];
  const top = box.scrollTop;
  box.replaceChildren(legend(), ...charts.map(figure));
  for (const chart of box.querySelectorAll("figure")) chart.draw();
  box.scrollTop = top;
}

function legend() {
  const entries = runs.map((run, number) => element("li", { class: colour(number) }, run.name));
  const ofTruth = hasTruth ? element("li", { class: "truth" }, "Ground truth") : null;
  return element("ul", { class: "legend" }, ofTruth, ...entries);
}

/**
 * A chart with its numbers as a table under it.
 *
 * chart: title, what (explanation), heads and rows of the table, draw(width) -> SVG parts.
 */
function figure({ title, what, heads, rows, draw }) {
  const canvas = element("div", {});
  const table = tableParts(heads, rows.map(([head, ...cells]) => [head, {}, cells]));
  const node = element(
    "figure",
    {},
    element("figcaption", {}, element("h2", {}, title), element("p", { class: "soft" }, what)),
    canvas,
    element(
      "details",
      {},
      element("summary", {}, "Numbers"),
      element("div", { class: "numbers" }, element("table", { "aria-label": title }, ...table)),
    ),
  );
  // Drawn as wide as there is room, once the figure is in the page: text keeps its size.
  node.draw = () => {
    const width = Math.max(220, canvas.clientWidth);
    const attributes = { width, height: HEIGHT, role: "img", "aria-label": `${title}: ${what}` };
    canvas.replaceChildren(drawing("svg", attributes, ...draw(width)));
  };
  return node;
}

const text = (x, y, words, anchor) => drawing("text", { x, y, "text-anchor": anchor }, words);
const hover = (words) => drawing("title", {}, words);

/** Frame of a chart with shares on the left: parts, and the functions that place values. */
function frame(width, most, unit) {
  const [left, right, top, bottom] = [44, 14, 8, 36];
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((size) => most / size <= 5) ?? 0.25;
  const steps = Math.max(1, Math.ceil(most / step - 1e-9));
  const y = (share) => top + (1 - share / (steps * step)) * (HEIGHT - top - bottom);
  const x = (share) => left + share * (width - left - right);
  const parts = [text(x(0.5), HEIGHT - 4, unit, "middle")];
  for (let tick = 0; tick <= steps; tick++) {
    const height = y(tick * step);
    parts.push(drawing("line", { x1: left, y1: height, x2: width - right, y2: height, class: "rule" }));
    parts.push(text(left - 6, height + 4, `${Math.round(100 * tick * step)}%`, "end"));
  }
  return { x, y, parts };
}

function curves(name, k) {
  const lines = runs.map((_, number) => {
    const rows = evaluated(number, state.shown);
    return THRESHOLDS.map((threshold) => recall(number, rows, k, threshold));
  });
  const windows = k === 1 ? "the first window" : `one of the first ${k} windows`;
  return {
    title: `${name} over IoU`,
    what: `share of queries with an IoU above the threshold for ${windows}`,
    heads: ["IoU above", ...runs.map((run) => run.name)],
    rows: THRESHOLDS.map((threshold, at) => [threshold.toFixed(2), ...lines.map((line) => percent(line[at]))]),
    draw(width) {
      const { x, y, parts } = frame(width, Math.max(0.05, ...lines.flat().filter(Number.isFinite)), "IoU threshold");
      for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
        parts.push(text(x(tick), HEIGHT - 20, tick.toFixed(1), "middle"));
      }
      lines.forEach((line, number) => {
        if (!line.every(Number.isFinite)) return;
        const points = line.map((share, at) => `${x(THRESHOLDS[at])},${y(share)}`).join(" ");
        parts.push(drawing("polyline", { points, class: `curve ${colour(number)}` }));
        line.forEach((share, at) => {
          const words = `${runs[number].name}: ${percent(share)} at IoU ${THRESHOLDS[at].toFixed(2)}`;
          const place = { cx: x(THRESHOLDS[at]), cy: y(share), r: 3, class: colour(number) };
          parts.push(drawing("circle", place, hover(words)));
        });
      });
      return parts;
    },
  };
}

/** Shares in bins of `value(window, query)`; a value on a bound belongs to the bin above it. */
function histogram(title, what, value, bounds, unit) {
  const groups = runs.map((run, number) => [run.name, colour(number), (query) => predictedWindow(run, query)]);
  if (hasTruth) groups.unshift(["Ground truth", "truth", trueWindow]);
  const bins = bounds.slice(0, -1);
  const names = bins.map((low, bin) => (bin < bins.length - 1 ? `${low}–${bounds[bin + 1]}` : `${low} and more`));
  const shares = groups.map(([, , window]) => {
    const values = state.shown.map((query) => value(window(query), query)).filter((number) => !Number.isNaN(number));
    const count = (bin) => values.filter((number) => number >= bounds[bin] && number < bounds[bin + 1]).length;
    return bins.map((_, bin) => (values.length ? count(bin) / values.length : 0));
  });
  return {
    title,
    what,
    heads: [unit, ...groups.map(([name]) => name)],
    rows: names.map((name, bin) => [name, ...shares.map((share) => percent(share[bin]))]),
    draw(width) {
      const { x, y, parts } = frame(width, Math.max(0.05, ...shares.flat()), unit);
      const room = (x(1) - x(0)) / bins.length;
      const thick = (0.8 * room) / groups.length;
      names.forEach((name, bin) => {
        const left = x(bin / bins.length);
        parts.push(text(left, HEIGHT - 20, String(bounds[bin]), "middle"));
        groups.forEach(([group, kind], number) => {
          const top = y(shares[number][bin]);
          const box = { x: left + 0.1 * room + number * thick, y: top, width: Math.max(1, thick - 1), height: y(0) - top };
          const words = `${group}, ${name} ${unit}: ${percent(shares[number][bin])} %`;
          parts.push(drawing("rect", { ...box, class: kind }, hover(words)));
        });
      });
      return parts;
    },
  };
}
