# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The sheet shows the best, the median and the worst tile, chosen by figures alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from glas_wsol.data import load_datalist
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.visualize.comparison_figure import Line, draw_figure
from glas_wsol.visualize.overview import draw_overview
from tests.writers.conftest import write_evaluation

FOLD = "stratified-0"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_tissue_phantom(
        tmp_path_factory.mktemp("sheet") / "phantom", train=10, test=5, size=(64, 97), scale=0.15
    )


@pytest.fixture(scope="module")
def items(phantom):
    return {item["name"]: item for item in load_datalist(phantom, fold=FOLD).select("test", masks=True)}


@pytest.fixture
def drawn(monkeypatch) -> list[Line]:
    """The lines of the sheet."""
    seen: list[Line] = []

    def keep(path, lines, *more):
        seen.extend(lines)
        draw_figure(path, lines, *more)

    monkeypatch.setattr("glas_wsol.visualize.overview.draw_figure", keep)
    return seen


def quarter(item: dict) -> np.ndarray:
    mask = np.zeros(read_rgb(item["image"]).shape[:2], bool)
    mask[:30, 10:60] = True
    return mask


def draw(run, items, scores, **facts):
    write_evaluation(run, items, {name: quarter(items[name]) for name in scores}, scores, fold=FOLD, **facts)
    return draw_overview(run, json.loads((run / "evaluation.json").read_text()))


def test_best_median_and_worst_by_the_mean_of_both_figures(tmp_path, items, drawn):
    a, b, c, d, e = items
    # Means 0.5, 0.45, 0.9, 0.1, 0.6: in order c, e, a, b, d. By F1+ alone b would be the best.
    scores = {a: (0.5, 0.5), b: (0.9, 0.0), c: (0.8, 1.0), d: (0.1, 0.1), e: (0.5, 0.7)}
    sheet = draw(tmp_path, items, scores)
    assert sheet.path == tmp_path / "overview.png"
    assert sheet.median == a
    assert [line.label for line in drawn] == ["best, mean F1 0.90", "median, mean F1 0.50", "worst, mean F1 0.10"]
    assert [line.name.split(",")[0] for line in drawn] == [c, a, d]
    assert "F1+ 0.80, F1- 1.00" in drawn[0].name
    assert "said malignant" in drawn[0].name
    assert f"{c}, benign" in drawn[0].name
    assert len(np.unique(read_rgb(sheet.path).reshape(-1, 3), axis=0)) > 1000


def test_each_row_shows_the_tile_the_truth_and_what_was_found(tmp_path, items, drawn):
    a, b, c, *_ = items
    draw(tmp_path, items, {a: (0.9, 0.9), b: (0.5, 0.5), c: (0.1, 0.1)})
    for line, name in zip(drawn, (a, b, c), strict=True):
        assert np.array_equal(line.image, read_rgb(items[name]["image"]))
        assert np.array_equal(line.truth, read_mask(items[name]["mask"]) > 0)
        assert np.array_equal(line.masks[0], quarter(items[name]))


def test_overview_leaves_out_images_without_truth(tmp_path, items, drawn):
    a, b, c, *_ = items
    sheet = draw(tmp_path, items, {a: None, b: (0.5, 0.5), c: None})
    assert sheet.median == b
    assert [line.label.split(",")[0] for line in drawn] == ["best", "median", "worst"]
    assert all(line.name.startswith(f"{b},") for line in drawn)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_of_any_seed_is_found(tmp_path, phantom, seed):
    chosen = {item["name"]: item for item in load_datalist(phantom, FOLD, seed).select("valid", masks=True)}
    scores = {name: (0.5, 0.1 * k) for k, name in enumerate(chosen)}
    sheet = draw(tmp_path, chosen, scores, split="valid", seed=seed)
    assert sheet.median == sorted(scores, key=lambda name: -scores[name][1])[len(scores) // 2]


def test_overview_reads_files_of_table_at_reported_threshold(tmp_path, items, drawn):
    name = next(iter(items))
    tile, votes = np.full((40, 60, 3), 60, np.uint8), np.zeros((40, 60), np.uint8)
    tile[:, :30, 0] = 200
    votes[:10], votes[10:20] = 255, 100
    for folder, image in (("anywhere", tile), ("else", votes)):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a b.png")
    moved = {name: {"image": str(tmp_path / "anywhere" / "a b.png"), "mask": str(tmp_path / "else" / "a b.png")}}
    draw(tmp_path / "run", moved, {name: (0.5, 0.5)}, mask_threshold=127)
    assert np.array_equal(drawn[0].image, tile)
    assert np.array_equal(drawn[0].truth, votes > 127)


def test_without_any_truth_there_is_no_sheet(tmp_path, items):
    assert draw(tmp_path, items, dict.fromkeys(items)) is None
    assert not (tmp_path / "overview.png").exists()
