// The query looked at: its timeline with narrations, true window and predictions, and its video.

/** The seconds the timeline shows: the whole clip, or what lies around the windows. */
function timelineRange(query) {
  const clip = clips[queries.clip[query]];
  const times = [truth[2 * query], truth[2 * query + 1]];
  if (state.zoomed) {
    for (const run of runs) {
      times.push(...run.windows.subarray(2 * perQuery * query, 2 * perQuery * query + 2));
    }
  }
  const known = times.filter(Number.isFinite);
  if (!state.zoomed || !known.length) return [0, Math.max(clip.seconds, ...known)];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const margin = Math.max(2, 0.25 * (high - low));
  return [Math.max(0, low - margin), Math.min(Math.max(clip.seconds, high), high + margin)];
}

function drawDetail() {
  const query = state.selected;
  const about = byId("about");
  byId("place").textContent = query < 0 ? "" : `${state.shown.indexOf(query) + 1} of ${state.shown.length}`;
  if (query < 0) {
    about.replaceChildren();
    return;
  }
  const clip = clips[queries.clip[query]];
  const parts = [
    element("h2", {}, queries.text[query]),
    facts(query, clip),
    clip.video ? player(query, clip) : null,
    element("div", { id: "times" }),
  ];
  about.replaceChildren(...parts.filter(Boolean));
  drawTimes();
}

/** What zooming changes; the video plays on. */
function drawTimes() {
  const query = state.selected;
  if (query < 0) return;
  const clip = clips[queries.clip[query]];
  const range = timelineRange(query);
  const parts = [timeline(query, clip, ...range), narrationList(query, clip, ...range)];
  byId("times").replaceChildren(...parts.filter(Boolean));
  drawAxis();
  const current = byId("times").querySelector(".current");
  const list = current?.parentElement;
  if (list) list.scrollTop = current.offsetTop - list.clientHeight / 3;
}

function facts(query, clip) {
  const annotation = annotations[queries.annotation[query]];
  const rows = [
    ["template", templates[queries.template[query]]],
    ["object", objects[queries.object[query]]],
    ["annotation", annotation && `${annotation}, query ${queries.index[query]}`],
  ].filter(([, text]) => text);
  const only =
    clips.length === 1
      ? clip.uid
      : element(
          "button",
          { type: "button", class: "link", title: "Only queries of this clip", onclick: () => showClip(queries.clip[query]) },
          clip.uid,
        );
  const length = answers ? clock(clip.seconds) : `${seconds(clip.seconds)}\u00a0s`;
  return element(
    "dl",
    { class: "facts" },
    ...rows.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]),
    element("dt", {}, answers ? "video" : "clip"),
    element("dd", {}, only, ` ${length}`),
  );
}

function showClip(number) {
  byId("clip").value = number;
  showDetail(false);
  update(state.selected);
}

function timeline(query, clip, low, high) {
  const line = (head, bars, window, figure, kind = "") => {
    const played = window && clip.video && Number.isFinite(window[0]);
    const times = window && Number.isFinite(window[0]) ? window.map(moment).join(" – ") : "";
    return element(
      "tr",
      { class: kind },
      element("th", { scope: "row" }, head),
      element("td", { class: "track", "aria-hidden": "true" }, element("div", {}, ...bars)),
      element(
        "td",
        { class: "time" },
        played
          ? element("button", { type: "button", class: "link", onclick: () => play(...window) }, times)
          : times,
      ),
      element("td", { class: "iou" }, figure),
    );
  };
  const ticks = (pairs, kind) =>
    pairs.map(([start, end, text]) => {
      const mark = bar(start, end, low, high, kind);
      if (mark) mark.title = `${moment(start)} – ${moment(end)}  ${text}`;
      return mark;
    });
  const heading = (text, kind) =>
    element("tr", { class: `heading ${kind}` }, element("th", { colspan: 4, scope: "rowgroup" }, text));
  const others = [];
  for (let other = 0; other < total; other++) {
    if (other !== query && queries.clip[other] === queries.clip[query] && !Number.isNaN(truth[2 * other])) {
      others.push([truth[2 * other], truth[2 * other + 1], queries.text[other]]);
    }
  }
  const own = [truth[2 * query], truth[2 * query + 1]];
  return element(
    "table",
    { class: "timeline", "aria-label": "Windows" },
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        element("th", { scope: "col" }, ""),
        element("th", { scope: "col", class: "axis", "aria-hidden": "true" }),
        element("th", { scope: "col", class: "time" }, answers ? "from – to" : "seconds"),
        element("th", { scope: "col", class: "iou" }, hasTruth ? "IoU" : runs[0].scores ? "score" : ""),
      ),
    ),
    element(
      "tbody",
      {},
      clip.narrations.length ? line("Narrations", ticks(clip.narrations, "narration"), null, "", "thin") : null,
      others.length ? line("Other queries", ticks(others, "other"), null, "", "thin") : null,
      hasTruth ? line("Ground truth", [bar(...own, low, high, "truth")].filter(Boolean), own, "", "true") : null,
    ),
    ...runs.map((run, number) =>
      element(
        "tbody",
        { class: colour(number) },
        heading(run.answered[query] ? run.name : `${run.name}: no prediction`, colour(number)),
        ...Array.from({ length: perQuery }, (_, rank) => {
          const at = query * perQuery + rank;
          const window = [run.windows[2 * at], run.windows[2 * at + 1]];
          if (Number.isNaN(window[0])) return null;
          const edges = bar(...own, low, high, "edges");
          const found = bar(...window, low, high, colour(number));
          const score = run.scores ? String(Number(run.scores[at].toPrecision(3))) : "";
          const figure = hasTruth ? fraction(run.iou[at]) : score;
          return line(String(rank + 1), [found, edges].filter(Boolean), window, figure);
        }),
      ),
    ),
  );
}

