# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Learning from corrected masks through the bundles: truth stays truth, and every result says how many there are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import glas_wsol
from glas_wsol.bundle.bundle_runs import plan_evaluation, plan_learning
from glas_wsol.data import load_datalist
from glas_wsol.errors import ConfigError, GlasWsolError, OutputError
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.results.localization import Localization
from glas_wsol.transforms import read_mask
from glas_wsol.writers.geojson import write_geojson
from tests.bundles.conftest import NO_DIAGRAM

FEW = {"epochs": "2", "batch_size": "4", "crop_size": "64", "tiles_per_epoch": "6", "weights": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def learnt(trained, tmp_path_factory) -> tuple:
    """A run with two corrected tiles: the trained run, the folders of corrections and of results, the true masks."""
    folder = tmp_path_factory.mktemp("learnt")
    (folder / "corrections").mkdir()
    data = load_datalist(trained.output / "phantom", fold="stratified-0")
    truth = {}
    above = 127 if "cub" in trained.bundle else 0
    for item in data.splits["train"][:2]:
        truth[item.name] = read_mask(item.mask) > above
        found = Localization(item.name, "", data.classes, (), truth[item.name].astype(np.float32), True)
        write_geojson(folder / "corrections" / f"{item.name}.geojson", found)
    run = plan_learning(
        str(trained.output / "phantom"), trained.model, str(folder / "corrections"), str(folder / "out"), FEW
    )
    run.make()
    return trained, folder, truth, data, run


def test_corrected_tiles_are_truth_and_others_pseudo_labels(learnt):
    _, folder, truth, data, _ = learnt
    seeds = folder / "out" / "models" / "seeds" / "round_1"
    for name, mask in truth.items():
        np.testing.assert_array_equal(read_mask(seeds / f"{name}.png"), np.where(mask, 255, 1))
    others = {path.stem for path in seeds.glob("*.png")} - set(truth)
    assert len(others) == 3
    assert others < {item.name for item in data.splits["train"][2:]}
    assert all((read_mask(seeds / f"{name}.png") == 128).any() for name in others)
    last = torch.load(folder / "out" / "models" / "last.pt", weights_only=True)
    assert last["trainer"] == {"epoch": 2, "iteration": 4}, "6 tiles of an epoch in steps of 4, however many there are"


def test_model_and_results_say_how_many_are_corrected(learnt):
    trained, folder, truth, data, _ = learnt
    card = model_card(str(folder / "out" / "models" / "model.pt"))
    assert set(card["network"]["corrections"]) == set(truth)
    assert card["training_data"]["corrected"] == 2
    plan_evaluation(str(folder / "out"), settings={k: str(v) for k, v in NO_DIAGRAM.items()}).make()
    report = json.loads((folder / "out" / "evaluation.json").read_text())
    assert report["supervision"] == "image labels and 2 corrected tiles"
    assert "2 corrected tiles" in report["trained_on"]
    assert report["names_class"] is True
    first, mine = glas_wsol.load(trained.output, device="cpu"), glas_wsol.load(folder / "out", device="cpu")
    image = data.splits["valid"][0].image
    before, after = first(image), mine(image)
    assert np.argsort(after.probabilities).tolist() == np.argsort(before.probabilities).tolist()
    assert "2 corrected tiles" in after.trained_on
    assert not np.array_equal(before.decidable, after.decidable)


def test_another_run_goes_on_and_other_corrections_are_refused(learnt, tmp_path):
    _, folder, _, data, run = learnt
    before = (folder / "out" / "models" / "model.pt").read_bytes()
    run.make()
    assert (folder / "out" / "models" / "model.pt").read_bytes() == before
    other = folder / "corrections" / f"{data.splits['train'][2].name}.png"
    Image.fromarray(np.zeros(read_mask(data.splits["train"][2].mask).shape, np.uint8)).save(other)
    try:
        with pytest.raises(GlasWsolError, match="corrections"):
            run.make()
    finally:
        other.unlink()
    kept = folder / "out" / "first_model" / "model.pt"
    model = tmp_path / "model.pt"
    model.write_bytes(b"other")
    model.with_suffix(".json").write_text(kept.with_suffix(".json").read_text())
    with pytest.raises(OutputError, match="another first model"):
        plan_learning("phantom", model, "c", str(folder / "out"))
    with pytest.raises(ConfigError, match="learnt from corrections already"):
        plan_learning("phantom", folder / "out" / "models" / "model.pt", "c", str(tmp_path))
