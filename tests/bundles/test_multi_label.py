# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Images of several classes through the whole bundle: a table of tiles is learnt, evaluated and run on images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glas_wsol.data import load_datalist
from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks import build_network
from glas_wsol.networks.weights import read_state_dict
from glas_wsol.transforms import read_mask, read_rgb
from tests.bundles.conftest import BUNDLES, ROOT, SMALL, config, own_error, paper, workflow

CLASSES = ("blue", "green", "red")
CHANNELS = {"red": 0, "green": 1, "blue": 2}
SETS = [("red",), ("green",), ("blue",), ("red", "green"), ("blue", "red"), ("green", "blue", "red")]


def write_tiles(folder: Path) -> Path:
    """Grey noise of 70 x 90 px with a square of each class's colour; masks are the squares."""
    random = np.random.default_rng(0)
    folder.mkdir()
    lines = ["image,label,mask,split"]
    for n in range(24):
        names = SETS[n % 6]
        tile, mask = random.integers(90, 130, (70, 90, 3)), np.zeros((70, 90), np.uint8)
        for place, name in enumerate(names):
            row, column = random.integers(2, 34), 2 + 29 * place
            tile[row : row + 32, column : column + 27, CHANNELS[name]] += 110
            mask[row : row + 32, column : column + 27] = 1 + place
        Image.fromarray(tile.astype(np.uint8)).save(folder / f"t{n}.png")
        Image.fromarray(mask).save(folder / f"m{n}.png")
        lines.append(f"t{n}.png,{';'.join(names)},m{n}.png,{'train' if n < 12 else 'valid' if n < 18 else 'test'}")
    (folder / "datalist.csv").write_text("\n".join(lines))
    return folder / "datalist.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict[str, Any]:
    """Settings of a run that was trained."""
    folder = tmp_path_factory.mktemp("several")
    settings = {
        **SMALL,
        "bundle_root": str(ROOT / "bundles" / BUNDLES[0]),
        "dataset_dir": str(write_tiles(folder / "tiles")),
        "multi_label": True,
        "stain": None,
        "reflect_fraction": 0.0,
        "color_jitter": 0.0,
    }
    train = workflow("train", paper(BUNDLES[0]), **settings, output_dir=str(folder / "out"))
    assert train.check_properties() == []
    train.run()
    return {**settings, "output_dir": str(folder / "out")}


def model(run: dict[str, Any]) -> Path:
    return Path(run["output_dir"]) / "models" / "model.pt"


def probabilities(run: dict[str, Any], image: np.ndarray) -> np.ndarray:
    """``p(class | X+)`` of the trained network, from its file, on an image."""
    card = json.loads(model(run).with_suffix(".json").read_text())
    network = build_network(card["network"], trunk=card["trunk"], weights="none", num_classes=3)
    network.load_state_dict(read_state_dict(model(run)))
    seen, _ = WholeTileInferer().prepare(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255)
    with torch.no_grad():
        return network.eval().presence(seen)[0].numpy()


def named(p: np.ndarray) -> str:
    return ";".join(name for name, one in zip(CLASSES, p, strict=True) if one >= 0.5) or "no class"


def test_multi_label_card_states_it_and_the_selection(run):
    card = json.loads(model(run).with_suffix(".json").read_text())
    assert card["network"]["multi_label"] is True
    assert tuple(card["classes"]) == CLASSES
    wrong = [
        named(probabilities(run, read_rgb(item["image"])))
        != ";".join(c for c, y in zip(CLASSES, item["label"], strict=True) if y)
        for item in load_datalist(run["dataset_dir"], multi_label=True).select("valid")
    ]
    score = card["validation"]["selection_score"]
    assert int(-score) == sum(wrong), "the errors in the score are images whose classes are not exactly those named"
    assert card["validation"]["classification_error"] == pytest.approx(np.mean(wrong))


def test_multi_label_evaluation_reports_exact_matches(run, tmp_path):
    files = [*paper(BUNDLES[0]), config(BUNDLES[0], "evaluate")]
    settings = {**run, "output_dir": str(tmp_path), "checkpoint": str(model(run)), "split": "test"}
    evaluate = workflow("train", files, **settings)
    assert evaluate.check_properties() == []
    evaluate.run()
    with (tmp_path / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    items = load_datalist(run["dataset_dir"], multi_label=True).select("test", masks=True)
    assert [row["label"] for row in rows] == ["red", "green", "blue", "green;red", "blue;red", "blue;green;red"]
    wrong = []
    for row, item in zip(rows, items, strict=True):
        p = probabilities(run, read_rgb(item["image"]))
        assert row["predicted"] == named(p)
        of_label = [float(one) for one, y in zip(p, item["label"], strict=True) if y]
        assert [float(one) for one in row["probability_of_label"].split(";")] == pytest.approx(of_label, abs=1e-4)
        wrong.append(((p >= 0.5) != (item["label"] > 0)).any())
        found, truth = read_mask(tmp_path / "test" / "masks" / f"{item['name']}.png") > 0, read_mask(item["mask"]) > 0
        assert float(row["f1_foreground"]) == pytest.approx(
            2 * (found & truth).sum() / (found.sum() + truth.sum()), abs=1e-5
        )
    report = json.loads((tmp_path / "evaluation.json").read_text())
    measures = {key: found["value"] for key, found in report["measures"].items()}
    assert measures["classification_error"] == pytest.approx(np.mean(wrong))
    assert 0 <= measures["balanced_error"] <= 1
    assert 0 <= measures["roc_auc"] <= 1
    assert all(0 <= error <= 1 for error in report["other_classification_errors"].values())


def test_multi_label_inference_from_card_names_all_classes(run, tmp_path):
    inference = workflow(
        "inference",
        [config(BUNDLES[0], "inference")],
        dataset_dir=str(Path(run["dataset_dir"]).with_name("t5.png")),
        output_dir=str(tmp_path),
        checkpoint=str(model(run)),
        bundle_root=run["bundle_root"],
        device="cpu",
        stain=None,
    )
    inference.run()
    with (tmp_path / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    p = probabilities(run, read_rgb(Path(run["dataset_dir"]).with_name("t5.png")))
    assert row["class"] == named(p)
    assert [float(one) for one in row["probability"].split(";") if one] == pytest.approx(
        [x for x in p if x >= 0.5], abs=1e-5
    )
    (details,) = json.loads((tmp_path / "predictions.json").read_text())
    assert details["probabilities"] == pytest.approx(dict(zip(CLASSES, p, strict=True)), abs=1e-5)


def test_multi_label_single_class_method_is_refused_first(run, tmp_path):
    files = [*paper(BUNDLES[0]), str(ROOT / "configs" / "methods" / "cam_avg.json")]
    train = workflow("train", files, **{**run, "passes": None, "output_dir": str(tmp_path)})
    with pytest.raises((ConfigError, RuntimeError)) as caught:
        train.run()
    cause = own_error(caught.value)
    assert isinstance(cause, ConfigError)
    assert "ClassActivationNetwork has multi_label=False, and the labels have multi_label=True" in str(cause)
    assert not (tmp_path / "models").exists()
