# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the page is given: cases, tiles, outlines that come back as they were, edits and contours."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import shape

from glas_wsol.corrections.corrected_data import corrected_datalist
from glas_wsol.data import table_datalist
from glas_wsol.errors import OutputError
from glas_wsol.report.run_folder import read_folder
from glas_wsol.review.outline_edits import edited
from glas_wsol.review.review_run import ReviewRun
from glas_wsol.transforms.reading import read_mask
from tests.review.conftest import HEIGHT, NAMES, WIDTH, application, browser, put, results, soft_map, square


def picture(client, path: str) -> np.ndarray:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def area(geometries: list) -> shapely.Geometry:
    return shapely.union_all([shape(one) for one in geometries])


def test_cases_have_their_scores_and_states(client):
    rows = client.get("/api/cases").json()
    assert [row["name"] for row in rows] == list(NAMES)
    assert rows[0]["said"] == "malignant"
    assert rows[0]["probability"] == 0.75
    assert [row["evidence"] for row in rows] == [True, True, False]
    assert {row["state"] for row in rows} == {"draft"}
    details = client.get("/api/cases/0").json()
    assert (details["image"]["width"], details["image"]["height"], details["mpp"]) == (WIDTH, HEIGHT, [0.5, 0.5])
    assert [layer["key"] for layer in details["layers"]] == ["mask", "map", "uncertainty"]
    assert details["missing"] == []


def test_missing_layer_is_said_with_the_format(tmp_path):
    client = browser(application(ReviewRun(results(tmp_path, ("png",)))))
    details = client.get("/api/cases/0").json()
    assert [layer["key"] for layer in details["layers"]] == ["mask"]
    assert any("--formats png png_map" in line for line in details["missing"])
    answer = client.post("/api/cases/0/contour", json={"threshold": 0.4})
    assert answer.status_code == 422
    assert "--formats png png_map" in answer.json()["error"]


def test_list_of_ten_thousand_answers_fast(run):
    run.cases = tuple(replace(run.cases[0], name=f"case {n}") for n in range(10_000))
    client = browser(application(run))
    start = time.process_time()
    rows = client.get("/api/cases").json()
    assert len(rows) == 10_000
    assert time.process_time() - start < 2


