// The query looked at: its timeline with narrations, true window and predictions, and its video.

/** The seconds the timeline shows: the whole clip, or what lies around the windows. */
function timelineRange(query) {
  const { seconds } = clipOf(query);
  const windows = state.zoomed ? runs.map((run) => predictedWindow(run, query)) : [];
  const times = [trueWindow(query), ...windows].flat().filter(Number.isFinite);
  if (!state.zoomed || !times.length) return [0, Math.max(seconds, ...times)];
  const [low, high] = [Math.min(...times), Math.max(...times)];
  const margin = Math.max(2, 0.25 * (high - low));
  return [Math.max(0, low - margin), Math.min(Math.max(seconds, high), high + margin)];
}

function drawDetail() {
  const query = state.selected;
  byId("place").textContent = query < 0 ? "" : `${state.shown.indexOf(query) + 1} of ${state.shown.length}`;
  byId("about").replaceChildren();
  if (query < 0) return;
  byId("about").append(element("h2", {}, queries.text[query]), facts(query));
  if (clipOf(query).video) byId("about").append(player(query));
  byId("about").append(element("div", { id: "times" }));
  drawTimes();
}

/** What zooming changes; the video plays on. */
function drawTimes() {
  const query = state.selected;
  if (query < 0) return;
  const range = timelineRange(query);
  byId("times").replaceChildren(timeline(query, range), narrationList(query, range) ?? "");
  drawAxis();
  const current = byId("times").querySelector(".current");
  const list = current?.parentElement;
  if (list) list.scrollTop = current.offsetTop - list.clientHeight / 3;
}

function facts(query) {
  const clip = clipOf(query);
  const annotation = annotations[queries.annotation[query]];
  const showClip = () => {
    byId("clip").value = queries.clip[query];
    showDetail(false);
    update(state.selected);
  };
  const name = clips.length === 1 ? clip.uid : linkButton(clip.uid, showClip, "Only queries of this clip");
  const rows = [
    ["template", templates[queries.template[query]]],
    ["object", objects[queries.object[query]]],
    ["annotation", annotation && `${annotation}, query ${queries.index[query]}`],
    [answers ? "video" : "clip", name, ` ${answers ? clock(clip.seconds) : `${decimals(clip.seconds, 1)}\u00a0s`}`],
    ["video", !answers && clip.videoUid],
  ].filter(([, text]) => text);
  const parts = rows.flatMap(([head, ...texts]) => [element("dt", {}, head), element("dd", {}, ...texts)]);
  return element("dl", { class: "facts" }, ...parts);
}

function timeline(query, range) {
  const { narrations, video } = clipOf(query);
  const line = (head, bars, window = [NaN, NaN], figure = "", kind = "") => {
    const times = Number.isFinite(window[0]) ? window.map(moment).join(" – ") : "";
    return element(
      "tr",
      { class: kind },
      element("th", { scope: "row" }, head),
      element("td", { class: "track", "aria-hidden": "true" }, element("div", {}, ...bars)),
      element("td", { class: "time" }, video && times ? linkButton(times, () => play(window)) : times),
      element("td", { class: "iou" }, figure),
    );
  };
  /** A line of many thin bars, whose texts are seen by pointing at them. */
  const thinLine = (head, windows, kind) => {
    const bars = windows.map(([start, end, text]) => {
      const mark = bar([start, end], range, kind);
      if (mark) mark.title = `${moment(start)} – ${moment(end)}  ${text}`;
      return mark;
    });
    return windows.length ? line(head, bars, undefined, "", "thin") : null;
  };
  const others = [...queries.clip.keys()]
    .filter((other) => other !== query && queries.clip[other] === queries.clip[query] && !Number.isNaN(truth[2 * other]))
    .map((other) => [...trueWindow(other), queries.text[other]]);
  const lineOfTruth = () => line("Ground truth", [bar(trueWindow(query), range, "truth")], trueWindow(query), "", "true");
  const linesOf = (run, number) =>
    Array.from({ length: perQuery }, (_, rank) => {
      const window = predictedWindow(run, query, rank);
      if (Number.isNaN(window[0])) return null;
      const at = query * perQuery + rank;
      const score = run.scores ? String(Number(run.scores[at].toPrecision(3))) : "";
      const bars = [bar(window, range, colour(number)), bar(trueWindow(query), range, "edges")];
      return line(String(rank + 1), bars, window, hasTruth ? decimals(run.iou[at], 2) : score);
    });
  const heading = (run, number) => {
    const name = run.answered[query] ? run.name : `${run.name}: no prediction`;
    return element("tr", { class: `heading ${colour(number)}` }, element("th", { colspan: 4, scope: "rowgroup" }, name));
  };
  const heads = { "": "", axis: "", time: answers ? "from – to" : "seconds", iou: runs[0].scores ? runs[0].scoreName : "" };
  if (hasTruth) heads.iou = "IoU";
  const head = Object.entries(heads).map(([kind, text]) => element("th", { scope: "col", class: kind }, text));
  return element(
    "table",
    { class: "timeline", "aria-label": "Windows" },
    element("thead", {}, element("tr", {}, ...head)),
    element(
      "tbody",
      {},
      thinLine("Narrations", narrations, "narration"),
      thinLine("Other queries", others, "other"),
      hasTruth ? lineOfTruth() : null,
    ),
    ...runs.map((run, number) =>
      element("tbody", { class: colour(number) }, heading(run, number), ...linesOf(run, number)),
    ),
  );
}

