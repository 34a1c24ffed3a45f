# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Several models and several views through the bundles: evaluated as written, and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glas_wsol.data import load_datalist
from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks import build_network
from glas_wsol.networks.checkpoint import ensemble_of, load_checkpoint, model_card
from glas_wsol.networks.weights import read_state_dict
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.utils.digests import sha256_of
from tests.bundles.conftest import NO_DIAGRAM, SMALL, config, own_error, paper, workflow

VIEWS: dict[str, Any] = {"flips": True, "rotations": True, "scales": [1.0, 1.5]}


def another_seed(model: Path, folder: Path, **changes: Any) -> str:
    """A second model of the same recipe: the first one's heads, mirrored in their sign."""
    state = {k: -v if "to_maps" in k else v for k, v in read_state_dict(model).items()}
    folder.mkdir()
    torch.save(state, folder / "model.pt")
    card = json.loads(model.with_suffix(".json").read_text())
    card |= {"seed": 1, "recipe": {**card["recipe"], "seed": 1}, "sha256": sha256_of(folder / "model.pt"), **changes}
    (folder / "model.json").write_text(json.dumps(card))
    return str(folder / "model.pt")


def evaluated(trained, output: Path, **settings: Any) -> dict[str, Any]:
    files = [*paper(trained.bundle), config(trained.bundle, "evaluate")]
    settings = {**trained.settings, "dataset_dir": str(trained.output / "phantom"), "split": "test", **settings}
    workflow("train", files, **settings, **NO_DIAGRAM, output_dir=str(output)).run()
    return json.loads((output / "evaluation.json").read_text())


def inferred(trained, output: Path, image: str, **settings: Any) -> np.ndarray:
    files = [config(trained.bundle, "inference")]
    workflow("inference", files, dataset_dir=image, output_dir=str(output), device="cpu", **settings).run()
    return read_mask(next((output / "masks").iterdir())) > 0


@pytest.mark.parametrize(("multi_label", "views"), [(False, VIEWS), (True, {})], ids=["views", "models"])
def test_ensemble_gives_one_mask_and_names_its_models(trained, tmp_path, multi_label, views):
    files = [str(trained.model), another_seed(trained.model, tmp_path / "second")][: 1 + multi_label]
    checkpoint = files if multi_label else files[0]
    report = evaluated(trained, tmp_path / "evaluated", checkpoint=checkpoint, **views)
    item = load_datalist(trained.output / "phantom", fold="stratified-0").select("test")[0]
    found = inferred(trained, tmp_path / "inferred", item["image"], checkpoint=checkpoint, **views)
    measured = read_mask(tmp_path / "evaluated" / "test" / "masks" / f"{item['name']}.png") > 0
    assert np.array_equal(found, measured)

    # The same mask by hand from the files.
    image = torch.from_numpy(read_rgb(item["image"]).astype(np.float32) / 255).permute(2, 0, 1)[None]
    card = model_card(files[0])
    network = build_network(card["network"], trunk=card["trunk"], weights="none", num_classes=len(card["classes"]))
    network = ensemble_of(network, files, card["trunk"])
    load_checkpoint(network, files)
    inferer = WholeTileInferer(short_side=trained.settings.get("short_side"), **views)
    with torch.no_grad():
        soft = 1 - inferer(image, network.eval())[0, 0]
    assert 0 < soft.min() < 0.5 < soft.max()
    assert np.array_equal(found, soft.numpy() >= 0.5)

    digests = [sha256_of(file) for file in files]
    plain = {"flips": False, "rotations": False, "scales": [1.0]}
    assert report["views"] == {**plain, **views}
    assert report["checkpoint_sha256"] == (digests if multi_label else digests[0])
    for table in (tmp_path / "evaluated/test/predictions.json", tmp_path / "inferred/predictions.json"):
        for entry in json.loads(table.read_text()):
            assert entry["models"] == digests
            assert entry["views"] == report["views"]
    if multi_label:
        assert [one["sha256"] for one in report["members"]] == digests
        assert [one["seed"] for one in report["members"]] == [0, 1]
        assert (report["method"], report["trained_as"]) == ("minmax ensemble",) * 2
        assert (report["seed"], report["passes"], report["trunk"]) == (0, 2, SMALL["trunk"])
        assert report["recipe"]["epochs"] == 2
        assert "seed" not in report["recipe"]
        assert report["other_classification_errors"] == {"localizer": None, "whole_image": None}
        assert report["training"] is None, "the second model was not timed"
    else:
        assert (report["method"], report["trained_as"], report["members"]) == ("minmax", "minmax", None)
        assert all(0 <= error <= 1 for error in report["other_classification_errors"].values())


def test_validation_sees_the_views_too(trained, tmp_path):
    train = workflow("train", paper(trained.bundle), **trained.settings, output_dir=str(tmp_path), flips="horizontal")
    inferer = train.parser.get_parsed_content("validate#tile_inferer")
    assert len(list(inferer.views(torch.rand(1, 3, 70, 90)))) == 2


def test_a_member_of_another_fold_is_refused(trained, tmp_path):
    # It may have been trained on the images that are evaluated.
    files = [str(trained.model), another_seed(trained.model, tmp_path / "second", fold="stratified-1")]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps what a component raises
        evaluated(trained, tmp_path / "evaluated", checkpoint=files)
    error = own_error(caught.value)
    assert isinstance(error, ConfigError)
    assert "fold was 'stratified-1', is 'stratified-0'" in str(error)
