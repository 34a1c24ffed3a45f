# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Both stages on transformers of local folders: trained, resumed, used, exported, moved; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import glas_wsol
from glas_wsol.__main__ import main
from glas_wsol.bundle.export_targets import export
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.errors import ConfigError
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.transforms import read_mask
from tests.bundles.conftest import BUNDLES, DATA, NO_DIAGRAM, ROOT, SMALL, config, own_error, workflow
from tests.conftest import same
from tests.tiny_transformers import MEAN, change, write_transformer

GLAS = BUNDLES[0]
FILES = [config(GLAS, "train")]
STEPS = {"epochs": 1, "refine_epochs": 1, "refine_rounds": 1, "refine_batch_size": 4, "decoder_width": 8, "passes": 0}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    options = {**DATA[GLAS]["phantom"], "train": 8, "test": 2}
    return write_tissue_phantom(tmp_path_factory.mktemp("data") / "phantom", **options)


def settings(phantom: Path, output: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    own = {"dataset_dir": str(phantom), "output_dir": str(output), "bundle_root": str(ROOT / "bundles" / GLAS)}
    return {**SMALL, **DATA[GLAS], **STEPS, **own, "trunk": f"hf:{folder}", "weights": "auto", **changes}


@pytest.fixture(scope="module")
def trained(phantom, tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """Of a kind the transformer's folder and a training of two steps a stage, which ended after the first stage.

    It was typed again when the folder had moved.
    """

    @cache
    def make(kind: str) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp(kind)
        write_transformer(root / "first", kind)
        first = workflow("train", FILES, **settings(phantom, root / "out", root / "first"))
        first.parser["run"] = first.parser["run"][:3]
        first.run()
        assert not (root / "out" / "models").exists()
        (root / "first").rename(root / "model")
        workflow("train", FILES, **settings(phantom, root / "out", root / "model")).run()
        return root / "model", root / "out"

    return make


# They are of all four classes.
@pytest.mark.parametrize("kind", ["midnight", "hibou", "dinov3", "vit"])
def test_run_on_a_transformer_trains_predicts_and_exports(kind, trained, phantom, tmp_path):
    folder, output = trained(kind)
    last = [torch.load(output / one / "last.pt", weights_only=True) for one in ("stage_one", "models")]
    assert [one["trainer"]["iteration"] for one in last] == [2, 2]
    card = model_card(str(output / "models" / "model.pt"))
    assert card["trunk"] == f"hf:{folder}"
    assert (card["trunk_licence"], card["local"]) == ("mit", False)
    model = torch.load(output / "models" / "model.pt", weights_only=True)
    assert {name.split(".")[1] for name in model if name.startswith("base.")} >= {"localizer", "trunk"}
    assert [name for name in model if "trunk" in name] == ["base.trunk.stages.digest"]
    assert bytes(model["base.trunk.stages.digest"].tolist()).hex() == card["trunk_weights_sha256"]
    assert model["pixel_mean"].flatten().tolist() == pytest.approx(MEAN)
    tile = str(phantom / "testA_1.bmp")
    found = glas_wsol.load(output, device="cpu")(tile)
    assert found.familiarity is not None
    copy = export(str(output), tmp_path)
    again = glas_wsol.load(copy, device="cpu")(tile)
    assert np.array_equal(found.decidable, again.decidable)
    assert json.loads((copy / "models" / "model.json").read_text())["trunk_licence"] == "mit"
    assert not list(folder.parent.rglob("ran")), "no code of the folder has run"


@pytest.fixture(scope="module")
def whole(trained) -> tuple[Path, Path]:
    """A transformer's folder and a training; tests read them only."""
    return trained("dinov3")


def test_resumed_run_with_a_moved_folder_has_the_same_bits(whole, phantom, tmp_path):
    workflow("train", FILES, **settings(phantom, tmp_path / "out", whole[0])).run()
    states = [torch.load(one / "models" / "model.pt", weights_only=True) for one in (whole[1], tmp_path / "out")]
    assert same(*states)


def test_changed_transformer_stops_resume_and_use(whole, phantom, tmp_path):
    shutil.copytree(whole[1], tmp_path / "out")
    write_transformer(tmp_path / "other", "dinov3", seed=1)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps what a component raises
        workflow("train", FILES, **settings(phantom, tmp_path / "out", tmp_path / "other")).run()
    assert "weights was" in str(own_error(caught.value))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        glas_wsol.load(tmp_path / "out", device="cpu", trunk=f"hf:{tmp_path / 'other'}")
    assert "not the one that the model was trained with" in str(own_error(caught.value))


def test_moved_transformer_is_found_by_the_setting_trunk(whole, phantom, tmp_path, capsys):
    folder, output = whole
    shutil.copytree(output, tmp_path / "out")
    model = tmp_path / "out" / "models" / "model.json"
    change(model, trunk="hf:gone")
    shutil.copytree(folder, tmp_path / "moved")
    tile, trunk = str(phantom / "testA_1.bmp"), f"hf:{tmp_path / 'moved'}"
    asked = ["predict", tile, "--model", str(tmp_path / "out"), "--output", str(tmp_path / "masks"), "--no-overlays"]
    assert main(asked) == 1
    error = capsys.readouterr().err
    assert "no such folder of a transformer [gone]: download the model" in error
    assert main([*asked, "--trunk", trunk]) == 0
    expected = glas_wsol.load(output, device="cpu")(tile).mask
    assert np.array_equal(read_mask(tmp_path / "masks" / "masks" / "testA_1.png") > 0, expected)
    changed = settings(phantom, tmp_path / "out", tmp_path / "moved")
    workflow("train", [*FILES, config(GLAS, "evaluate")], **changed, **NO_DIAGRAM).run()
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["trunk"] == trunk


def test_file_that_would_copy_the_transformer_is_refused(whole, tmp_path):
    for target in ("pt2", "onnx", "torchscript", "bioimageio"):
        with pytest.raises(ConfigError, match="a copy of the transformer, which the model only refers to"):
            export(str(whole[1]), tmp_path / target, target)


@pytest.mark.parametrize(
    ("files", "changes", "named"),
    [
        (["paper"], {"batch_norm": "batch"}, "batch_norm=batch trains the trunk, and a transformer stays frozen"),
        ([], {"trunk": "hf:nowhere"}, "no such folder of a transformer [nowhere]"),
        ([], {"weights": "package"}, "weights=package with trunk=hf:"),
    ],
)
def test_training_that_no_transformer_can_is_refused(whole, phantom, tmp_path, files, changes, named):
    asked = settings(phantom, tmp_path / "out", whole[0], **changes)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps what a component raises
        workflow("train", [*FILES, *(config(GLAS, one) for one in files)], **asked).run()
    assert named in str(own_error(caught.value))
    assert not (tmp_path / "out" / "stage_one" / "model.pt").exists()
