// Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
// The outlines of the open case: selecting, moving corners, drawing, brush, split; undo and redo; saving by itself.
import { ask, byId, say } from "./requests.js";
import { flipped } from "./viewer.js";

const ol = globalThis.ol;
const YELLOW = "#ffde00", DARK = "#14141e", WHITE = "#ffffff", BLUE = "#0072b2";
const format = new ol.format.GeoJSON();
const { Style, Stroke, Fill, Circle } = ol.style;

function corners(feature) {
  const parts = feature.getGeometry().getCoordinates(), polygons = feature.getGeometry().getType() === "Polygon" ? [parts] : parts;
  return polygons.flatMap((polygon) => polygon.flatMap((ring) => ring.slice(0, -1)));
}

const line = (colour, width) => new Style({ stroke: new Stroke({ color: colour, width }) });
const PLAIN = [new Style({ stroke: new Stroke({ color: DARK, width: 4 }), fill: new Fill({ color: "rgba(0,0,0,0.01)" }) }), line(YELLOW, 2)];
const CHOSEN = [
  new Style({ stroke: new Stroke({ color: WHITE, width: 5 }), fill: new Fill({ color: "rgba(0,114,178,0.15)" }) }),
  line(BLUE, 2.5),
  new Style({
    geometry: (feature) => new ol.geom.MultiPoint(corners(feature)),
    image: new Circle({ radius: 3.5, fill: new Fill({ color: WHITE }), stroke: new Stroke({ color: BLUE, width: 1.5 }) }),
  }),
];
const CORNER = new Style({ image: new Circle({ radius: 8, stroke: new Stroke({ color: "#d55e00", width: 3 }) }) });

export class Outlines {
  constructor(viewer, changed) {
    this.viewer = viewer;
    this.changed = changed; // told the state after each save, and whether undo and redo are possible
    this.source = new ol.source.Vector({ wrapX: false });
    this.hint = new ol.source.Vector({ wrapX: false });
    this.vectors = [
      new ol.layer.Vector({ source: this.source, style: PLAIN, properties: { outlines: true }, updateWhileInteracting: true }),
      new ol.layer.Vector({ source: this.hint, style: CORNER }),
    ];
    this.select = new ol.interaction.Select({ layers: [this.vectors[0]], style: CHOSEN, hitTolerance: 4, multi: false });
    this.modify = new ol.interaction.Modify({ features: this.select.getFeatures(), pixelTolerance: 10 });
    this.modify.on("modifyend", (event) => this.commit(event.features.getArray().map((one) => one.getId())));
    this.select.on("select", () => this.corner(null));
    this.tools = {};
    for (const one of [this.select, this.modify]) viewer.map.addInteraction(one);
    for (const [mode, type, freehand] of [["draw", "Polygon", false], ["split", "LineString", false], ["add", "LineString", true], ["erase", "LineString", true]]) {
      const brush = freehand;
      const style = (feature, resolution) => (brush
        ? new Style({ stroke: new Stroke({ color: mode === "add" ? "rgba(255,222,0,0.5)" : "rgba(213,94,0,0.5)", width: Math.max(1, (2 * this.radius) / resolution), lineCap: "round" }) })
        : [line(DARK, 4), line(mode === "draw" ? YELLOW : WHITE, 2)]);
      const tool = new ol.interaction.Draw({ type, freehand, style, source: new ol.source.Vector() });
      tool.on("drawend", (event) => this.drawn(mode, flipped(event.feature.getGeometry())));
      tool.setActive(false);
      viewer.map.addInteraction(tool);
      this.tools[mode] = tool;
    }
    viewer.map.on("singleclick", (event) => { if (this.brushing) this.dab(event.coordinate); });
    this.radius = 12;
    this.fresh = 0;
    this.open(null);
    this.setMode("select");
  }

  get brushing() { return this.mode === "add" || this.mode === "erase"; }
  get chosen() { return this.select.getFeatures().getArray(); }

