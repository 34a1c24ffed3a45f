// Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
// Puts the page together: which case is open, what keys and buttons do, the address that names case and place.
import { ask, byId, element, say } from "./requests.js";
import { CaseList } from "./list.js";
import { Viewer } from "./viewer.js";
import { Outlines } from "./outlines.js";
import { Learning } from "./learn.js";

const percent = (value) => `${Math.round(100 * value)} %`;
let details = null, cases = [], opening = 0;

const viewer = new Viewer(({ x, y, z }) => {
  const place = new URLSearchParams({ case: details.name, x, y, z });
  history.replaceState(null, "", `#${place}`);
});
const list = new CaseList((id) => open(id));
const outlines = new Outlines(viewer, (found) => {
  byId("undo").disabled = !found.done.length;
  byId("redo").disabled = !found.undone.length;
  byId("saved").textContent = found.failed ? "Not saved" : found.dirty ? "Saving ..." : { draft: "Draft of the model, nothing changed", "in work": "Saved: in work", accepted: "Saved: accepted", rejected: "Saved: rejected" }[found.state] || "";
  byId("accept").setAttribute("aria-pressed", found.state === "accepted");
  byId("reject").setAttribute("aria-pressed", found.state === "rejected");
  if (found.id !== null && !found.dirty) list.mark(found.id, found.state);
});

async function open(id, place = null) {
  opening += 1;
  const mine = opening;
  if (outlines.dirty && !(await outlines.save())) return;
  try {
    const [one, saved] = await Promise.all([ask(`/api/cases/${id}`), ask(`/api/cases/${id}/outlines`)]);
    if (mine !== opening) return;
    details = one.content;
    outlines.open(id, saved.content, saved.version);
    viewer.show(details, outlines.vectors, place);
    viewer.see("outlines", viewer.outlinesSeen !== false);
    describe();
  } catch (error) { say(error.message); }
}

function describe() {
  byId("case").hidden = false;
  byId("name").textContent = details.name;
  byId("said").textContent = details.evidence ? details.said + (details.truth ? ` (true class: ${details.truth})` : "") : "no evidence";
  const meters = Object.entries(details.probabilities).map(([name, share]) => {
    const row = element("div", "", { class: "score" });
    row.append(element("span", name), element("meter", "", { min: 0, max: 1, value: share, "aria-label": name }), element("span", percent(share)));
    return row;
  });
  byId("scores").replaceChildren(...meters);
  const remarks = [...details.remarks];
  if (details.uncertainty !== null) remarks.push(`uncertainty ${percent(details.uncertainty)}, mask ${percent(details.decidable ?? 0)} of the image`);
  byId("remarks").replaceChildren(...remarks.map((text) => element("li", text)));
  setThreshold(details.threshold);
  const soft = details.layers.some((one) => one.key === "map");
  byId("threshold").disabled = !soft;
  byId("threshold-note").textContent = soft ? (details.slide ? "Of the selected outline ( [ and ] )" : "Of the selected outline, or of all ( [ and ] )") : "The threshold needs the soft map: predict again with --formats png png_map";
  document.title = `${details.name} - Review`;
}

function setThreshold(value) {
  byId("threshold").value = value;
  byId("threshold-value").textContent = Number(byId("threshold").value).toFixed(2);
}

let waiting = 0;
function slide(last, wait = 120) {
  setThreshold(byId("threshold").value);
  clearTimeout(waiting);
  waiting = setTimeout(() => outlines.threshold(Number(byId("threshold").value), last), last ? 0 : wait);
}
byId("threshold").addEventListener("input", () => slide(false));
byId("threshold").addEventListener("change", () => slide(true));

function setBrush(value) {
  byId("brush").value = value;
  outlines.radius = Number(byId("brush").value);
  byId("brush-value").textContent = `radius ${outlines.radius} px`;
}
byId("brush").addEventListener("input", () => setBrush(byId("brush").value));
setBrush(12);

async function decide(state) {
  if (details && (await outlines.decide(state))) learning.look();
}

