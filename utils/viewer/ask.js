"use strict";
// The page that answers questions: a question goes to its server, moments come back.

const video = document.querySelector("video");
let moments = [];
let current = -1;


const times = ({ start, end }) => `${clock(start)} – ${clock(end)}`;

async function ask(event) {
  event.preventDefault();
  const question = byId("question").value;
  byId("status").textContent = "Asking …";
  const began = performance.now();
  try {
    const response = await fetch(`answers?question=${encodeURIComponent(question)}`);
    const answers = await response.json();
    if (!response.ok) throw new Error(answers.error);
    moments = answers;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    byId("status").textContent = `${moments.length} moments for “${question}”, in ${seconds} s`;
  } catch (error) {
    moments = [];
    byId("status").textContent = error instanceof TypeError ? "The server has ended; start it again." : error.message;
  }
  draw();
}

function draw() {
  current = -1;
  video.removeAttribute("src");
  video.load(); // what was playing ends
  byId("moment").hidden = true;
  byId("moments").replaceChildren(...moments.map((moment, number) => element("li", {}, button(moment, number))));
}

function button(moment, number) {
  const middle = ((moment.start + moment.end) / 2).toFixed(2);
  const picture = moment.playable
    ? element("img", { src: `picture/${moment.video}/${middle}`, alt: "", loading: "lazy" })
    : element("span", { class: "blank" });
  return element(
    "button",
    { type: "button", onclick: () => show(number) },
    picture,
    element("span", { class: "name" }, moment.name),
    element("span", { class: "time" }, times(moment)),
    element("span", { class: "score" }, `${moment.scoreName} ${Number(moment.score.toPrecision(3))}`),
  );
}

/** Play the video at a moment. */
function show(number) {
  const moment = moments[number];
  const buttons = byId("moments").querySelectorAll("button");
  buttons.forEach((node, at) => node.setAttribute("aria-current", at === number));
  buttons[number].scrollIntoView({ block: "nearest" });
  current = number;
  byId("caption").textContent = `${moment.name}, ${times(moment)}`;
  byId("moment").hidden = false;
  byId("trouble").hidden = true;
  video.hidden = !moment.playable;
  if (!moment.playable) return trouble("The index holds features of it alone, without the video.");
  video.src = `video/${moment.video}#t=${moment.start.toFixed(2)},${moment.end.toFixed(2)}`;
  video.play().catch(() => {}); // what is wrong with it comes as an event
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = false;
}

video.addEventListener("error", () => {
  if (current < 0) return;
  const { name, start } = moments[current];
  trouble(`This browser can't play ${name}. Another player can: mpv --start=${start.toFixed(1)}, or ask.py --cut.`);
});
byId("filters").addEventListener("submit", ask);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const step = { j: 1, k: -1 }[event.key];
  if (event.key === "/") byId("question").focus();
  else if (step && moments[current + step]) show(current + step);
  else return;
  event.preventDefault();
});
