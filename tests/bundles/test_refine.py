# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Both stages by one command: trained, interrupted, resumed, evaluated, used; and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image

import glas_wsol
from glas_wsol.__main__ import main
from glas_wsol.data import load_datalist
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.handlers import run_checkpoint as checkpoint
from glas_wsol.handlers.clock import read_clock
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks import build_network
from glas_wsol.networks.checkpoint import load_checkpoint, model_card
from glas_wsol.networks.frozen_norm import frozen_norms
from glas_wsol.pseudo_labels import seed_files, self_training
from glas_wsol.transforms import read_mask, read_rgb
from tests.bundles.conftest import BUNDLES, DATA, NO_DIAGRAM, ROOT, SMALL, config, own_error, paper, workflow
from tests.conftest import same
from tests.networks.test_frozen_norm import by_hand

GLAS = BUNDLES[0]
FILES = [config(GLAS, "train")]
ROUNDS = {"epochs": 1, "refine_epochs": 2, "refine_rounds": 2, "refine_batch_size": 4, "decoder_width": 8}
TEACHERS = {"components": 0.0, "stage_one": 1.0, "stain": 0.5}  # the quick ones; the rows of the tables run the default
STAY = {"second_stage#tolerance": -1.0}  # what an untrained decoder sees may stay the same


def settings(phantom: Path, output: Path, **changes: Any) -> dict[str, Any]:
    own = {"dataset_dir": str(phantom), "output_dir": str(output), "bundle_root": str(ROOT / "bundles" / GLAS)}
    own["teachers"] = TEACHERS
    return {**SMALL, **DATA[GLAS], **ROUNDS, **STAY, **own, **changes}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_tissue_phantom(tmp_path_factory.mktemp("data") / "phantom", **DATA[GLAS]["phantom"])


