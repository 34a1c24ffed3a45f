// Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
// The image and its layers, in pixels of the image; OpenLayers counts upwards, so that y is turned round here.
import { byId, element } from "./requests.js";

const ol = globalThis.ol;
const TILE = 512;
const SHOWN = { map: 0, mask: 0, uncertainty: 0, truth: 0, new: 0, changed: 0 };

export function flipped(geometry) {
  const turned = geometry.clone();
  turned.applyTransform((from, to, stride) => {
    for (let at = 1; at < from.length; at += stride) { to[at - 1] = from[at - 1]; to[at] = 0 - from[at]; }
    return to;
  });
  return turned;
}

export class Viewer {
  constructor(moved) {
    this.map = new ol.Map({ target: "map", controls: [], layers: [] });
    this.layers = new Map();
    this.details = null;
    this.map.on("moveend", () => { this.bar(); if (this.details) moved(this.place()); });
    this.map.on("pointermove", (event) => this.position(event.coordinate));
  }

  show(details, vectors, place) {
    this.details = details;
    const { width, height } = details.image;
    this.extent = [0, -height, width, 0];
    const projection = new ol.proj.Projection({ code: "image", units: "pixels", extent: this.extent });
    const more = Math.max(width, height) / 2;
    this.map.setView(new ol.View({
      projection, center: [width / 2, -height / 2], resolution: 1, minResolution: 1 / 32,
      maxResolution: Math.max(1, Math.max(width, height) / 200), constrainOnlyCenter: true, smoothExtentConstraint: false,
      extent: [-more, -height - more, width + more, more], enableRotation: false,
    }));
    this.layers.clear();
    const image = this.layer(details.image, projection);
    const others = details.layers.map((one) => this.layer(one, projection));
    this.map.setLayers([image, ...others, ...vectors]);
    this.panel(details);
    if (place) {
      this.map.getView().setCenter([place.x, -place.y]);
      this.map.getView().setResolution(place.z);
    } else this.fit();
  }

  layer(one, projection) {
    const { id, image } = this.details, stretch = image.width / one.width;
    const resolutions = Array.from({ length: one.levels }, (_, z) => stretch * 2 ** (one.levels - 1 - z));
    const tileGrid = new ol.tilegrid.TileGrid({ extent: this.extent, origin: [0, 0], resolutions, tileSize: TILE });
    const source = new ol.source.TileImage({
      projection, tileGrid, wrapX: false, transition: 0, interpolate: one.key !== "changed",
      tileUrlFunction: ([z, x, y]) => `/api/cases/${id}/tiles/${one.key}/${z}/${x}/${y}`,
    });
    const seen = one.key === "image" || SHOWN[one.key] === 1;
    const opacity = one.key === "image" ? 1 : this.opacity?.[one.key] ?? 0.5;
    const made = new ol.layer.Tile({ source, extent: this.extent, visible: seen, opacity });
    this.layers.set(one.key, made);
    return made;
  }

  panel(details) {
    const box = byId("layers");
    box.replaceChildren();
    const rows = [{ key: "outlines", title: "Outlines" }, ...details.layers];
    rows.forEach((one, place) => {
      const row = element("div", "", { class: "layer" });
      const tick = element("input", "", { type: "checkbox", id: `layer-${one.key}` });
      tick.checked = one.key === "outlines" ? this.outlinesSeen !== false : SHOWN[one.key] === 1;
      tick.addEventListener("change", () => this.see(one.key, tick.checked));
      row.append(tick, element("label", `${one.title} (${place + 1})`, { for: `layer-${one.key}` }));
      if (one.key !== "outlines") {
        const slider = element("input", "", { type: "range", min: 0.1, max: 1, step: 0.05, "aria-label": `Opacity of ${one.title}` });
        slider.value = this.layers.get(one.key).getOpacity();
        slider.addEventListener("input", () => {
          this.opacity = { ...this.opacity, [one.key]: Number(slider.value) };
          this.layers.get(one.key).setOpacity(Number(slider.value));
        });
        row.append(slider);
      }
      box.append(row);
    });
    byId("missing").replaceChildren(...details.missing.map((text) => element("li", text)));
  }