/** Round seconds in the head of the timeline, as many as there is room for. */
function drawAxis() {
  const head = document.querySelector(".timeline th.axis");
  if (!head) return;
  const [low, high] = timelineRange(state.selected);
  const steps = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600].filter((one) => !answers || one >= 1);
  const label = answers ? 70 : 50; // pixels
  const room = Math.max(120, head.clientWidth); // of a timeline that is out of view there is none
  const by = steps.find((one) => (high - low) / one <= room / label) ?? 7200;
  const last = 1 - (label - 10) / room; // so that no number is cut off
  const box = element("div", { class: "axis" });
  const mark = (time, words) => {
    const node = element("span", {}, words);
    node.style.left = `${(100 * (time - low)) / (high - low)}%`;
    box.append(node);
  };
  for (let time = Math.ceil(low / by) * by; (time - low) / (high - low) < last; time += by) {
    mark(time, answers ? clock(time) : by < 1 ? time.toFixed(1) : String(time));
  }
  if (!box.firstChild) mark(low, moment(low)); // no round time has room: where it begins
  head.replaceChildren(box);
}

function narrationList(query, clip, low, high) {
  const [start, end] = [truth[2 * query], truth[2 * query + 1]];
  const seen = clip.narrations.filter(([from, to]) => to >= low && from <= high);
  if (!seen.length) return null;
  return element(
    "section",
    {},
    element("h3", {}, `Narrations${state.zoomed ? " around the windows" : ""} (${seen.length})`),
    element(
      "ol",
      { class: "narrations", tabindex: 0, "aria-label": "Narrations" },
      ...seen.map(([from, to, text]) =>
        element(
          "li",
          { class: to >= start && from <= end ? "current" : "" },
          clip.video
            ? element("button", { type: "button", class: "link", onclick: () => play(from, to) }, moment(from))
            : element("span", { class: "time" }, moment(from)),
          element("span", {}, text),
        ),
      ),
    ),
  );
}

/** The true window, or else the first run's first. */
function bestKnown(query) {
  const known = Number.isNaN(truth[2 * query])
    ? runs[0].windows.subarray(2 * perQuery * query)
    : truth.subarray(2 * query);
  return [known[0], known[1]];
}

function player(query, clip) {
  const [start, end] = bestKnown(query);
  const src = Number.isNaN(start) ? clip.video : fragment(clip, start, end);
  const name = `Video of ${clip.uid}`;
  return element("video", { controls: true, preload: "metadata", playsinline: true, src, "aria-label": name });
}

/** A part of a video: the browser starts and stops there. */
const fragment = (clip, start, end) =>
  `${clip.video}#t=${Math.max(0, start).toFixed(2)},${Math.max(0.01, end).toFixed(2)}`;

function play(start, end) {
  const video = byId("about").querySelector("video");
  if (!video) return;
  video.src = fragment(clips[queries.clip[state.selected]], start, end);
  video.play().catch(() => {}); // the video shows by itself what is wrong with it
}

function playBest() {
  if (state.selected < 0) return;
  const [start, end] = bestKnown(state.selected);
  if (Number.isFinite(start)) play(start, end);
}

function zoom(on) {
  state.zoomed = on;
  byId("zoom").setAttribute("aria-pressed", on);
  drawTimes();
}
