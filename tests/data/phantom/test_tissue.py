# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import regionprops

from glas_wsol.data.glas import glas_datalist
from glas_wsol.data.phantom.folder import build_phantom
from glas_wsol.data.phantom.tissue import tissue_tile, write_tissue_phantom
from glas_wsol.errors import ConfigError, OutputError

SMALL = {"size": (96, 140), "scale": 0.2}


@cache
def _tiles(count: int, confounded: bool = False):
    """Alternating grades: pictures, masks and grades."""
    made = [
        tissue_tile(np.random.default_rng([11, n]), n % 2 == 1, (130, 194), scale=0.25, confounded=confounded)
        for n in range(count)
    ]
    return [image.astype(float) for image, _ in made], [labels for _, labels in made], np.arange(count) % 2 == 1


def _accuracy(features, malignant, folds: int = 6, repeats: int = 5) -> float:
    """Balanced accuracy of a regularised linear discriminant by repeated, stratified cross-validation."""
    features = np.asarray(features, float).reshape(len(malignant), -1)
    scores = []
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        fold = np.empty(len(malignant), int)
        for grade in (False, True):
            members = rng.permutation(np.flatnonzero(malignant == grade))
            fold[members] = np.arange(len(members)) % folds
        said = np.empty(len(malignant), bool)
        for held in range(folds):
            known = fold != held
            mean, spread = features[known].mean(axis=0), features[known].std(axis=0) + 1e-9
            x, y = (features - mean) / spread, malignant
            centre = [x[known & (y == grade)].mean(axis=0) for grade in (False, True)]
            rest = x[known] - np.where(y[known, None], centre[1], centre[0])
            weight = np.linalg.solve(rest.T @ rest / len(rest) + 0.05 * np.eye(x.shape[1]), centre[1] - centre[0])
            said[~known] = (x[~known] - (centre[0] + centre[1]) / 2) @ weight > 0
        scores.append(
            ((said & malignant).sum() / malignant.sum() + (~said & ~malignant).sum() / (~malignant).sum()) / 2
        )
    return float(np.mean(scores))


def _colour(image, where) -> np.ndarray:
    return np.concatenate([image[where].mean(axis=0), image[where].std(axis=0)])


def _solidity(labels) -> float:
    """Mean solidity of the glands that the border of the tile does not cut."""
    whole = [
        gland.solidity
        for gland in regionprops(labels)
        if min(gland.bbox[:2]) > 0 and gland.bbox[2] < labels.shape[0] and gland.bbox[3] < labels.shape[1]
    ]
    return float(np.mean(whole)) if whole else 0.9


@pytest.mark.parametrize("malignant", [False, True])
def test_tile_same_seed_is_the_same_and_other_seed_differs(malignant):
    first, again, other = (tissue_tile(np.random.default_rng(s), malignant, (70, 101), scale=0.2) for s in (1, 1, 2))
    assert first[0].shape == (70, 101, 3)
    assert first[0].dtype == first[1].dtype == np.uint8
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("size", "scale"), [((64, 64), 1.0), ((64, 200), 0.15), ((201, 67), 0.3), ((80, 80), 2.0)])
@pytest.mark.parametrize("malignant", [False, True])
def test_every_size_shows_glands_and_stroma(size, scale, malignant):
    for seed in range(3):
        image, labels = tissue_tile(np.random.default_rng(seed), malignant, size, scale=scale)
        assert image.shape == (*size, 3)
        assert labels.shape == size
        assert 0.2 < (labels > 0).mean() < 0.8
        assert set(np.unique(labels)) == set(range(labels.max() + 1))


def test_glands_cover_about_half_of_tile_and_are_solid():
    masks = _tiles(60)[1]
    shares = np.array([(labels > 0).mean() for labels in masks])
    assert shares.min() > 0.38
    assert shares.max() < 0.68
    counts = [labels.max() for labels in masks]
    assert np.median(counts) >= 8
    for labels in masks:
        inside = labels[1:-1, 1:-1]
        for gland in np.unique(inside[inside > 0]):
            filled = ndimage.binary_fill_holes(labels == gland)
            assert not (filled & (labels == 0)).any(), "the lumen belongs to its gland"