/** Round seconds in the head of the timeline, as many as there is room for. */
function drawAxis() {
  const head = document.querySelector(".timeline th.axis");
  if (!head) return;
  const [low, high] = timelineRange(state.selected);
  const steps = [...(answers ? [] : [0.5]), 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600];
  const label = answers ? 70 : 50; // pixels
  const room = Math.max(120, head.clientWidth); // of a timeline that is out of view there is none
  const by = steps.find((step) => (high - low) / step <= room / label) ?? 7200;
  const last = 1 - (label - 10) / room; // so that no number is cut off
  const times = [];
  for (let time = Math.ceil(low / by) * by; (time - low) / (high - low) < last; time += by) times.push(time);
  if (!times.length) times.push(low); // no round time has room: where it begins
  const text = (time) => (answers || !Number.isInteger(time) ? moment(time) : String(time));
  const marks = times.map((time) => element("span", {}, text(time)));
  marks.forEach((mark, at) => (mark.style.left = `${(100 * (times[at] - low)) / (high - low)}%`));
  head.replaceChildren(element("div", { class: "axis", "aria-hidden": "true" }, ...marks));
}

function narrationList(query, [low, high]) {
  const [start, end] = trueWindow(query);
  const { narrations, video } = clipOf(query);
  const seen = narrations.filter(([from, to]) => to >= low && from <= high);
  if (!seen.length) return null;
  const items = seen.map(([from, to, text]) =>
    element(
      "li",
      { class: to >= start && from <= end ? "current" : "" },
      video ? linkButton(moment(from), () => play([from, to])) : element("span", { class: "time" }, moment(from)),
      element("span", {}, text),
    ),
  );
  return element(
    "section",
    {},
    element("h3", {}, `Narrations${state.zoomed ? " around the windows" : ""} (${seen.length})`),
    element("ol", { class: "narrations", tabindex: 0, "aria-label": "Narrations" }, ...items),
  );
}

/** The true window, or else the first run's first. */
const bestKnown = (query) => (Number.isNaN(truth[2 * query]) ? predictedWindow(runs[0], query) : trueWindow(query));

function player(query) {
  const clip = clipOf(query);
  const window = bestKnown(query);
  const src = Number.isNaN(window[0]) ? clip.video : fragment(clip, window);
  return element("video", {
    controls: true, preload: "metadata", playsinline: true, src, "aria-label": `Video of ${clip.uid}`,
  });
}

/** A part of a video: the browser starts and stops there. */
const fragment = (clip, [start, end]) =>
  `${clip.video}#t=${Math.max(0, start).toFixed(2)},${Math.max(0.01, end).toFixed(2)}`;

function play(window) {
  const video = byId("about").querySelector("video");
  if (!video || Number.isNaN(window[0])) return;
  video.src = fragment(clipOf(state.selected), window);
  video.play().catch(() => {}); // the video shows by itself what is wrong with it
}

function playBest() {
  if (state.selected >= 0) play(bestKnown(state.selected));
}

function zoom(on) {
  state.zoomed = on;
  byId("zoom").setAttribute("aria-pressed", on);
  drawTimes();
}