async function picture() {
  if (!details) return;
  const link = element("a", "", { href: URL.createObjectURL(await viewer.picture()), download: `${details.name}_view.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 5000);
}

async function refresh() {
  cases = (await ask("/api/cases")).content;
  list.set(cases);
  return cases;
}

const learning = new Learning((name) => openByName(name), async () => {
  await refresh();
  if (details) await open(details.id, viewer.place());
  say("The new model has localized the images: W shows old and new masks by turns.");
});

function openByName(name, place = null) {
  const found = cases.find((one) => one.name === name);
  if (found) open(found.id, place); else say(`There is no case ${name} in these results.`);
}

function fromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1)), [x, y, z] = ["x", "y", "z"].map((key) => Number(asked.get(key)));
  if (asked.get("case") && asked.get("case") !== details?.name) openByName(asked.get("case"), z > 0 && Number.isFinite(x + y) ? { x, y, z } : null);
  else if (asked.get("case") && z > 0) { viewer.map.getView().setCenter([x, -y]); viewer.map.getView().setResolution(z); }
}
addEventListener("hashchange", fromAddress);

// ---- keys
const KEYS = [
  ["j", "next case", () => list.neighbour(1)], ["k", "case before", () => list.neighbour(-1)],
  ["/", "search", () => byId("search").focus()], ["0", "whole image", () => viewer.fit()],
  ["+", "nearer", () => viewer.zoom(1)], ["-", "farther", () => viewer.zoom(-1)],
  ["g", "to the image (arrow keys move it)", () => byId("map").focus()],
  ["n", "next outline", () => outlines.next(1)], ["p", "outline before", () => outlines.next(-1)],
  ["x", "next outline too", () => outlines.next(1, true)],
  ["c", "next corner (arrow keys move it, with Shift by 10 px)", () => outlines.stepCorner(1)],
  ["C", "corner before", () => outlines.stepCorner(-1)], ["i", "insert a corner", () => outlines.insert()],
  ["Delete", "delete corner, else outline", () => outlines.remove()],
  ["v", "select", () => outlines.setMode("select")], ["d", "draw", () => outlines.setMode("draw")],
  ["b", "brush: add", () => outlines.setMode("add")], ["e", "brush: erase", () => outlines.setMode("erase")],
  ["s", "split by a line", () => outlines.setMode("split")],
  [" ", "Space: corner or dab at the cross", () => outlines.place()], ["Enter", "end of drawing", () => outlines.finish()],
  ["<", "smaller brush", () => setBrush(outlines.radius - 2)], [">", "larger brush", () => setBrush(outlines.radius + 2)],
  ["l", "join selected outlines", () => outlines.onChosen("join")], ["h", "fill holes", () => outlines.onChosen("fill")],
  ["m", "uncross", () => outlines.onChosen("mend")],
  ["[", "lower threshold", () => step(-0.02)], ["]", "higher threshold", () => step(0.02)],
  ["u", "undo (also Ctrl+Z)", () => outlines.undo()], ["y", "redo (also Ctrl+Y)", () => outlines.redo()],
  ["a", "accept", () => decide("accepted")], ["r", "reject", () => decide("rejected")],
  ["w", "old and new mask by turns", () => { if (!viewer.swap()) say("There is no mask of a new model yet."); }],
  ["o", "outlines on and off", () => viewer.toggle(0)], ["f", "save the view as PNG", () => picture()],
  ["?", "this help", () => byId("help").showModal()], ["Escape", "leave tool, corner, selection", () => outlines.cancel()],
];

function step(by) {
  if (byId("threshold").disabled) { say(byId("threshold-note").textContent); return; }
  setThreshold(Number(byId("threshold").value) + by);
  slide(true);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener("keydown", (event) => {
  if (byId("help").open) return;
  const typing = event.target.matches("input:not([type=checkbox]):not([type=range]), select, textarea");
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (typing || !["z", "y"].includes(key)) return;
    if (key === "z" && !event.shiftKey) outlines.undo(); else outlines.redo();
    event.preventDefault();
    return;
  }
  if (typing || event.altKey) { if (event.key === "Escape") event.target.blur(); return; }
  const onControl = event.target.matches("button, input, summary, #rows, pre"), ofControl = [" ", "Enter", ...Object.keys(ARROWS)];
  const moving = outlines.at !== null && event.key in ARROWS && !event.target.matches("input");
  if (onControl && !moving && ofControl.includes(event.key)) return;
  if (outlines.at !== null && event.key in ARROWS) {
    const far = event.shiftKey ? 10 : 1, [x, y] = ARROWS[event.key];
    outlines.nudge(x * far, y * far);
    event.preventDefault();
    event.stopPropagation();
    return;
  }
  if (/^[1-9]$/.test(event.key)) { viewer.toggle(Number(event.key) - 1); return; }
  const alias = { Backspace: "Delete", "=": "+" }[event.key] || event.key;
  const found = KEYS.find(([key]) => key === alias);
  if (!found) return;
  event.preventDefault();
  event.stopPropagation();
  found[2]();
}, true);
for (const [key, words] of KEYS) {
  const row = element("p");
  row.append(element("kbd", key === " " ? "Space" : key), ` ${words.replace(/^Space: /, "")}`);
  byId("keys").append(row);
}
const layers = element("p");
layers.append(element("kbd", "1"), " ... ", element("kbd", "9"), " layers on and off");
byId("keys").append(layers);

for (const [id, action] of Object.entries({
  accept: () => decide("accepted"), reject: () => decide("rejected"), undo: () => outlines.undo(), redo: () => outlines.redo(),
  join: () => outlines.onChosen("join"), fill: () => outlines.onChosen("fill"), mend: () => outlines.onChosen("mend"),
  delete: () => outlines.remove(), export: () => picture(),
  "help-button": () => byId("help").showModal(), "help-close": () => byId("help").close(),
})) byId(id).addEventListener("click", action);
for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => outlines.setMode(button.dataset.mode));

// ---- nothing is lost
addEventListener("beforeunload", (event) => { if (outlines.dirty) { outlines.save(); event.preventDefault(); } });
document.addEventListener("visibilitychange", () => { if (document.hidden && outlines.dirty) outlines.save(); });

// ---- first use
byId("first").hidden = localStorage.getItem("review-first") === "seen";
byId("first-close").addEventListener("click", () => { localStorage.setItem("review-first", "seen"); byId("first").hidden = true; });

async function start() {
  const { content } = await ask("/api/run");
  byId("folder").textContent = content.folder;
  byId("about").textContent = content.trained_on;
  byId("about").title = `${content.trained_on}. Corrections: ${content.corrections}, saved as ${content.who}`;
  if (content.alarm) {
    const quiet = content.verdict === "no alarm";
    byId("about").prepend(element("span", content.alarm, { class: quiet ? "badge good" : "alarm" }), " ");
  }
  await refresh();
  if (content.left_out) say(`${content.left_out} images without a result are not shown.`);
  if (location.hash.length > 1) fromAddress();
  else if (cases.length) open(cases[0].id);
  list.box.focus();
}
start().catch((error) => say(error.message));
globalThis.review = { viewer, outlines, list }; // for whoever looks at the page from the console
