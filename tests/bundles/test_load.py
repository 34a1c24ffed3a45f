# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``glas_wsol.load`` in Python and ``inference.json`` on the command line are one: the same numbers, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

import glas_wsol
from glas_wsol.bundle.command_line import refuse_unknown_ids
from glas_wsol.bundle.export import export_bundle
from glas_wsol.data import load_datalist
from glas_wsol.errors import ConfigError
from glas_wsol.results.localization import Localization
from glas_wsol.transforms import read_rgb
from glas_wsol.writers.entries import entry_of
from tests.bundles.conftest import BUNDLES, ROOT, Run, config, workflow
from tests.bundles.test_ensembles import another_seed

VIEWS: dict[str, Any] = {"flips": "horizontal", "scales": [1.0, 1.5]}


@pytest.fixture
def tiles(trained: Run, tmp_path: Path) -> Path:
    """A folder of a tile of the phantom, cut so that its sides are no multiples of anything, and a blank one."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    item = load_datalist(trained.output / "phantom", fold="stratified-0").select("test")[0]
    Image.fromarray(read_rgb(item["image"])[:91, :143]).save(folder / "a.png")
    Image.new("RGB", (71, 40), (240, 239, 241)).save(folder / "blank.png")
    return folder


def draw_leaves(path: Path) -> None:
    """An image that shows something, and no tissue."""
    blocks = np.random.default_rng(0).integers(0, 120, (9, 13, 1)) + np.array([20, 110, 30])
    Image.fromarray(blocks.repeat(8, 0).repeat(8, 1).astype(np.uint8)).save(path)


def inferred(bundle: str, tiles: Path, output: Path, **settings: Any) -> tuple[list[Localization], list[dict]]:
    """What a run of the bundle finds, and what it writes of that."""
    found: list[Localization] = []
    files = [config(bundle, "inference")]
    paths = {"dataset_dir": str(tiles), "output_dir": str(output), "bundle_root": str(ROOT / "bundles" / bundle)}
    run = workflow("inference", files, device="cpu", **paths, **settings)
    run.evaluator.add_event_handler(
        "ITERATION_COMPLETED", lambda engine: found.extend(item["localization"] for item in engine.state.output)
    )
    run.run()
    return found, json.loads((output / "predictions.json").read_text(encoding="utf-8"))


def equal(one: Localization, other: Localization) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("decidable", "mask", "image"))
    values = (
        "name",
        "path",
        "classes",
        "probabilities",
        "class_scores",
        "evidence",
        "reason",
        "threshold",
        "provenance",
    )
    return arrays and all(
        getattr(one, name) == getattr(other, name) for name in (*values, "boxes", "mpp", "multi_label")
    )


@pytest.mark.parametrize("several_models", [False, True], ids=["bundle", "models and views"])
def test_the_same_numbers_as_a_run_of_inference(trained, tiles, tmp_path, several_models):
    if several_models:
        model = [str(trained.model), another_seed(trained.model, tmp_path / "second")]
        settings, localize = VIEWS, glas_wsol.load(model, device="cpu", **VIEWS)  # the stain is in model.json
    else:
        model, settings = str(trained.model), {}
        bundle = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "dist", model)
        localize = glas_wsol.load(bundle, device="cpu")
    run, entries = inferred(trained.bundle, tiles, tmp_path / "out", checkpoint=model, **settings)
    assert [one.name for one in run] == ["a", "blank"]
    assert [one.evidence for one in run] == [True, False]
    assert 0 < run[0].decidable_fraction < 1
    assert run[0].class_scores.undecidable is not None
    for expected, entry in zip(run, entries, strict=True):
        found = localize(expected.path)
        assert equal(found, expected)
        assert {**entry_of(found), "files": entry["files"]} == entry
        pixels = read_rgb(expected.path)
        for image in (pixels, torch.from_numpy(pixels).permute(2, 0, 1) / 255):
            again = localize(image, name=expected.name)
            assert np.array_equal(again.decidable, expected.decidable)
            assert (again.probabilities, again.class_scores) == (expected.probabilities, expected.class_scores)
            assert again.path == ""
    for file in glas_wsol.save(localize(run[0].path), tmp_path / "saved", ["png", "geojson"], overlay=True):
        name = file.relative_to(tmp_path / "saved")
        if name.parts[0] != "geojson":  # the run wrote no other format
            assert file.read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_monai_loads_the_shipped_model_by_its_defaults(trained, tmp_path, monkeypatch):
    again = another_seed(trained.model, tmp_path / "second")
    bundle = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "dist", again)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    network = monai.bundle.load(trained.bundle, bundle_dir=str(tmp_path / "dist"), source="github", repo="a/b/c")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is drawn"
    expected = glas_wsol.load(bundle, device="cpu").network
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network.cpu().eval()(image), expected(image), atol=1e-5)


def test_an_exported_train_json_trains_its_own_network(trained, tmp_path):
    bundle = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "dist", trained.model)
    file = str(bundle / "configs" / "train.json")
    argv = ["monai/bundle/__main__.py", "run", "--config_file", file]
    refuse_unknown_ids([*argv, "--training_network_def#omega", "4"])
    with pytest.raises(ConfigError, match="set training_network_def instead"):
        refuse_unknown_ids([*argv, "--network_def#omega", "4"])
    ours, shipped = (
        ConfigParser(ConfigParser.load_config_file(one)) for one in (config(trained.bundle, "train"), file)
    )
    assert shipped["training_network_def"] == ours["network_def"]
    assert shipped["network"]["network"] == "@training_network_def"
    assert "@network_def" not in (bundle / "configs" / "train.json").read_text()


def test_what_the_card_and_the_bundle_say_is_done(trained, tiles, tmp_path):
    # holes, specks and stain from model.json, the threshold from the bundle's inference.json
    stain = None if trained.bundle == BUNDLES[0] else "H&E"  # not what the bundle would assume
    again = another_seed(trained.model, tmp_path / "second", fill_holes=300, drop_specks=900, stain=stain)
    draw_leaves(tiles / "leaves.png")
    bundle = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "dist", again)
    config_file = bundle / "configs" / "inference.json"
    content = json.loads(config_file.read_text())
    content["postprocessing"]["threshold"] = 0.4375
    config_file.write_text(json.dumps(content))
    localize = glas_wsol.load(bundle, device="cpu")
    run, _ = inferred(trained.bundle, tiles, tmp_path / "out", checkpoint=again, **{"postprocessing#threshold": 0.4375})
    assert all(equal(localize(one.path), one) for one in run)
    assert [one.evidence for one in run if one.name == "leaves"] == [stain is None], "no tissue of this stain"
    for told in (None, "H&E"):
        given = glas_wsol.load(bundle, device="cpu", stain=told)(tiles / "leaves.png")
        assert given.evidence == (told is None)
    plain = glas_wsol.load(bundle, device="cpu", fill_holes=0, drop_specks=0, threshold=0.5)(run[0].path)
    assert plain.threshold == 0.5
    assert np.array_equal(plain.decidable, run[0].decidable), "the map is the network's"
    assert (plain.hole_area, plain.speck_area) == (0, 0)
    assert run[0].speck_area == 3 * run[0].hole_area > 0


def test_load_older_model_without_stain_has_the_bundle_stain(trained, tiles, tmp_path):
    again = Path(another_seed(trained.model, tmp_path / "second"))
    card = json.loads(again.with_suffix(".json").read_text())
    assert card.pop("stain") == ("H&E" if trained.bundle == BUNDLES[0] else None)
    again.with_suffix(".json").write_text(json.dumps(card))
    draw_leaves(tiles / "a.png")
    bundle = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "dist", again)
    run, _ = inferred(trained.bundle, tiles, tmp_path / "out", checkpoint=str(again))
    assert equal(glas_wsol.load(bundle, device="cpu")(run[0].path), run[0])
    assert run[0].evidence == (trained.bundle == BUNDLES[1])
    alone = glas_wsol.load(again, device="cpu")(run[0].path)
    assert alone.evidence == run[0].evidence, "without a bundle around it, that of the bundle with its classes"


def test_an_expression_of_a_bundle_is_not_run(trained, tmp_path):
    bundle = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "dist", trained.model)
    config_file = bundle / "configs" / "inference.json"
    content = json.loads(config_file.read_text())
    content["flips"] = f"$__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    config_file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"'flips' is an expression, which is not run here"):
        glas_wsol.load(bundle)
    glas_wsol.load(bundle, flips=False)
    assert not (tmp_path / "ran").exists()