@pytest.fixture(scope="module")
def whole(phantom, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    workflow("train", FILES, **settings(phantom, output)).run()
    return output


def state(output: Path) -> dict[str, Any]:
    """All that a run leaves, but for its times."""
    found: dict[str, Any] = {}
    for path in sorted([*(output / "models").rglob("*"), *(output / "stage_one").rglob("*")]):
        name = path.relative_to(output).as_posix()
        if path.suffix == ".pt":
            found[name] = torch.load(path, weights_only=True)
        elif path.is_file() and path.name != "clock.json" and path.suffix != ".lock":
            found[name] = path.read_bytes()
    return found


def test_both_stages_leave_a_model_of_their_own(whole):
    one, two = (model_card(str(whole / folder / "model.pt")) for folder in ("stage_one", "models"))
    assert (one["method"], two["method"]) == ("minmax", "minmax_refined")
    assert two["network"]["class"] == "RefinedNetwork"
    assert two["network"]["base"] == one["network"]
    assert two["recipe"]["first_stage"] == one["sha256"]
    assert two["epoch"] == 4, "the end of the last round"
    assert (one["local"], two["local"]) == (False, True)
    assert "last round" in two["selection_rule"]
    base, refined = (torch.load(whole / folder / "model.pt", weights_only=True) for folder in ("stage_one", "models"))
    assert all(torch.equal(refined[f"base.{name}"], value) for name, value in base.items()), "not a bit has moved"
    assert [one["epoch"] for one in read_clock(whole / "models" / "clock.json")] == [1, 2, 3, 4, 5], "of both stages"
    for number in (1, 2):
        record = json.loads((whole / "models" / "seeds" / f"round_{number}" / "seeds.json").read_text())
        assert -1 <= record["student_agrees"] <= 1
        assert record["loss"] > 0


@pytest.fixture(scope="module")
def one_epoch(phantom, whole, tmp_path_factory) -> dict[str, Path]:
    """A second stage of one epoch, by ``decoder_norm``: what is measured after it is of the final weights."""
    found = {norm: tmp_path_factory.mktemp(norm) for norm in ("frozen", "tile")}
    for norm, output in found.items():
        changes = {"stage_one_dir": str(whole / "stage_one"), "refine_rounds": 1, "refine_epochs": 1}
        workflow("train", FILES, **settings(phantom, output, decoder_norm=norm, **changes)).run()
    return found


def network_of(model: Path) -> Any:
    card = model_card(str(model))
    network = build_network(card["network"], trunk=card["trunk"], weights="none", num_classes=2).eval()
    load_checkpoint(network, str(model))
    assert network.local is card["local"]
    return network


def test_frozen_statistics_are_means_over_the_training_tiles(phantom, one_epoch):
    network = network_of(one_epoch["frozen"] / "models" / "model.pt")
    items = load_datalist(phantom, fold="stratified-0").select("train")
    tiles = [torch.from_numpy(np.array(Image.open(item["image"]))).movedim(2, 0)[None] / 255 for item in items]
    factor = json.loads((ROOT / "bundles" / GLAS / "configs" / "train.json").read_text())["scale"]
    expected = np.mean([by_hand(network, WholeTileInferer(factor).prepare(tile)[0]) for tile in tiles], axis=0)
    found = [layer.group_statistics.numpy() for layer in frozen_norms(network).values()]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_calibrate_makes_an_older_model_what_training_makes(phantom, one_epoch, tmp_path, capsys):
    output, older = tmp_path / "local", one_epoch["tile"] / "models" / "model.pt"
    assert not network_of(older).local
    assert main(["calibrate", str(one_epoch["tile"]), str(phantom), "--output", str(output)]) == 0
    assert "local/model.pt" in capsys.readouterr().out
    found = network_of(output / "model.pt").state_dict()
    for name, value in network_of(one_epoch["frozen"] / "models" / "model.pt").state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert model_card(str(older))["local"] is False, "the older one is left as it is"
    tile = str(phantom / "testA_1.bmp")
    masks = [glas_wsol.load(model, device="cpu")(tile).decidable for model in (output, one_epoch["frozen"], older)]
    np.testing.assert_allclose(masks[0], masks[1], atol=1e-3)
    assert np.abs(masks[0] - masks[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("model", "data", "named"),
    [
        ("frozen", "phantom", "its mask is local already"),
        ("tile", "other", "not the images that the model was trained on"),
        ("stage_one", "phantom", "no decoder of a second stage"),
        ("there", "phantom", "a model is here already"),
    ],
)
def test_calibrate_invalid_is_refused(phantom, whole, one_epoch, tmp_path, capsys, model, data, named):
    models = {**one_epoch, "stage_one": whole / "stage_one", "there": one_epoch["tile"]}
    other = (
        write_tissue_phantom(tmp_path / "data", **{**DATA[GLAS]["phantom"], "train": 8}) if data == "other" else phantom
    )
    output = one_epoch["tile"] / "models" if model == "there" else tmp_path / "new"
    assert main(["calibrate", str(models[model]), str(other), "--output", str(output)]) == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, 4, 5])  # in the first round, between both, in the second, after the first stage
