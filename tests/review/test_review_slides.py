# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A slide under review: tiles of its levels, its layers in its place, outlines in px of level 0."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import shape

from glas_wsol.cohorts.slide_jobs import SlideJob, run_slide
from glas_wsol.review.review_run import ReviewRun
from glas_wsol.slides.localize_slide import SlideModel
from tests.review.conftest import application, browser, put
from tests.slides.slide_images import local_network, tissue_image, write_slide_file

WIDTH, HEIGHT = 1160, 520


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slide")
    image = tissue_image(HEIGHT, WIDTH)
    image[:100, :200] = (20, 160, 60)
    path = write_slide_file(folder / "one.tiff", image, 0.25)
    model = SlideModel(local_network(), ("a", "b"), 0.5, made_with={"models": ["1"]})
    done = run_slide(SlideJob(str(path), "one"), model, folder / "out", ("tiff", "geojson"), core=256)
    assert done.failure is None
    (folder / "out" / "slides.json").write_text(json.dumps([{**done.entry, "folder": "slides/one"}]))
    return folder / "out"


@pytest.fixture
def client(out):
    return browser(application(ReviewRun(out)))


def picture(client, path: str) -> np.ndarray:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_slide_is_served_at_every_level(client):
    details = client.get("/api/cases/0").json()
    assert (details["image"]["width"], details["image"]["height"], details["image"]["levels"]) == (WIDTH, HEIGHT, 3)
    whole, finest = (picture(client, f"/api/cases/0/tiles/image/{z}/0/0").astype(int) for z in (0, 2))
    green = (20, 160, 60)
    assert np.abs(finest[10:90, 10:190] - green).mean() < 4
    assert np.abs(whole[4:22, 4:46] - green).mean() < 4
    assert np.abs(whole[40:60, 60:80] - green).mean() > 40
    assert (whole[HEIGHT // 4 + 16 :] > 250).all()
    assert client.get("/api/cases/0/tiles/image/2/3/0").status_code == 404
    assert client.get("/api/cases/0/thumbnail").headers["content-type"] == "image/png"


def test_outlines_lie_on_the_mask_of_the_slide(client, out):
    details = client.get("/api/cases/0").json()
    mask = next(layer for layer in details["layers"] if layer["key"] == "mask")
    seen = picture(client, f"/api/cases/0/tiles/mask/{mask['levels'] - 1}/0/0")[..., 3] > 0
    across = WIDTH / mask["width"]
    answer = client.get("/api/cases/0/outlines")
    features = answer.json()["collection"]["features"]
    assert features
    part = max((shape(one["geometry"]) for one in features), key=lambda one: one.area)
    inside = part.buffer(-8).representative_point()
    assert seen[int(inside.y / across), int(inside.x / across)]
    outlines = [{"id": one["id"], "geometry": one["geometry"]} for one in features]
    assert put(client, answer.headers["etag"], outlines, "accepted").status_code == 200
    saved = json.loads((out / "corrections" / "one.geojson").read_text())
    assert saved["features"] == features
    assert client.post("/api/learn", json={}).status_code == 422, "nothing is learnt from outlines of slides"


def test_threshold_of_a_slide_needs_an_outline(client):
    answer = client.post("/api/cases/0/contour", json={"threshold": 0.4})
    assert "select an outline" in answer.json()["error"]
    features = client.get("/api/cases/0/outlines").json()["collection"]["features"]
    chosen = max((one["geometry"] for one in features), key=lambda one: shape(one).area)
    found = client.post("/api/cases/0/contour", json={"threshold": 0.5, "within": chosen}).json()["outlines"]
    largest = max((shape(one).buffer(0) for one in found), key=lambda one: one.area)
    both = largest.intersection(shape(chosen).buffer(0)).area
    assert both / shape(chosen).area > 0.9