  // ---- a case and its versions
  open(id, content = { collection: { features: [] }, state: "draft" }, version = "") {
    this.id = id;
    Object.assign(this, { version, state: content.state, undone: [], done: [], last: new Map(), dirty: false, failed: false, saving: false });
    clearTimeout(this.timer);
    this.select.getFeatures().clear();
    this.source.clear();
    this.corner(null);
    const features = content.collection.features.map((one, place) => this.feature(one.id ?? `place-${place}`, one.geometry));
    for (const one of features) this.last.set(one.getId(), this.geometry(one));
    this.source.addFeatures(features);
    this.tell();
  }

  feature(id, geometry) {
    const made = new ol.Feature(flipped(format.readGeometry(geometry)));
    made.setId(String(id));
    return made;
  }

  geometry(feature) { return format.writeGeometryObject(flipped(feature.getGeometry()), { decimals: 2 }); }

  now(id) {
    const found = this.source.getFeatureById(id);
    return found ? this.geometry(found) : null;
  }

  commit(ids, save = true) {
    const steps = [];
    for (const id of new Set(ids)) {
      const before = this.last.get(id) ?? null, after = this.now(id);
      if (JSON.stringify(before) !== JSON.stringify(after)) steps.push([id, before, after]);
    }
    if (!steps.length) return;
    for (const [id, , after] of steps) if (after) this.last.set(id, after); else this.last.delete(id);
    this.done.push(steps);
    this.undone = [];
    if (save) this.soon("in work");
    this.tell();
  }

  step(from, to, which) {
    const steps = this[from].pop();
    if (!steps) return;
    this.corner(null);
    for (const one of steps) this.put(one[0], one[which]);
    this[to].push(steps);
    this.soon("in work");
    this.tell();
  }
  undo() { this.step("done", "undone", 1); }
  redo() { this.step("undone", "done", 2); }

  put(id, geometry) {
    const found = this.source.getFeatureById(id);
    if (!geometry) {
      if (found) { this.select.getFeatures().remove(found); this.source.removeFeature(found); }
      this.last.delete(id);
    } else {
      if (found) found.setGeometry(flipped(format.readGeometry(geometry)));
      else this.source.addFeature(this.feature(id, geometry));
      this.last.set(id, geometry);
    }
  }

  tell() { this.changed(this); }

