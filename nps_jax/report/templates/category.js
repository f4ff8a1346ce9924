"use strict";
const at = (id) => document.getElementById(id);
const slider = at("limit"), gallery = at("gallery");
const cards = [...gallery.children].map((element) => ({
  element,
  score: Number(element.dataset.score),
  good: element.dataset.good === "True",
  kinds: element.dataset.kinds.split("|"),
  verdict: element.querySelector(".verdict"),
}));
const good = IMAGES.filter((image) => image[1]).length;
const bad = IMAGES.length - good;

// The slider's own value is rounded to a step: until it is moved, the exact one counts.
const begin = slider.value;
const limitNow = () => (slider.value === begin ? BEGIN : Number(slider.value));

const mistaken = (good, score, limit) => good === score > limit;

function count(limit) {
  let alarms = 0, misses = 0;
  for (const [score, isGood] of IMAGES) {
    if (mistaken(isGood, score, limit)) isGood ? alarms++ : misses++;
  }
  at("value").textContent = limit.toFixed(2);
  at("counts").textContent =
    `${alarms} of ${good} good images above it (false alarms), ` +
    `${misses} of ${bad} anomalous ones not (misses)`;
  const x = (1000 * (limit - SPAN[0])) / (SPAN[1] - SPAN[0]);
  at("line").setAttribute("x1", x);
  at("line").setAttribute("x2", x);
  const dot = at("at");
  if (dot && good && bad) {
    dot.setAttribute("cx", (300 * alarms) / good);
    dot.setAttribute("cy", (240 * misses) / bad);
  }
}

function arrange(limit) {
  const wrong = (card) => mistaken(card.good, card.score, limit);
  const worse = (a, b) =>
    wrong(b) - wrong(a) ||
    (wrong(a)
      ? Math.abs(b.score - limit) - Math.abs(a.score - limit)
      : Math.abs(a.score - limit) - Math.abs(b.score - limit));
  const orders = {
    mistakes: worse,
    down: (a, b) => b.score - a.score,
    up: (a, b) => a.score - b.score,
  };
  const kind = at("kind").value, only = at("only").checked;
  let shown = 0;
  for (const card of [...cards].sort(orders[at("order").value])) {
    const isWrong = wrong(card);
    card.element.className = isWrong ? "mistake" : "right";
    card.verdict.textContent = isWrong
      ? card.good ? "false alarm" : "missed"
      : card.good ? "ok" : "found";
    const visible = (!kind || card.kinds.includes(kind)) && (!only || isWrong);
    card.element.hidden = !visible;
    shown += visible;
    gallery.append(card.element);
  }
  at("shown").textContent = `${shown} images shown`;
}

let waiting = 0;
function update() {
  const limit = limitNow();
  count(limit);
  clearTimeout(waiting);
  waiting = setTimeout(() => arrange(limit), 60);
}
slider.addEventListener("input", update);
for (const id of ["order", "kind", "only"]) {
  at(id).addEventListener("change", () => arrange(limitNow()));
}
count(limitNow());
arrange(limitNow());