def test_the_mask_ends_where_the_epithelium_does():
    """Just inside the border lie basal nuclei and dense cytoplasm, just outside lies pale stroma: on every tile."""
    for seed, malignant in ((0, False), (1, True), (2, False), (3, True)):
        image, labels = tissue_tile(np.random.default_rng(seed), malignant, (260, 388), scale=0.5)
        depth = ndimage.distance_transform_edt(labels > 0) - ndimage.distance_transform_edt(labels == 0)
        redness = image[..., 0].astype(float)
        rings = (-5, -4, -3, -2, -1, 1, 2, 3, 4)  # no pixel is nearer than 1 px to the other side
        profile = [redness[(depth >= d) & (depth < d + 1)].mean() for d in rings]
        assert np.mean(profile[6:]) < np.mean(profile[:3]) - 15
        assert np.argmin(np.diff(profile)) in (3, 4, 5), "the steepest fall is at the border"


def test_touching_glands_keep_their_ids():
    masks = [labels for labels, grade in zip(_tiles(60)[1], _tiles(60)[2], strict=True) if grade]
    touching = sum(((m[1:] != m[:-1]) & (m[1:] > 0) & (m[:-1] > 0)).any() for m in masks)
    assert touching > 3


def test_grades_differ_in_shape_but_not_in_colour_or_area():
    images, masks, malignant = _tiles(60)
    whole = [_colour(image, np.ones(image.shape[:2], bool)) for image in images]
    assert _accuracy(whole, malignant) < 0.70
    assert _accuracy([colour[:3] for colour in whole], malignant) < 0.70
    assert _accuracy([(labels > 0).mean() for labels in masks], malignant) < 0.70
    assert _accuracy([_solidity(labels) for labels in masks], malignant) > 0.85


def test_stroma_is_neutral_unless_confounded():
    for confounded in (False, True):
        images, masks, malignant = _tiles(36, True) if confounded else _tiles(60)
        stroma = [_colour(image, labels == 0) for image, labels in zip(images, masks, strict=True)]
        accuracy = _accuracy(stroma, malignant)
        assert (accuracy > 0.85) if confounded else (accuracy < 0.70)


@pytest.mark.parametrize("arguments", [{"size": (63, 99)}, {"scale": 0.0}, {"stain_strength": -1.0}])
def test_impossible_tiles_are_refused(arguments):
    with pytest.raises(ConfigError):
        tissue_tile(np.random.default_rng(0), False, **({"size": (64, 64)} | arguments))


def test_default_counts_give_the_folds_of_glas(tmp_path, monkeypatch):
    def blank(rng, malignant, size, **_):
        return np.zeros((*size, 3), np.uint8), np.full(size, 300, np.uint16)

    monkeypatch.setattr("glas_wsol.data.phantom.tissue.tissue_tile", blank)  # the layout, not the drawing
    folder = write_tissue_phantom(tmp_path / "phantom", size=(64, 64), workers=1)
    paper = glas_datalist(folder)
    assert {name: len(split) for name, split in paper.splits.items()} == {"train": 67, "valid": 18, "test": 24}
    numbers = {grade: {int(i.name[6:]) for i in paper.splits["valid"] if i.label == grade} for grade in (0, 1)}
    assert numbers[1] == {24, 54, 5, 36, 26, 77, 74, 18, 83, 68}
    assert numbers[0] == {38, 72, 65, 51, 12, 63, 2, 52}
    labels = [item.label for name in ("train", "valid") for item in paper.splits[name]]
    assert (labels.count(0), labels.count(1)) == (37, 48)
    for fold in range(5):
        splits = glas_datalist(folder, f"patient-{fold}").splits
        assert all({item.label for item in split} == {0, 1} for split in splits.values())
        groups = [{item.group for item in splits[name]} for name in ("train", "valid", "test")]
        assert sum(map(len, groups)) == len(set.union(*groups)), "no patient is in two splits"
    assert np.asarray(Image.open(folder / "train_1_anno.bmp")).min() > 0, "ids beyond 255 stay in the foreground"


