# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Both bundles trained, evaluated and run on images, as a user runs them; what they write is read back."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from glas_wsol.data import load_datalist
from glas_wsol.metrics import MEASURES
from glas_wsol.networks.weights import read_state_dict
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.utils.digests import sha256_of
from tests.bundles.conftest import BUNDLES, NO_DIAGRAM, PHANTOM, ROOT, SMALL, config, paper, workflow


def test_training_writes_best_model_card_and_resume_state(trained):
    state = read_state_dict(trained.model)
    assert all(torch.isfinite(v).all() for v in state.values())
    card = json.loads((trained.output / "models" / "model.json").read_text())
    assert card["trunk"] == SMALL["trunk"]
    assert card["sha256"] == sha256_of(trained.model)
    assert 1 <= card["epoch"] <= 2
    assert (trained.output / "models" / "last.pt").is_file()
    assert list((trained.output / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_writes_figures_masks_and_rows(trained, tmp_path, split):
    evaluate = workflow(
        "train",
        [*paper(trained.bundle), config(trained.bundle, "evaluate")],
        **{**trained.settings, "output_dir": str(tmp_path), "checkpoint": str(trained.model), "split": split},
        dataset_dir=str(trained.output / "phantom"),
    )
    assert evaluate.check_properties() == []
    evaluate.run()
    assert (tmp_path / "reliability.png").is_file()
    report = json.loads((tmp_path / "evaluation.json").read_text())
    items = load_datalist(trained.output / "phantom", fold="stratified-0").select(split, masks=True)
    assert report["n"] == report["n_with_masks"] == len(items)
    assert report["checkpoint_sha256"] == sha256_of(trained.model)
    assert (report["split"], report["seed"], report["threshold"]) == (split, 0, 0.5)
    with (tmp_path / "evaluation.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    threshold = 0 if trained.bundle.startswith("glas") else 127
    scores = {"f1_foreground": [], "f1_background": [], "floor": []}
    for item in items:  # what was written is what was evaluated: the figures follow from the files
        found = read_mask(tmp_path / split / "masks" / f"{item['name']}.png") > 0
        truth = read_mask(item["mask"]) > threshold
        assert found.shape == read_rgb(item["image"]).shape[:2]
        for name, a, b in (("f1_foreground", found, truth), ("f1_background", ~found, ~truth)):
            total = a.sum() + b.sum()
            value = 2 * (a & b).sum() / total if total else 1.0
            assert float(rows[item["name"]][name]) == pytest.approx(value, abs=1e-5)
            scores[name].append(value)
        scores["floor"].append(2 * truth.sum() / (truth.sum() + truth.size))
    measures = {key: found["value"] for key, found in report["measures"].items()}
    boxes = trained.bundle.startswith("cub")  # the drawn birds have official boxes, the tissue has none
    assert list(measures) == [key for key, measure in MEASURES.items() if boxes or measure.needs != "box"]
    assert measures["f1_foreground"] == pytest.approx(np.mean(scores["f1_foreground"]), abs=1e-5)
    assert measures["f1_background"] == pytest.approx(np.mean(scores["f1_background"]), abs=1e-5)
    assert report["floor"]["f1_foreground"] == pytest.approx(np.mean(scores["floor"]), abs=1e-5)
    assert report["floor"]["f1_background"] == 0
    wrong = [row["class"] != row["label"] for row in rows.values()]
    assert measures["classification_error"] == pytest.approx(np.mean(wrong))
    others = report["other_classification_errors"]
    assert set(others) == {"localizer", "whole_image"}
    assert all(0 <= value <= 1 for value in others.values())
    for key, found in report["measures"].items():
        low, high = found["interval"]
        assert low <= found["value"] <= high, key
    facts = {"method": "minmax", "passes": 2, "supervision": "image labels", "names_class": True, "synthetic": True}
    assert facts.items() <= report.items()
    assert report["training"]["epochs"] == report["recipe"]["epochs"] == 2
    assert (report["recipe"]["optimizer"], report["recipe"]["amp"]) == ("SGD", False)
    with np.load(tmp_path / "evaluation.npz", allow_pickle=False) as kept:
        assert kept["names"].tolist() == [item["name"] for item in items]
        for key in measures:
            again = MEASURES[key].aggregate(kept[key], np.ones((1, len(items))))[0]
            assert again == pytest.approx(measures[key]), key


def test_evaluation_config_has_inference_workflow_properties(trained, tmp_path):
    files = [*paper(trained.bundle), config(trained.bundle, "evaluate")]
    settings = {**trained.settings, "output_dir": str(tmp_path), "checkpoint": str(trained.model)}
    evaluate = workflow("evaluation", files, **settings, dataset_dir=str(trained.output / "phantom"))
    assert evaluate.check_properties() == []


def tiles(folder) -> dict[str, np.ndarray]:
    """Tiles of four formats and odd sizes, one of them blank, none with a label or a mask."""
    random = np.random.default_rng(0)
    folder.mkdir()
    images = {}
    for name, size in (("a.bmp", (70, 111)), ("b.png", (33, 64)), ("c.jpg", (95, 61)), ("d.tif", (31, 40))):
        blocks = random.integers(0, 255, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
        images[name] = blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    images["blank.png"] = np.full((64, 97, 3), 243, np.uint8)
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)
    return images


def test_inference_blank_tile_without_label_gives_no_evidence(trained, tmp_path):
    images = tiles(tmp_path / "tiles")
    inference = workflow(
        "inference",
        [config(trained.bundle, "inference")],
        dataset_dir=str(tmp_path / "tiles"),
        output_dir=str(tmp_path / "out"),
        checkpoint=str(trained.model),
        bundle_root=trained.settings["bundle_root"],
        device="cpu",
    )
    assert inference.check_properties() == []
    inference.run()
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = {row["path"].rsplit("/", 1)[1]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(images)
    for name, image in images.items():
        stem = name.split(".")[0]
        found = read_mask(tmp_path / "out" / "masks" / f"{stem}.png")
        assert found.shape == image.shape[:2]
        assert set(np.unique(found)) <= {0, 255}
        assert float(rows[name]["decidable_fraction"]) == pytest.approx((found > 0).mean(), abs=1e-6)
        assert (tmp_path / "out" / "overlays" / f"{stem}.png").is_file()
    assert rows["blank.png"]["class"] == "no evidence"
    assert rows["blank.png"]["probability"] == ""
    assert float(rows["blank.png"]["decidable_fraction"]) == 0
    assert 0.2 <= float(rows["a.bmp"]["probability"]) <= 1


def test_inference_and_evaluation_give_the_same_mask(trained, tmp_path):
    phantom = str(trained.output / "phantom")
    files = [*paper(trained.bundle), config(trained.bundle, "evaluate")]
    settings = {**trained.settings, "checkpoint": str(trained.model), "dataset_dir": phantom, "split": "test"}
    workflow("train", files, **settings, **NO_DIAGRAM, output_dir=str(tmp_path / "evaluated")).run()
    item = load_datalist(phantom, fold="stratified-0").select("test")[0]
    workflow(
        "inference",
        [config(trained.bundle, "inference")],
        dataset_dir=item["image"],
        output_dir=str(tmp_path / "inferred"),
        checkpoint=str(trained.model),
        device="cpu",
    ).run()
    inferred = next((tmp_path / "inferred" / "masks").iterdir())
    evaluated = tmp_path / "evaluated" / "test" / "masks" / f"{item['name']}.png"
    assert np.array_equal(read_mask(inferred), read_mask(evaluated))


def test_training_items_hold_no_mask_and_evaluation_items_do(trained):
    train = workflow("train", paper(trained.bundle), **trained.settings, output_dir=str(trained.output))
    assert all(
        "mask" not in item
        for part in ("train", "validate")
        for item in train.parser.get_parsed_content(f"{part}#dataset").data
    )


@pytest.mark.parametrize(
    ("bundle", "overlays"),
    [
        (BUNDLES[0], ["data/light", "trunks/efficientnet_lite0"]),
        (BUNDLES[1], ["data/light", "trunks/efficientnet_lite0"]),
        (BUNDLES[0], ["data/light", "data/demo", "trunks/resnet18"]),
        (BUNDLES[0], ["trunks/resnet50"]),
        (BUNDLES[1], ["trunks/resnet101"]),
    ],
)
def test_every_overlay_trains(tmp_path, bundle, overlays):
    files = [*paper(bundle), *(str(ROOT / "configs" / f"{name}.json") for name in overlays)]
    small = {"epochs": 1, "batch_size": 8, "crop_size": 64, "passes": 1, "device": "cpu", "fold": "stratified-0"}
    small["phantom"] = {**PHANTOM[bundle], "train": 10, "test": 0}
    if bundle == BUNDLES[1]:
        small |= {"phantom": {**PHANTOM[bundle], "size": [70, 90]}, "short_side": None}
    train = workflow("train", files, output_dir=str(tmp_path), **small)
    assert train.check_properties() == []
    train.run()
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert f"trunks/{card['trunk']}" in overlays
    assert bool(card["trunk_weights_sha256"]) == (card["trunk"] == "efficientnet_lite0")
    assert all(torch.isfinite(value).all() for value in read_state_dict(tmp_path / "models" / "model.pt").values())