  // ---- saving
  soon(state) {
    this.state = state;
    this.dirty = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), this.last.size > 5000 ? 3000 : 500);
  }

  async save(state = this.state) {
    clearTimeout(this.timer);
    if (this.id === null || state === "draft") return true;
    if (this.saving) { this.again = true; await this.saving; if (!this.dirty) return true; }
    this.saving = this.send(state);
    try { return await this.saving; } finally { this.saving = false; }
  }

  async send(state) {
    const { id } = this;
    const outlines = [...this.last].map(([one, geometry]) => ({ id: one, geometry }));
    this.dirty = this.failed = false;
    try {
      const answer = await ask(`/api/cases/${id}/outlines`, { method: "PUT", body: { outlines, state }, headers: { "If-Match": this.version } });
      if (this.id !== id) return true;
      this.version = answer.version;
      if (!this.dirty) this.state = answer.content.state;
      this.tell();
      return true;
    } catch (error) {
      if (this.id !== id) { say(`${error.message} (the case before)`); return false; }
      this.dirty = this.failed = true;
      if (error.status === 409) {
        say("Another window has saved this case since.", { "Load that one": () => this.reload(id), "Keep mine": () => this.keep(id) });
      } else say(`Not saved: ${error.message}`, { "Try again": () => this.save(state) });
      this.tell();
      return false;
    }
  }

  async reload(id) {
    const { content, version } = await ask(`/api/cases/${id}/outlines`);
    if (this.id === id) this.open(id, content, version);
  }

  async keep(id) {
    const { version } = await ask(`/api/cases/${id}/outlines`);
    if (this.id === id) { this.version = version; await this.save("in work"); }
  }

  async decide(state) {
    if (this.id === null) return false;
    if (this.saving) await this.saving;
    return this.save(state);
  }

  // ---- tools
  setMode(mode) {
    this.mode = mode;
    const selecting = mode === "select";
    this.select.setActive(selecting);
    this.modify.setActive(selecting);
    for (const [name, tool] of Object.entries(this.tools)) tool.setActive(name === mode);
    byId("cross").hidden = selecting;
    for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  }

  cancel() {
    if (this.mode !== "select") { this.tools[this.mode].abortDrawing(); this.setMode("select"); }
    else if (this.at !== null) this.corner(null);
    else this.select.getFeatures().clear();
  }

  async edit(request, targets, commit = true) {
    const { id } = this, ids = targets.map((one) => one.getId());
    try {
      const { content } = await ask(`/api/cases/${id}/edit`, { method: "POST", body: { ...request, outlines: ids.map((one) => this.now(one)) } });
      if (this.id === id) return this.replace(ids, content.outlines, commit).concat(ids);
    } catch (error) { say(error.message); }
    return [];
  }

  // each outline by itself, as one step
  async editEach(request, targets) {
    const { id } = this, ids = [];
    for (const one of targets) ids.push(...await this.edit(request, [one], false));
    if (this.id === id) { this.corner(null); this.commit(ids); }
  }

  // outlines in the place of others: the first keeps its identity
  replace(ids, geometries, commit = true) {
    const made = geometries.map((geometry, place) => {
      const id = ids[place] ?? this.newId(), found = this.source.getFeatureById(id);
      if (found) found.setGeometry(flipped(format.readGeometry(geometry)));
      else this.source.addFeature(this.feature(id, geometry));
      return id;
    });
    for (const id of ids.slice(geometries.length)) {
      const found = this.source.getFeatureById(id);
      if (found) { this.select.getFeatures().remove(found); this.source.removeFeature(found); }
    }
    if (commit) { this.corner(null); this.commit([...ids, ...made]); }
    return made;
  }

  newId() { this.fresh += 1; return `${Date.now().toString(36)}-${this.fresh}-${Math.random().toString(36).slice(2)}`; }

  async drawn(mode, geometry) {
    const shape = format.writeGeometryObject(geometry, { decimals: 2 });
    if (mode === "draw") { // clipped to the image, and uncrossed
      const { id } = this;
      try {
        const { content } = await ask(`/api/cases/${id}/edit`, { method: "POST", body: { op: "mend", outlines: [shape] } });
        if (this.id === id) this.replace([], content.outlines);
      } catch (error) { say(error.message); }
      this.setMode("select");
      return;
    }
    const drawn = flipped(geometry), extent = ol.extent.buffer(drawn.getExtent(), mode === "split" ? 0 : this.radius);
    const touched = this.source.getFeatures().filter((one) => one.getGeometry().intersectsExtent(extent));
    const targets = this.chosen.length ? [...this.chosen] : touched;
    if (mode === "add") {
      const first = drawn.getFirstCoordinate?.() ?? drawn.getCoordinates();
      const under = this.chosen.length ? targets : touched.filter((one) => one.getGeometry().intersectsCoordinate(first));
      await this.edit({ op: "add", line: shape, radius: this.radius }, under.slice(0, 1));
    } else if (mode === "erase") {
      await this.editEach({ op: "erase", line: shape, radius: this.radius }, targets);
    } else {
      const crossed = targets.filter((one) => this.crosses(one, drawn));
      if (!crossed.length) say("The line does not cross an outline: draw it from outside to outside.");
      await this.editEach({ op: "split", line: shape }, crossed);
      this.setMode("select");
    }
  }

  crosses(feature, drawn) {
    const points = drawn.getCoordinates(), shape = feature.getGeometry();
    return points.slice(1).some((end, place) => {
      const start = points[place];
      return Array.from({ length: 65 }, (_, n) => start.map((value, axis) => value + ((end[axis] - value) * n) / 64))
        .some((point) => shape.intersectsCoordinate(point));
    });
  }

  dab(coordinate) { return this.drawn(this.mode, flipped(new ol.geom.Point(coordinate))); }

  onChosen(op) {
    if (!this.chosen.length) { say("Select an outline first."); return; }
    if (op === "join" && this.chosen.length < 2) { say("Select two outlines or more: Shift and click, or X and N."); return; }
    const targets = [...this.chosen];
    if (op === "join") this.edit({ op }, targets); else this.editEach({ op }, targets);
  }

  remove() {
    if (this.at !== null) { this.cut(); return; }
    const ids = this.chosen.map((one) => one.getId());
    this.replace(ids, []);
  }

  // ---- the threshold: outlines in the place of the selected one, or of all
  async threshold(value, last) {
    const { id } = this;
    if (!this.sliding) {
      const targets = this.chosen.length ? [this.chosen[0]] : this.source.getFeatures();
      const within = this.chosen.length ? this.geometry(this.chosen[0]) : null;
      this.sliding = { within, ids: targets.map((one) => one.getId()), all: new Set(targets.map((one) => one.getId())), number: 0 };
    }
    const sliding = this.sliding;
    sliding.number += 1;
    const { number } = sliding;
    try {
      const { content } = await ask(`/api/cases/${id}/contour`, { method: "POST", body: { threshold: value, within: sliding.within } });
      if (this.id !== id || number !== sliding.number) return;
      sliding.ids = this.replace(sliding.ids, content.outlines, false);
      for (const one of sliding.ids) sliding.all.add(one);
      if (last) { this.sliding = null; this.commit([...sliding.all]); }
    } catch (error) { this.sliding = null; say(error.message); }
  }

  // ---- by keyboard
  next(step, more = false) {
    const [left, bottom, right, top] = this.viewer.extent, all = this.source.getFeatures();
    if (!all.length) return;
    const key = (one) => { const e = one.getGeometry().getExtent(); return -e[3] * (right - left + 1) + e[0]; };
    all.sort((a, b) => key(a) - key(b) || (bottom - top));
    const chosen = this.select.getFeatures(), here = all.indexOf(chosen.item(chosen.getLength() - 1));
    const one = all[(here + step + all.length) % all.length];
    if (!more) chosen.clear();
    if (!chosen.getArray().includes(one)) chosen.push(one);
    this.corner(null);
    this.into(ol.extent.getCenter(one.getGeometry().getExtent()));
  }

  into(point) {
    const view = this.viewer.map.getView();
    if (!ol.extent.containsCoordinate(view.calculateExtent(), point)) view.animate({ center: point, duration: 150 });
  }

  corner(at) {
    this.at = at;
    this.hint.clear();
    if (at !== null && this.chosen[0]) {
      const point = corners(this.chosen[0])[at];
      this.hint.addFeature(new ol.Feature(new ol.geom.Point(point)));
      this.into(point);
    }
  }

  stepCorner(step) {
    if (!this.chosen[0]) { say("Select an outline first (N)."); return; }
    const count = corners(this.chosen[0]).length;
    this.corner(this.at === null ? 0 : (this.at + step + count) % count);
  }

  // the rings of the selected outline changed at the active corner
  atCorner(change) {
    const geometry = this.chosen[0].getGeometry(), whole = geometry.getCoordinates();
    const rings = geometry.getType() === "Polygon" ? whole : whole.flat();
    let place = this.at;
    for (const ring of rings) {
      if (place < ring.length - 1) {
        ring.pop();
        change(ring, place);
        ring.push([...ring[0]]);
        break;
      }
      place -= ring.length - 1;
    }
    geometry.setCoordinates(whole);
    this.commit([this.chosen[0].getId()]);
  }

  nudge(x, y) {
    this.atCorner((ring, place) => { ring[place] = [ring[place][0] + x, ring[place][1] - y]; });
    this.corner(this.at);
  }

  insert() {
    if (this.at === null) return;
    this.atCorner((ring, place) => {
      const after = ring[(place + 1) % ring.length];
      ring.splice(place + 1, 0, ring[place].map((value, axis) => (value + after[axis]) / 2));
    });
    this.corner(this.at + 1);
  }

  cut() {
    let few = false;
    this.atCorner((ring, place) => { if (ring.length > 3) ring.splice(place, 1); else few = true; });
    if (few) say("Three corners are the fewest: leave the corner (Escape) to delete the outline.");
    this.corner(Math.min(this.at, corners(this.chosen[0]).length - 1));
  }

  // a corner of what is drawn, or a dab of the brush, at the cross in the middle of the view
  place() {
    const point = this.viewer.map.getView().getCenter();
    if (this.brushing) this.dab(point);
    else if (this.mode !== "select") this.tools[this.mode].appendCoordinates([[...point]]);
  }

  finish() { if (this.mode === "draw" || this.mode === "split") this.tools[this.mode].finishDrawing(); }
}