def test_tiles_are_the_image_and_its_layers(client, run):
    tile = picture(client, "/api/cases/0/tiles/image/0/0/0")
    image = np.asarray(Image.open(run.cases[0].image))
    assert tile.shape == (512, 512, 3)
    assert np.abs(tile[:HEIGHT, :WIDTH].astype(int) - image).mean() < 3
    assert (tile[HEIGHT + 16 :] > 250).all()
    mask = picture(client, "/api/cases/0/tiles/mask/0/0/0")
    assert np.array_equal(mask[:HEIGHT, :WIDTH, 3] > 0, soft_map() >= 0.5)
    assert client.get("/api/cases/0/tiles/image/1/0/0").status_code == 404
    assert picture(client, "/api/cases/0/thumbnail").shape == (HEIGHT * 96 // WIDTH + 1, 96, 3)


def test_draft_is_the_mask_of_the_model(client, tmp_path):
    answer = client.get("/api/cases/0/outlines")
    collection = answer.json()["collection"]
    (tmp_path / "draft.geojson").write_text(json.dumps(collection))
    filled = read_mask(tmp_path / "draft.geojson", size=(HEIGHT, WIDTH)) > 0
    mask = soft_map() >= 0.5
    assert (filled & mask).sum() / (filled | mask).sum() > 0.95
    assert len(collection["features"]) == 2
    assert client.get("/api/cases/2/outlines").json()["collection"]["features"] == []


def test_saved_outlines_are_what_learn_and_qupath_read(client, run, tmp_path):
    answer = client.get("/api/cases/0/outlines")
    draft = answer.json()["collection"]["features"]
    moved = json.loads(json.dumps(draft[0]["geometry"]))
    moved["coordinates"][0][1][1] += 3.25
    outlines = [{"id": draft[0]["id"], "geometry": moved}, {"id": draft[1]["id"], "geometry": draft[1]["geometry"]}]
    saved = put(client, answer.headers["etag"], [*outlines, {"id": "new", "geometry": square(2, 3.5, 8)}], "accepted")
    assert saved.json() == {"state": "accepted"}
    path = run.root / "corrections" / "plain.geojson"
    collection = json.loads(path.read_text())
    assert collection["metadata"]["Corrected by"] == "A. Person"
    assert collection["metadata"]["State"] == "accepted"
    assert "threshold 0.5" in collection["metadata"]["Draft"]
    assert collection["features"][1] == draft[1], "what nobody touched is as it was"
    touched, new = collection["features"][0], collection["features"][2]
    assert touched["properties"]["metadata"]["Corrected by"] == "A. Person"
    assert touched["properties"]["objectType"] == "annotation"
    assert touched["properties"]["classification"] == draft[0]["properties"]["classification"]
    assert shape(new["geometry"]).equals(shapely.box(2, 3.5, 10, 11.5))
    again = client.get("/api/cases/0/outlines")
    assert again.json() == {"state": "accepted", "collection": collection}
    assert client.get("/api/cases").json()[0]["state"] == "accepted"
    rows = [f"{run.cases[n].image},{'ab'[n > 0]},train" for n in range(3)]
    (tmp_path / "datalist.csv").write_text("\n".join(["image,label,split", *rows]))
    found = corrected_datalist(table_datalist(tmp_path), run.root / "corrections")
    (item,) = [item for item in found.splits["train"] if item.mask]
    mask = read_mask(item.mask, size=(HEIGHT, WIDTH)) > 0
    assert mask[4:11, 2:10].all()
    assert not mask[12:15, 2:4].any()


def test_second_window_does_not_overwrite_the_first(client, run):
    version = client.get("/api/cases/0/outlines").headers["etag"]
    first = put(client, version, [{"id": "a", "geometry": square(1, 1, 5)}])
    assert first.status_code == 200
    assert put(client, version, []).status_code == 409
    assert put(client, "", []).status_code == 409
    assert len(client.get("/api/cases/0/outlines").json()["collection"]["features"]) == 1
    second = put(client, first.headers["etag"], [], "rejected")
    assert second.status_code == 200
    assert [path.parent.name for path in run.root.rglob("plain.geojson")] == ["rejected"]


def test_crossed_outline_is_kept_in_work_and_not_accepted(client):
    version = client.get("/api/cases/0/outlines").headers["etag"]
    ring = [[10, 10], [40, 40], [40, 10], [10, 40], [10, 10]]
    crossed = [{"id": "a", "geometry": {"type": "Polygon", "coordinates": [ring]}}]
    answer = put(client, version, crossed, "accepted")
    assert answer.status_code == 422
    assert "feature 1 has a ring that crosses itself" in answer.json()["error"]
    assert put(client, version, crossed).status_code == 200
    far = [{"id": "a", "geometry": square(500, 500, 5)}]
    now = client.get("/api/cases/0/outlines").headers["etag"]
    assert "lies outside the image" in put(client, now, far, "accepted").json()["error"]


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 1e400], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[["a", 0], [9, 0], [9, 9], [0, 0]]]},
        {"type": "Polygon", "coordinates": {"<script>": 1}},
        {"type": "MultiPolygon", "coordinates": []},
    ],
)
def test_outline_that_is_none_is_refused(client, run, geometry):
    version = client.get("/api/cases/0/outlines").headers["etag"]
    text = json.dumps({"outlines": [{"id": "a", "geometry": geometry}], "state": "in work"})
    answer = client.put("/api/cases/0/outlines", content=text, headers={"If-Match": version})
    assert answer.status_code == 422
    assert not (run.root / "corrections").exists()


def test_damaged_correction_is_said_and_kept(client, run):
    path = run.root / "corrections" / "plain.geojson"
    path.parent.mkdir()
    path.write_text('{"features": 3}')
    assert "move it away" in client.get("/api/cases/0/outlines").json()["error"]
    assert put(client, "x", []).status_code == 422
    assert path.read_text() == '{"features": 3}'


