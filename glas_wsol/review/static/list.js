// Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
// The list of cases: sorted, filtered, searched; only the rows in sight are drawn.
import { byId, element } from "./requests.js";

const HEIGHT = 64;
const percent = (value) => (value === null ? "" : `${Math.round(100 * value)} %`);

export class CaseList {
  constructor(open) {
    this.open = open;
    this.cases = [];
    this.shown = [];
    this.at = 0;
    this.opened = null;
    this.box = byId("rows");
    this.tall = byId("tall");
    for (const id of ["search", "filter", "sort"]) byId(id).addEventListener("input", () => this.arrange());
    this.box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) { this.at = Number(row.dataset.place); this.draw(); this.open(this.shown[this.at].id); }
    });
  }

  set(cases) { this.cases = cases; this.arrange(); }

  arrange() {
    const text = byId("search").value.trim().toLowerCase(), filter = byId("filter").value, sort = byId("sort").value;
    const here = this.shown[this.at]?.id;
    const tests = {
      all: () => true, unlike: (one) => one.unlike, none: (one) => !one.evidence, wrong: (one) => one.wrong, new: (one) => one.new,
    };
    const test = tests[filter] || ((one) => one.state === filter);
    this.shown = this.cases.filter((one) => test(one) && (!text || one.name.toLowerCase().includes(text)));
    const last = (value) => (value === null ? Infinity : value);
    const orders = {
      name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
      uncertainty: (a, b) => last(-b.uncertainty) < last(-a.uncertainty) ? 1 : -1,
      probability: (a, b) => last(a.probability) - last(b.probability),
      familiarity: (a, b) => last(a.familiarity) - last(b.familiarity),
      decidable: (a, b) => (b.decidable ?? 0) - (a.decidable ?? 0),
    };
    orders.uncertainty = (a, b) => (b.uncertainty ?? -1) - (a.uncertainty ?? -1);
    if (orders[sort]) this.shown.sort((a, b) => orders[sort](a, b) || a.id - b.id);
    this.at = Math.max(0, this.shown.findIndex((one) => one.id === here));
    byId("count").textContent = `${this.shown.length} of ${this.cases.length} cases`;
    this.tall.style.height = `${this.shown.length * HEIGHT}px`;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - 4);
    const end = Math.min(this.shown.length, first + Math.ceil(this.box.clientHeight / HEIGHT) + 8);
    const rows = [];
    for (let place = first; place < end; place += 1) rows.push(this.row(place));
    this.tall.replaceChildren(...rows);
    const active = this.at >= first && this.at < end ? `row-${this.at}` : "";
    if (active) this.box.setAttribute("aria-activedescendant", active);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const one = this.shown[place];
    const row = element("div", "", {
      id: `row-${place}`, class: place === this.at ? "row at" : "row", role: "option", "data-place": place,
      "aria-selected": one.id === this.opened, "aria-setsize": this.shown.length, "aria-posinset": place + 1,
    });
    row.style.top = `${place * HEIGHT}px`;
    row.append(element("img", "", { src: `/api/cases/${one.id}/thumbnail`, alt: "", loading: "lazy" }));
    const text = element("div");
    text.append(element("b", one.name));
    const said = one.evidence ? `${one.said} ${percent(one.probability)}` : "no evidence";
    text.append(element("span", `${said}${one.uncertainty === null ? "" : ` · uncertain ${percent(one.uncertainty)}`}`));
    const badges = element("span");
    const kind = { accepted: "badge good", rejected: "badge warn" }[one.state] || "badge";
    badges.append(element("span", one.state, { class: kind }));
    if (one.unlike) badges.append(" ", element("span", "unlike training", { class: "badge warn" }));
    if (one.slide) badges.append(" ", element("span", "slide", { class: "badge" }));
    if (one.new) badges.append(" ", element("span", "new mask", { class: "badge" }));
    if (one.wrong) badges.append(" ", element("span", "other class", { class: "badge warn" }));
    text.append(badges);
    row.append(text);
    return row;
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" && this.shown[this.at]) this.open(this.shown[this.at].id);
    else if (event.key in steps) this.move(steps[event.key]);
    else return;
    event.preventDefault();
  }

  move(step) {
    this.at = Math.min(this.shown.length - 1, Math.max(0, this.at + step));
    const top = this.at * HEIGHT;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + HEIGHT > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + HEIGHT - this.box.clientHeight;
    this.draw();
  }

  neighbour(step) { this.move(step); if (this.shown[this.at]) this.open(this.shown[this.at].id); }

  mark(id, state) {
    this.opened = id;
    const one = this.cases[id];
    if (one && state) one.state = state;
    const place = this.shown.findIndex((other) => other.id === id);
    if (place >= 0) { this.at = place; this.move(0); } else this.draw();
  }
}
