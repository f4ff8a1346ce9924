"use strict";
const at = (name) => document.getElementById(name);
let latest = 0; // only the last image that was sent is shown

function show(kind, said, why, told = {}) {
  at("answer").hidden = false;
  at("answer").className = kind;
  at("verdict").textContent = said;
  at("why").textContent = why;
  at("overlay").hidden = !told.overlay;
  if (told.overlay) at("overlay").src = "data:image/png;base64," + told.overlay;
  at("facts").replaceChildren();
  for (const [name, value] of Object.entries(told)) {
    if (name === "overlay" || value === "") continue;
    const [term, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    text.textContent = Array.isArray(value) ? value.join(" ") : value;
    at("facts").append(term, text);
  }
}

function reason(told) {
  const [left, top, right, bottom] = told.where;
  const place = `columns ${left} to ${right}, rows ${top} to ${bottom}`;
  const counts = told.what ? ` (${told.what})` : "";
  return told.side === "local"
    ? `Strongest evidence: ${told.source}${counts}, at ${place}.`
    : `Strongest evidence: ${told.source}${counts}, of the whole image; ` +
      `the map is highest at ${place}.`;
}

async function send(file) {
  if (!file) return;
  const mine = ++latest;
  show("", "Scoring …", file.name);
  const headers = {};
  if (at("token")) headers.Authorization = "Bearer " + at("token").value;
  let kind = "error", said = "No answer", why = "", told = {};
  try {
    const answer = await fetch("score?overlay=1", { method: "POST", body: file, headers });
    const content = await answer.json();
    if (answer.ok) {
      [kind, told, why] = [content.verdict, content, reason(content)];
      said = `${content.verdict}: score ${content.score.toFixed(2)}`;
    } else {
      [said, why] = [`Not scored (${answer.status})`, content.error];
    }
  } catch (error) {
    why = String(error);
  }
  if (mine === latest) show(kind, said, why, told);
}

at("file").addEventListener("change", (event) => {
  send(event.target.files[0]);
  event.target.value = ""; // the same file can be chosen again
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", ["dragenter", "dragover"].includes(name));
    if (name === "drop") send(event.dataTransfer.files[0]);
  });
}