def test_refine_interrupted_and_resumed_gives_the_same_bits(phantom, whole, tmp_path, at):
    first = workflow("train", FILES, **settings(phantom, tmp_path))
    first.parser["run"] = first.parser["run"][:3]  # the process ends after the first stage
    first.run()
    if at == 5:
        assert not (tmp_path / "models").exists()
    else:
        trainer = first.parser.get_parsed_content("second_stage").trainer

        def interrupt(engine) -> None:
            if engine.state.epoch == at:
                raise KeyboardInterrupt

        trainer.add_event_handler(Events.ITERATION_STARTED, interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        last = torch.load(tmp_path / "models" / "last.pt", weights_only=True)
        assert last["trainer"]["epoch"] == at - 1
    workflow("train", FILES, **settings(phantom, tmp_path)).run()
    assert same(state(whole), state(tmp_path))


def test_refine_interrupted_in_seeds_writes_them_again(phantom, whole, tmp_path, monkeypatch):
    first = workflow("train", FILES, **settings(phantom, tmp_path))
    written, write = [], self_training.write_png

    def fail(path: Path, mask: np.ndarray) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(path, mask)

    monkeypatch.setattr(self_training, "write_png", fail)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        first.run()
    monkeypatch.undo()
    workflow("train", FILES, **settings(phantom, tmp_path)).run()
    assert same(state(whole), state(tmp_path))


def test_a_finished_run_is_left_alone_and_says_so(phantom, whole, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.suffix in (".pt", ".json", ".png")}
    said: list[str] = []
    for module in (checkpoint, seed_files):
        monkeypatch.setattr(module.logger, "info", lambda text, *values: said.append(text % values))
    workflow("train", FILES, **settings(phantom, whole)).run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [text.split(": ")[-1] for text in said if "finished run" in text] == ["nothing left to train"] * 2
    assert any("holds the seeds already" in text for text in said)


def refined(row: str) -> list[str]:
    """The second stage after a method of one stage."""
    return [*paper(GLAS), str(ROOT / f"configs/methods/{row}.json"), str(ROOT / "configs/stages/second.json")]


def refused(phantom: Path, output: Path, row: str | None = None, **changes: Any) -> str:
    asked, files = settings(phantom, output, **changes), FILES
    if row:
        files = refined(row)
        del asked["passes"]  # the method says
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps what a component raises
        workflow("train", files, **asked).run()
    return str(own_error(caught.value))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed_share": 0.2}, "seed_share was 0.4, is 0.2"),
        ({"seed_softness": 0.9}, "seed_softness was 0.5, is 0.9"),
        ({"refine_epochs": 1}, "refine_epochs was 2, is 1"),
        ({"refine_lr": 0.5}, "refine_lr was 0.001, is 0.5"),
        ({"decoder_width": 16}, "decoder_width was 8, is 16"),
        ({"decoder_norm": "tile"}, "decoder_norm was 'frozen', is 'tile'"),
        ({"refined_network#network#class_from": "classifier"}, "class_from was 'first_stage', is 'classifier'"),
        ({"passes": 1}, "passes was 2, is 1"),
        ({"augmentation#transforms#7#brightness": 0.4}, "augmentation#transforms#7#brightness was 0.5, is 0.4"),
        ({"train#dataset#seed": 5}, "train#dataset#seed was 0, is 5"),
        ({"second_stage#tolerance": -2.0}, "second_stage#tolerance was -1.0, is -2.0"),
    ],
)
def test_a_finished_run_with_other_settings_is_refused(phantom, whole, changes, named):
    before = state(whole)
    assert named in refused(phantom, whole, **changes)
    assert same(state(whole), before)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"teachers": {"oracle": 1.0}}, "no teacher named 'oracle' [teachers]: choose components, stage_one, stain"),
        ({"seed_share": 0.8}, "share=0.8"),
        ({"seed_softness": 2.0}, "softness=2.0"),
        ({"decoder_width": 9}, "decoder_width=9"),
        ({"second_stage#tolerance": "x"}, "tolerance='x' is not valid [second_stage]: give a number"),
        ({"second_stage#weight_decay": -1}, "weight_decay=-1 is not valid [second_stage]: give a number from 0"),
        ({"ckpt_dir": __file__}, "a file is in the way of ckpt_dir"),
        ({"decoder_norm": "batch"}, "decoder_norm='batch'"),
        ({"multi_label": True}, "several classes"),
    ],
)
def test_refine_invalid_is_refused_before_first_stage(phantom, tmp_path, changes, named):
    assert named in refused(phantom, tmp_path, **changes)
    assert not (tmp_path / "stage_one").exists()


def test_a_first_stage_from_elsewhere_is_taken_up_as_it_is(phantom, whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (whole / "stage_one").iterdir() if path.suffix != ".lock"}
    changes = {"stage_one_dir": str(whole / "stage_one"), "refine_rounds": 1}
    workflow("train", FILES, **settings(phantom, tmp_path, **changes)).run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "stage_one").exists()
    assert model_card(str(tmp_path / "models" / "model.pt"))["epoch"] == 2


