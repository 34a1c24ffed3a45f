# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The sheet shows the best, the median and the worst tile, chosen by figures alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from glas_wsol.data import load_datalist
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.transforms import read_mask, read_rgb
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
def drawn(monkeypatch) -> list[np.ndarray]:
    """Pictures set on the sheet, row by row, each followed by its title."""
    seen: list = []
    imshow, set_title = Axes.imshow, Axes.set_title
    monkeypatch.setattr(Axes, "imshow", lambda self, image, **kw: seen.append(image) or imshow(self, image, **kw))
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **kw: seen.append(text) or set_title(self, text, **kw))
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
    titles = drawn[1::2]
    places = ((c, "best, mean F1 0.90"), (a, "median, mean F1 0.50"), (d, "worst, mean F1 0.10"))
    assert [title.rsplit(",", 1)[0] for title in titles[::3]] == [f"{place}: {name}" for name, place in places]
    assert "F1+ 0.80, F1- 1.00" in titles[2]
    assert "said malignant" in titles[2]
    assert "benign" in titles[0]
    picture = read_rgb(sheet.path)
    assert picture.shape == (840, 1200, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_each_row_shows_the_tile_the_truth_and_what_was_found(tmp_path, items, drawn):
    a, b, c, *_ = items
    draw(tmp_path, items, {a: (0.9, 0.9), b: (0.5, 0.5), c: (0.1, 0.1)})
    for row, name in enumerate((a, b, c)):
        tile, truth, found = drawn[6 * row : 6 * row + 6 : 2]
        original = read_rgb(items[name]["image"])
        assert np.array_equal(tile, original)
        for picture, mask in ((truth, read_mask(items[name]["mask"]) > 0), (found, quarter(items[name]))):
            assert np.array_equal(picture[mask], original[mask]), "what lies in the mask keeps its colours"
            outside = picture[~mask].astype(int)
            assert np.ptp(outside, axis=-1).max() == 0, "the rest is faded to grey"
            assert outside.min() > 120
            assert outside.max() < 215, "white lumen does not look like what is faded"


def test_images_without_truth_are_left_out_and_one_image_is_best_median_and_worst(tmp_path, items, drawn):
    a, b, c, *_ = items
    sheet = draw(tmp_path, items, {a: None, b: (0.5, 0.5), c: None})
    assert sheet.median == b
    assert [title.split(",")[0] for title in drawn[1::6]] == ["best", "median", "worst"]
    assert all(f": {b}," in title for title in drawn[1::6])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_of_any_seed_is_found(tmp_path, phantom, seed):
    chosen = {item["name"]: item for item in load_datalist(phantom, FOLD, seed).select("valid", masks=True)}
    scores = {name: (0.5, 0.1 * k) for k, name in enumerate(chosen)}
    sheet = draw(tmp_path, chosen, scores, split="valid", seed=seed)
    assert sheet.median == sorted(scores, key=lambda name: -scores[name][1])[len(scores) // 2]


def test_images_and_masks_are_read_where_the_table_says_and_cut_at_the_reported_threshold(tmp_path, items, drawn):
    name = next(iter(items))
    tile, votes = np.full((40, 60, 3), 60, np.uint8), np.zeros((40, 60), np.uint8)
    tile[:, :30, 0] = 200
    votes[:10], votes[10:20] = 255, 100
    for folder, image in (("anywhere", tile), ("else", votes)):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a b.png")
    moved = {name: {"image": str(tmp_path / "anywhere" / "a b.png"), "mask": str(tmp_path / "else" / "a b.png")}}
    draw(tmp_path / "run", moved, {name: (0.5, 0.5)}, mask_threshold=127)
    shown, truth, _ = drawn[0:6:2]
    assert np.array_equal(shown, tile)
    assert np.array_equal(truth[:10], tile[:10])
    assert np.ptp(truth[10:].astype(int), axis=-1).max() == 0, "votes below the threshold are no truth"


def test_without_any_truth_there_is_no_sheet(tmp_path, items):
    assert draw(tmp_path, items, dict.fromkeys(items)) is None
    assert not (tmp_path / "overview.png").exists()
