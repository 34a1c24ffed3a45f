# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every row of the tables, trained and evaluated through its overlay in both bundles; who may read a mask."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glas_wsol.bundle.methods import METHODS
from glas_wsol.errors import ConfigError
from glas_wsol.metrics import MEASURES
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.transforms import read_mask
from tests.bundles.conftest import BUNDLES, DATA, NO_DIAGRAM, ROOT, SMALL, config, own_error, paper, workflow

OVERLAYS = sorted(ROOT.glob("configs/methods/*.json"))
TRAINED = [path for path in OVERLAYS if "train#trainer" in path.read_text() or path.stem.startswith("minmax")]
FIXED = [path for path in OVERLAYS if path not in TRAINED]


def method_of(overlay: Path) -> str:
    own = json.loads(overlay.read_text())
    return own["method"] + own.get("stage", "")


def run_method(overlay: Path, bundle: str, output: Path, phantom: str, **more: Any) -> Path:
    """Train and evaluate one row; the folder it is in."""
    own = json.loads(overlay.read_text())
    files = [*paper(bundle), str(overlay)]
    if "stage" in own:
        more = {"refine_epochs": 1, "refine_batch_size": 4, "decoder_width": 8, **more}
    settings = {**SMALL, **DATA[bundle], "epochs": 1, "output_dir": str(output), "dataset_dir": phantom, **more}
    settings["bundle_root"] = str(ROOT / "bundles" / bundle)
    del settings["passes"]  # the overlay says
    if "trunk" in own:
        del settings["trunk"]
    workflow("train", files, **settings).run()
    workflow("train", [*files, config(bundle, "evaluate")], **settings, **NO_DIAGRAM).run()
    return output


def report_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "evaluation.json").read_text())


def test_there_is_an_overlay_for_every_row():
    assert {method_of(path) for path in OVERLAYS} == set(METHODS)
    for path in OVERLAYS:
        named = json.loads(path.read_text()).get("network_def", {}).get("_target_", "")
        assert named.rpartition(".")[2] in ("", METHODS[method_of(path)].network.__name__)
    assert {path.stem for path in OVERLAYS} - set(METHODS) == {*("minmax_0", "minmax_4", "refined_0", "refined_4")}