def test_folder_has_glas_layout_for_any_number_of_processes(tmp_path, capsys):
    one = write_tissue_phantom(tmp_path / "one", train=6, test=4, seed=3, workers=1, **SMALL)
    two = write_tissue_phantom(str(tmp_path / "two"), train=6, test=4, seed=3, workers=2, progress=True, **SMALL)
    assert "10/10" in capsys.readouterr().err
    names = sorted(path.name for path in one.iterdir())
    tiles = [f"train_{n}" for n in range(1, 7)] + ["testA_1", "testA_2", "testA_3", "testB_1"]
    assert names == sorted([f"{t}{s}.bmp" for t in tiles for s in ("", "_anno")] + ["Grade.csv", "phantom.json"])
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one", "two"]

    header, *rows = csv.reader((one / "Grade.csv").open(newline=""))
    assert header[0] == "name"
    assert header[2] == " grade (GlaS)"
    assert [row[0] for row in rows] == tiles
    assert {row[2] for row in rows} == {" benign", " malignant"}
    patients = defaultdict(set)
    for name, patient, grade, _ in rows:
        patients[patient].add((name.startswith("train"), grade))
    assert all(len(kinds) == 1 for kinds in patients.values())
    image, mask = (Image.open(one / f"train_2{suffix}.bmp") for suffix in ("", "_anno"))
    assert image.mode == "RGB"
    assert mask.mode in ("L", "P")
    assert image.size == mask.size == (140, 96)


def test_a_tile_does_not_depend_on_how_many_there_are(tmp_path):
    few = write_tissue_phantom(tmp_path / "few", train=1, test=0, workers=1, **SMALL)
    more = write_tissue_phantom(tmp_path / "more", train=3, test=1, workers=1, **SMALL)
    assert (few / "train_1.bmp").read_bytes() == (more / "train_1.bmp").read_bytes()


def test_an_equal_phantom_is_reused_and_anything_else_is_refused(tmp_path):
    request = {"train": 1, "test": 0, "workers": 1, **SMALL}
    folder = write_tissue_phantom(tmp_path / "phantom", **request)
    (folder / "train_1.bmp").write_bytes(b"touched")
    assert write_tissue_phantom(folder, **request) == folder
    assert (folder / "train_1.bmp").read_bytes() == b"touched"
    with pytest.raises(OutputError, match="different: seed"):
        write_tissue_phantom(folder, seed=1, **request)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.doc").touch()
    with pytest.raises(OutputError, match="no phantom"):
        write_tissue_phantom(foreign, **request)
    with pytest.raises(OutputError, match="a file lies"):
        write_tissue_phantom(foreign / "thesis.doc", **request)
    (foreign / "phantom.json").write_text("[]")
    with pytest.raises(OutputError):
        write_tissue_phantom(foreign, **request)


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        build_phantom(tmp_path / "deep" / "phantom", {"a": 1}, fail)
    assert not any((tmp_path / "deep").iterdir())
    (tmp_path / "empty").mkdir()
    folder = build_phantom(tmp_path / "empty", {"a": (1, 2)}, lambda folder: (folder / "whole").touch())
    assert (folder / "whole").exists()
    assert json.loads((folder / "phantom.json").read_text()) == {"a": [1, 2]}


@pytest.mark.parametrize("arguments", [{"train": 0}, {"test": -1}, {"seed": -1}, {"size": (10, 10)}, {"scale": -1}])
def test_impossible_requests_are_refused(tmp_path, arguments):
    with pytest.raises(ConfigError):
        write_tissue_phantom(tmp_path / "phantom", **arguments)
    assert not any(tmp_path.iterdir())