  see(key, seen) {
    if (key === "outlines") {
      this.outlinesSeen = seen;
      this.map.getLayers().forEach((one) => { if (one.get("outlines")) one.setVisible(seen); });
    } else {
      SHOWN[key] = seen ? 1 : 0;
      this.layers.get(key)?.setVisible(seen);
    }
    const tick = byId(`layer-${key}`);
    if (tick) tick.checked = seen;
  }

  toggle(place) {
    const key = ["outlines", ...(this.details?.layers || []).map((one) => one.key)][place];
    if (key) this.see(key, !byId(`layer-${key}`).checked);
  }

  // the model's mask and the new model's by turns
  swap() {
    if (!this.layers.has("new")) return false;
    const next = SHOWN.new !== 1;
    this.see("new", next);
    this.see("mask", !next);
    return true;
  }

  fit() { this.map.getView().fit(this.extent, { padding: [24, 24, 48, 24] }); }
  zoom(step) { const view = this.map.getView(); view.animate({ zoom: view.getZoom() + step, duration: 120 }); }
  place() {
    const view = this.map.getView(), [x, y] = view.getCenter();
    return { x: Math.round(x * 10) / 10, y: Math.round(-y * 10) / 10, z: Number(view.getResolution().toPrecision(4)) };
  }

  position([x, y]) {
    if (!this.details) return;
    const { mpp, image } = this.details, inside = x >= 0 && -y >= 0 && x < image.width && -y < image.height;
    const px = `x ${Math.floor(x)}, y ${Math.floor(-y)} px`;
    const um = mpp ? ` · ${(x * mpp[0]).toFixed(1)}, ${(-y * mpp[1]).toFixed(1)} µm` : "";
    byId("position").textContent = inside ? px + um : "";
  }

  // a round length of at most 140 px on the screen: [px, words]
  scale(most = 140) {
    const resolution = this.map.getView().getResolution(), { mpp } = this.details;
    const unit = mpp ? mpp[0] * resolution : resolution, largest = most * unit, power = 10 ** Math.floor(Math.log10(largest));
    const round = [5, 2, 1].map((digit) => digit * power).find((length) => length <= largest) || power;
    const words = mpp ? (round >= 1000 ? `${round / 1000} mm` : `${Number(round.toPrecision(1))} µm`) : `${Number(round.toPrecision(1))} px`;
    const power10 = mpp ? ` · ${Number((10 / unit).toPrecision(2))}×` : " · pixel size not known";
    return [round / unit, words, power10];
  }

  bar() {
    if (!this.details) return;
    const [width, words, magnification] = this.scale();
    byId("scale").firstElementChild.style.width = `${width}px`;
    byId("scale").lastElementChild.textContent = words + magnification;
  }

  // what is seen, with scale bar and the case's name, as a PNG file
  picture() {
    const [width, height] = this.map.getSize(), ratio = globalThis.devicePixelRatio, foot = 44;
    const sheet = element("canvas");
    sheet.width = width * ratio;
    sheet.height = (height + foot) * ratio;
    const ink = sheet.getContext("2d");
    ink.fillStyle = "#fff";
    ink.fillRect(0, 0, sheet.width, sheet.height);
    for (const canvas of this.map.getViewport().querySelectorAll(".ol-layer canvas, canvas.ol-layer")) {
      if (!canvas.width) continue;
      ink.globalAlpha = Number(canvas.parentNode.style.opacity || canvas.style.opacity || 1);
      const matrix = canvas.style.transform.match(/^matrix\(([^)]*)\)$/)?.[1].split(",").map(Number);
      const [a, b, c, d, e, f] = matrix || [parseFloat(canvas.style.width) / canvas.width, 0, 0, parseFloat(canvas.style.height) / canvas.height, 0, 0];
      ink.setTransform(a * ratio, b, c, d * ratio, e * ratio, f * ratio);
      ink.drawImage(canvas, 0, 0);
    }
    ink.globalAlpha = 1;
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [long, words, magnification] = this.scale();
    ink.fillStyle = "#fff";
    ink.fillRect(0, height, width, foot);
    ink.fillStyle = "#14141e";
    ink.fillRect(12, height + 10, long, 5);
    ink.font = "13px sans-serif";
    ink.fillText(words + magnification, 12, height + 32);
    ink.textAlign = "right";
    ink.fillText(`${this.details.name} · ${this.details.said} · research only, not for diagnosis`, width - 12, height + 32);
    return new Promise((resolve) => { sheet.toBlob(resolve, "image/png"); });
  }
}