@pytest.mark.parametrize("passes", [0, 4])
@pytest.mark.parametrize("bundle", BUNDLES)
def test_refined_overlay_adds_second_stage_of_train_json(bundle, passes):
    files = (ROOT / f"configs/methods/{name}_{passes}.json" for name in ("refined", "minmax"))
    method, first = (json.loads(file.read_text()) for file in files)
    train = json.loads(Path(config(bundle, "train")).read_text())
    assert method.pop("_desc_") != first.pop("_desc_")
    assert method == {**first, **{name: train[name] for name in ("stage", "final_network", "run")}}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.stem)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_method_in_every_bundle_runs_and_is_evaluated_alike(overlay, bundle, row):
    output = row(overlay.stem, bundle)
    report = report_of(output)
    method = METHODS[report["method"]]
    assert report["method"] == method_of(overlay)
    assert report["supervision"] == method.supervision
    assert report["passes"] == {"minmax_0": 0, "minmax_4": 4, "refined_0": 0, "refined_4": 4}.get(overlay.stem)
    known = {"mask": True, "class": report["names_class"], "box": bundle.startswith("cub")}  # no tissue has boxes
    assert set(report["measures"]) == {key for key, measure in MEASURES.items() if known[measure.needs]}
    assert report["synthetic"]
    assert (report["training"] is None) == (overlay in FIXED)
    rows = (output / "evaluation.csv").read_text().splitlines()
    assert len(rows) == report["n"] + 1
    if report["method"] == "components":
        card = model_card(str(output / "models" / "model.pt"))
        found = card["orientation"]  # turned round where the labels contradict it by three standard errors
        assert found["margin"] > -3 * found["standard_error"]
        assert len(card["orientation"]["compactness"]) == 4
    if report["method"] == "all_ones":  # the floor of every table
        measures = {key: found["value"] for key, found in report["measures"].items()}
        assert measures["f1_background"] == 0
        assert measures["f1_foreground"] == report["floor"]["f1_foreground"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> dict[str, str]:
    """A small phantom per bundle, written once."""
    from glas_wsol.bundle import resolve_dataset

    folder = tmp_path_factory.mktemp("phantoms")
    kinds = dict(zip(BUNDLES, ("tissue", "birds"), strict=True))
    return {b: resolve_dataset("phantom", str(folder / b), kinds[b], DATA[b]["phantom"]) for b in BUNDLES}


@pytest.fixture(scope="module")
def row(phantoms, tmp_path_factory) -> Callable[[str, str], Path]:
    """Every row in every bundle, trained and evaluated when first asked for; tests read it and write elsewhere."""
    folder = tmp_path_factory.mktemp("rows")

    @cache
    def run(name: str, bundle: str) -> Path:
        return run_method(ROOT / f"configs/methods/{name}.json", bundle, folder / bundle / name, phantoms[bundle])

    return run


UNET = json.loads((ROOT / "configs/methods/unet.json").read_text())
# What lets the U-Net's training read masks, to be put on top of other rows.
HAND_OUT_MASKS = {key: UNET[key] for key in ("train#dataset#data", "train#preprocessing#transforms")}


@contextmanager
def refused() -> Iterator[None]:
    """Whatever MONAI wraps it in, the error is that a mask was handed out."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps what a component raises
        yield
    error = own_error(caught.value)
    assert isinstance(error, ConfigError)
    assert "learns from image labels only" in str(error)


@pytest.mark.parametrize("overlay", TRAINED, ids=lambda p: p.stem)
def test_training_with_masks_is_refused_by_all_methods_but_unet(overlay, phantoms, row, tmp_path):
    bundle = BUNDLES[0]
    if method_of(overlay) == "unet":
        assert report_of(row("unet", bundle))["supervision"] == "pixel labels"
        return
    with refused():
        run_method(overlay, bundle, tmp_path, phantoms[bundle], **HAND_OUT_MASKS)
    assert not (tmp_path / "models" / "model.pt").exists()


def test_a_mask_handed_to_validation_is_refused_too(phantoms, tmp_path):
    bundle = BUNDLES[0]
    settings = {**SMALL, **DATA[bundle], "output_dir": str(tmp_path), "dataset_dir": phantoms[bundle]}
    settings |= {"validate#dataset#data": "$@datalist.select('valid', masks=True)", "epochs": 1}
    settings["validate#preprocessing#transforms"] = [*HAND_OUT_MASKS["train#preprocessing#transforms"][:2], "@to_unit"]
    settings["bundle_root"] = str(ROOT / "bundles" / bundle)
    made = workflow("train", paper(bundle), **settings)
    with refused():
        made.run()


def test_only_the_unet_s_overlay_asks_for_masks():
    asking = [path.stem for path in OVERLAYS if "masks=True" in path.read_text() or "ImageMasks" in path.read_text()]
    assert asking == ["unet"]
    for path in [*ROOT.glob("bundles/*/configs/paper.json"), *ROOT.glob("bundles/*/configs/train.json")]:
        assert "masks=True" not in path.read_text()


def test_the_other_methods_are_trained_by_the_same_trainer():
    own = {path.stem: json.loads(path.read_text()) for path in TRAINED}
    own = {stem: overlay for stem, overlay in own.items() if overlay["method"] != "minmax"}
    assert {overlay["train#trainer#_target_"] for overlay in own.values()} == {"glas_wsol.engines.PlainTrainer"}
    assert [stem for stem, one in own.items() if sum(key.startswith("train#trainer") for key in one) > 1] == ["unet"]


@pytest.mark.slow
def test_grad_cam_explains_the_network_of_cam_avg(phantoms, row, tmp_path):
    bundle, folder = BUNDLES[0], ROOT / "configs" / "methods"
    explained = row("cam_avg", bundle)
    model = explained / "models" / "model.pt"
    masks = {}
    for name in ("grad_cam", "grad_cam_pp"):
        settings = {**SMALL, **DATA[bundle], "bundle_root": str(ROOT / "bundles" / bundle), "epochs": 1}
        settings |= {"output_dir": str(tmp_path / name), "dataset_dir": phantoms[bundle], "checkpoint": str(model)}
        del settings["passes"]
        files = [*paper(bundle), str(folder / f"{name}.json"), config(bundle, "evaluate")]
        workflow("train", files, **settings, **NO_DIAGRAM).run()
        report = report_of(tmp_path / name)
        assert report["method"] == name
        assert report["training"] is None, "trained as another row"
        assert model_card(str(model))["method"] == "cam_avg"
        with np.load(tmp_path / name / "evaluation.npz") as kept:
            masks[name] = kept["classification_error"]
    with np.load(explained / "evaluation.npz") as kept:
        for name, errors in masks.items():
            assert np.array_equal(errors, kept["classification_error"]), name


@pytest.mark.parametrize(
    ("name", "bundle", "wanted"),
    [
        ("glas_others", "glas_minmax_entropy", (416, 160, 32, {0: 1e-2, 79: 1e-2, 80: 1e-3, 159: 1e-3})),
        ("cub5_others", "cub5_minmax_entropy", (448, 90, 8, {0: 1e-2, 29: 1e-2, 30: 1e-3, 60: 1e-4, 89: 1e-4})),
    ],
)
def test_the_other_rows_recipes_are_the_papers(name, bundle, wanted, phantoms, tmp_path):
    files = [*paper(bundle), str(ROOT / "configs" / "data" / f"{name}.json")]
    files.append(str(ROOT / "configs" / "methods" / "wildcat.json"))
    settings = {**DATA[bundle], "output_dir": str(tmp_path), "dataset_dir": phantoms[bundle], "weights": "none"}
    settings |= {"bundle_root": str(ROOT / "bundles" / bundle), "device": "cpu"}
    made = workflow("train", files, **settings)
    parser = made.parser
    got = tuple(parser.get_parsed_content(key) for key in ("crop_size", "epochs", "batch_size"))
    assert got == wanted[:3]
    assert parser.get_parsed_content("trunk") == "resnet18"
    assert parser.get_parsed_content("vertical_flip") == 0, "quarter turns and the horizontal flip give it"
    optimizer, scheduler = (parser.get_parsed_content(key) for key in ("optimizer", "lr_scheduler"))
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["momentum"], group["nesterov"]) == ("SGD", 0.9, True)
    assert group["weight_decay"] == 1e-4
    rates = []
    for _ in range(wanted[1]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert {epoch: rates[epoch] for epoch in wanted[3]} == pytest.approx(wanted[3])
    item = parser.get_parsed_content("train#dataset")[0]
    assert item["image"].shape == (3, wanted[0], wanted[0])
    assert bool(torch.isfinite(item["image"]).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all_ones", "deep_mil", "unet"])
def test_inference_takes_a_model_of_another_row_as_it_is(name, row, tmp_path):
    bundle = BUNDLES[0]
    run = row(name, bundle)
    images = [line["image"] for line in csv.DictReader((run / "evaluation.csv").open(newline=""))]
    settings = {"checkpoint": str(run / "models/model.pt"), "output_dir": str(tmp_path / "found")}
    settings |= {"dataset_dir": images[0], "device": "cpu", "bundle_root": str(ROOT / "bundles" / bundle)}
    workflow("inference", [config(bundle, "inference")], **settings).run()
    image = Path(images[0]).stem
    found, measured = (read_mask(folder / "masks" / f"{image}.png") for folder in (tmp_path / "found", run / "valid"))
    assert np.array_equal(found, measured)
