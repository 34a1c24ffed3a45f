// Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
// What to correct first, and learning from what was accepted, in the background of the server.
import { ask, byId, element, say } from "./requests.js";

const WORDS = {
  "": "", learn: "Learning: minutes to hours", predict: "Localizing with the new model", done: "Done: layer \"Mask of the new model\", key W",
  failed: "It failed: see the log", cancelled: "Cancelled",
};

export class Learning {
  constructor(openByName, finished) {
    this.openByName = openByName;
    this.finished = finished;
    byId("suggest").addEventListener("click", () => this.suggest());
    byId("learn-start").addEventListener("click", () => this.send("POST"));
    byId("learn-cancel").addEventListener("click", () => this.send("DELETE"));
    this.look();
  }

  async suggest() {
    byId("suggest").disabled = true;
    try {
      const { content } = await ask("/api/suggestions?n=10");
      byId("suggestions").replaceChildren(...content.map((one) => {
        const item = element("li"), button = element("button", one.name);
        button.addEventListener("click", () => this.openByName(one.name));
        item.append(button, element("span", ` ${one.why}`, { class: "small" }));
        return item;
      }));
    } catch (error) { say(error.message); }
    byId("suggest").disabled = false;
  }

  async send(method) {
    try { await ask("/api/learn", { method, body: {} }); } catch (error) { say(error.message); }
    this.look();
  }

  async look() {
    clearTimeout(this.timer);
    let state;
    try { state = (await ask("/api/learn")).content; } catch (error) { byId("learn-state").textContent = error.message; return; }
    const start = byId("learn-start");
    start.textContent = `Learn from ${state.accepted === 1 ? "this one" : `these ${state.accepted}`}`;
    start.disabled = state.running || !state.accepted || Boolean(state.missing);
    byId("learn-cancel").hidden = byId("learn-progress").hidden = !state.running;
    byId("learn-state").textContent = state.missing || WORDS[state.step] || (state.accepted ? "" : "Accept the outlines of one image at least.");
    byId("learn-details").hidden = !state.log;
    const log = byId("learn-log"), low = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    log.textContent = state.log || "";
    if (low) log.scrollTop = log.scrollHeight;
    const bar = byId("learn-progress"), shares = [...(state.log || "").matchAll(/(\d+) ?%/g)];
    if (shares.length) bar.value = Number(shares.at(-1)[1]) / 100; else bar.removeAttribute("value");
    if (this.running && state.step === "done") this.finished();
    this.running = state.running;
    if (state.running) this.timer = setTimeout(() => this.look(), 1500);
  }
}