def test_contour_is_the_mask_at_any_threshold(client):
    lower = client.post("/api/cases/0/contour", json={"threshold": 0.4}).json()["outlines"]
    higher = client.post("/api/cases/0/contour", json={"threshold": 0.7}).json()["outlines"]
    for found, threshold in ((lower, 0.4), (higher, 0.7)):
        truth = (soft_map() >= threshold).sum()
        assert area(found).area == pytest.approx(truth, rel=0.05)
    small = square(80, 35, 10)
    (only,) = client.post("/api/cases/0/contour", json={"threshold": 0.7, "within": small}).json()["outlines"]
    assert shape(only).centroid.distance(shapely.Point(85, 40)) < 1
    for wrong in (0, 1.5, "a", None, True):
        assert client.post("/api/cases/0/contour", json={"threshold": wrong}).status_code == 422


def edit(op: str, *outlines: dict, **more) -> list[dict]:
    return edited({"op": op, "outlines": list(outlines), **more}, WIDTH, HEIGHT)


def test_edits_give_the_areas_that_they_should():
    ring = {"type": "Polygon", "coordinates": [*square(10, 10, 30)["coordinates"], *square(20, 20, 10)["coordinates"]]}
    line = {"type": "LineString", "coordinates": [[0, 25], [60, 25]]}
    halves = edit("split", ring, line=line)
    assert [shape(one).area for one in halves] == [400, 400]
    assert all(shape(one).is_valid for one in halves)
    (joined,) = edit("join", *halves)
    assert area([joined]).symmetric_difference(shape(ring)).area < 0.1
    (filled,) = edit("fill", ring)
    assert shape(filled).equals(shapely.box(10, 10, 40, 40))
    dot = {"type": "Point", "coordinates": [40, 40]}
    (more,), (less,) = (
        edit("add", square(10, 10, 30), line=dot, radius=8),
        edit("erase", square(10, 10, 30), line=dot, radius=8),
    )
    disc = np.pi * 64
    assert shape(more).area == pytest.approx(900 + 0.75 * disc, rel=0.01)
    assert shape(less).area == pytest.approx(900 - 0.25 * disc, rel=0.01)
    assert edit("erase", square(10, 10, 3), line=dot, radius=99) == []
    turned = {"type": "Polygon", "coordinates": [square(10, 10, 30)["coordinates"][0][::-1]]}
    assert edit("erase", turned, line={"type": "Point", "coordinates": [80, 50]}, radius=8) == [turned]
    bow = {"type": "Polygon", "coordinates": [[[10, 10], [40, 40], [40, 10], [10, 40], [10, 10]]]}
    (mended,) = edit("mend", bow)
    assert shape(mended).is_valid
    (clipped,) = edit("mend", square(90, 50, 30))
    assert shape(clipped).equals(shapely.box(90, 50, WIDTH, HEIGHT))


def test_line_beside_the_outline_splits_nothing(client):
    line = {"type": "LineString", "coordinates": [[0, 55], [60, 55]]}
    body = {"op": "split", "outlines": [square(10, 10, 30)], "line": line}
    assert "does not cross" in client.post("/api/cases/0/edit", json=body).json()["error"]
    assert client.post("/api/cases/0/edit", json={"op": "explode", "outlines": []}).status_code == 422


def test_truth_of_an_evaluation_is_a_layer(run):
    path = run.root.parent / "truth.png"
    Image.fromarray(((soft_map() > 0.3) * 7).astype(np.uint8)).save(path)
    run.cases = (replace(run.cases[0], outlines=path), *run.cases[1:])
    tile = picture(browser(application(run)), "/api/cases/0/tiles/truth/0/0/0")
    assert np.array_equal(tile[:HEIGHT, :WIDTH, 3] > 0, soft_map() > 0.3)


def test_folder_without_results_is_refused(tmp_path):
    with pytest.raises(OutputError, match="no results here"):
        ReviewRun(tmp_path)
    out = results(tmp_path)
    assert read_folder(out).place == out