def test_a_converged_run_stays_converged(phantom, whole, tmp_path):
    changes = {"stage_one_dir": str(whole / "stage_one"), "refine_rounds": 3, "refine_epochs": 1}
    changes |= {"second_stage#tolerance": 3.0}
    for _ in range(2):
        workflow("train", FILES, **settings(phantom, tmp_path, **changes)).run()
        last = torch.load(tmp_path / "models" / "last.pt", weights_only=True)
        assert last["trainer"]["epoch"] == 2
        assert model_card(str(tmp_path / "models" / "model.pt"))["epoch"] == 2
    assert not (tmp_path / "models" / "seeds" / "round_3").exists()


def test_evaluation_and_inference_take_the_refined_model(phantom, whole, tmp_path):
    files = [*FILES, config(GLAS, "evaluate")]
    workflow("train", files, **settings(phantom, tmp_path, checkpoint=str(whole / "models" / "model.pt"))).run()
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["method"] == report["trained_as"] == "minmax_refined"
    assert report["training"]["epochs"] == 5
    others = report["other_classification_errors"]
    assert others["localizer"] == report["measures"]["classification_error"]["value"]
    assert others["whole_image"] is not None
    images = {Path(line.split(",")[-2]).stem: line.split(",") for line in (tmp_path / "evaluation.csv").open()}
    assert images
    name = sorted(path.stem for path in (tmp_path / "valid" / "masks").iterdir())[0]
    found = {"checkpoint": str(whole / "models" / "model.pt"), "output_dir": str(tmp_path / "found"), "device": "cpu"}
    found |= {"dataset_dir": str(phantom / f"{name}.bmp"), "bundle_root": str(ROOT / "bundles" / GLAS)}
    workflow("inference", [config(GLAS, "inference")], **found).run()
    pair = [read_mask(folder / "masks" / f"{name}.png") for folder in (tmp_path / "found", tmp_path / "valid")]
    assert np.array_equal(*pair)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["wildcat", "deep_mil"])
def test_other_rows_are_refined_too(row, phantom, tmp_path):
    files = refined(row)
    changes = settings(phantom, tmp_path, refine_epochs=1, refine_rounds=1)
    del changes["passes"]  # the row says
    workflow("train", files, **changes).run()
    workflow("train", [*files, config(GLAS, "evaluate")], **changes, **NO_DIAGRAM).run()
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["method"] == f"{row}_refined"
    assert report["other_classification_errors"] == {"localizer": None, "whole_image": None}


@pytest.mark.parametrize(
    ("row", "network"), [("unet", "SegmentationNetwork"), ("components", "FeatureComponentNetwork")]
)
def test_refine_method_without_class_scores_is_refused(row, network, phantom, tmp_path):
    assert f"{network} has no class scores of whole images" in refused(phantom, tmp_path, row)
    assert not (tmp_path / "stage_one").exists()


def test_the_figure_of_how_it_works_is_of_what_a_run_computes(whole, phantom, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("how_it_works", ROOT / "docs" / "figures" / "how_it_works.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "how_it_works", module)
    spec.loader.exec_module(module)
    item = load_datalist(phantom, fold="stratified-0").select("test")[0]
    story = module.tell(whole, read_rgb(item["image"]), item["label"])
    localize = glas_wsol.load(whole, device="cpu")
    found = localize(story.image)
    assert story.image.shape == (96, 128, 3), "sides are multiples of 32"
    np.testing.assert_array_equal(story.mask, found.mask)
    grey = localize.network.pixel_mean.flatten().numpy()
    for parts in (story.parts, story.second):  # what is wiped out is grey: the two make up the tile
        np.testing.assert_allclose(parts[0].seen + parts[1].seen - grey, story.image / 255, atol=1e-5)
    for part, said in zip(story.second, (found.class_scores.decidable, found.class_scores.undecidable), strict=True):
        np.testing.assert_allclose(part.said, said.probabilities, atol=0.02)  # a tile alone is padded by reflection
    assert story.steps[0].trust in (0, story.steps[0].said[story.label])
    assert module.main([str(whole.parent / "none")]) == 1
    module.draw(story, tmp_path / "how.png")
    assert np.asarray(Image.open(tmp_path / "how.png")).std() > 20
