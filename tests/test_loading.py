# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Loading a model in Python: where it may lie, what it takes, and what is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

import glas_wsol
from glas_wsol.bundle.inference_run import plan_inference
from glas_wsol.errors import ConfigError, GlasWsolError, ImageFileError, WeightsError
from glas_wsol.handlers import write_model
from glas_wsol.networks import ClassActivationNetwork, build_network
from glas_wsol.results.class_scores import ClassScores
from glas_wsol.results.verdict import Verdict
from glas_wsol.utils.configs import parsed
from tests.conftest import tiny_network, tiny_trunk

CARD = {"method": "minmax", "trunk": "tiny", "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}
BIRDS = ["019.Gray_Catbird", "171.Myrtle_Warbler", "108.White_necked_Raven", "099.Ovenbird", "178.Swainson_Warbler"]
PIXELS = np.random.default_rng(0).integers(0, 255, (41, 67, 3), dtype=np.uint8)

NO_SCORES = {"localizer": None, "decidable": None, "undecidable": None, "regions_are_evidence": None, "note": ""}


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The output folder of a training of the tiny network."""
    monkeypatch.setattr(
        "glas_wsol.networks.build_network",
        lambda settings, **more: build_network(settings, **{**more, "trunk": tiny_trunk()}),
    )
    write_model(tiny_network(), tmp_path / "run" / "models", CARD)
    return tmp_path / "run"


def test_three_lines(run, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "tile 1.png")
    localize = glas_wsol.load(run)
    found = localize(tmp_path / "tile 1.png")
    files = glas_wsol.save(found, tmp_path / "out", ["png", "json"])
    assert [file.name for file in files] == ["tile 1.png", "tile 1.json", "tile 1.png"]
    assert found.classes == localize.classes == ("benign", "malignant")
    assert found.mask.shape == (41, 67)
    assert len(found.provenance.models[0]) == 64
    assert found.provenance.method == "minmax"


@pytest.mark.parametrize("below", ["", "models", "models/model.pt"])
def test_a_model_may_be_named_by_its_file_or_a_folder_above_it(run, below):
    whole = glas_wsol.load(run)(PIXELS)
    found = glas_wsol.load(run / below)(PIXELS)
    assert np.array_equal(found.decidable, whole.decidable)
    assert found.name == "image"


def test_the_network_does_not_learn_and_draws_nothing(run):
    localize = glas_wsol.load(run)
    before = torch.get_rng_state()
    first, second = localize(PIXELS), localize(PIXELS)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first.decidable, second.decidable)
    assert not localize.network.training


def test_loading_pixel_size_of_model_or_image_is_used(run):
    localize = glas_wsol.load(run, mpp=0.5)
    assert localize(PIXELS).mpp == (0.5, 0.5)
    assert localize(PIXELS, mpp=[0.25, 0.5]).mpp == (0.25, 0.5)
    with pytest.raises(ConfigError, match="mpp=0"):
        localize(PIXELS, mpp=0)


def test_loading_methods_without_classifier_have_no_scores(run, tmp_path):
    network = ClassActivationNetwork(tiny_trunk(), 2, seed=0)
    write_model(network, tmp_path / "cam", {**CARD, "method": "cam_average"})
    found = glas_wsol.load(tmp_path / "cam")(PIXELS)
    assert found.class_scores == ClassScores()
    assert sum(found.probabilities) == pytest.approx(1)
    formats = ["png", "png_map", "geojson", "nifti", "tiff", "json", "csv"]
    files = glas_wsol.save(found, tmp_path / "out", formats, undecidable=True)
    assert all(file.is_file() for file in files)
    entry = json.loads((tmp_path / "out" / "json" / "image.json").read_text())
    assert entry["class_scores"] == NO_SCORES


def test_the_alarm_of_the_run_goes_with_every_result(run, tmp_path):
    card = run / "models" / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "alarm": {"score": 0.9, "verdict": "ALARM: look"}}))
    found = glas_wsol.load(run)(PIXELS)
    assert found.provenance.alarm.verdict is Verdict.ALARM
    glas_wsol.save(found, tmp_path / "out", ["json"], overlay=False)
    assert json.loads((tmp_path / "out" / "json" / "image.json").read_text())["alarm"]["score"] == 0.9


@pytest.mark.parametrize(
    "image",
    [
        PIXELS.astype(np.float32) / 255,
        PIXELS[..., :2],
        PIXELS.transpose(2, 0, 1),
        PIXELS[:0],
        torch.zeros(3, 8, 9, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 9),
        torch.full((3, 8, 9), 1.5),
        torch.full((3, 8, 9), float("nan")),
        [[0, 1], [1, 0]],
        None,
        "nowhere.png",
    ],
    ids=str,
)
def test_what_is_no_image_is_refused_in_one_line(run, image):
    with pytest.raises(ImageFileError) as caught:
        glas_wsol.load(run)(image)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_loaded_is_refused_in_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = [
        (tmp_path / "empty", {}, WeightsError, "no trained model"),
        (tmp_path / "none.pt", {}, WeightsError, "no trained model"),
        ([], {}, ConfigError, "no model"),
        (run, {"flip": True}, ConfigError, "no setting named 'flip'.*did you mean flips"),
        (run, {"opinions": True}, ConfigError, "'opinions' has another name now.*give class_scores"),
        (run, {"flips": "up"}, ConfigError, "flips='up'"),
        (run, {"stain": "PAS"}, ConfigError, "stain='PAS'"),
        ([run, run], {}, ConfigError, "the same model as"),
    ]
    for model, settings, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            glas_wsol.load(model, **settings)
        assert isinstance(caught.value, GlasWsolError)
        assert "\n" not in str(caught.value)
    (run / "models" / "model.json").unlink()
    with pytest.raises(WeightsError, match=r"no model\.json beside this model"):
        glas_wsol.load(run)


@pytest.mark.parametrize(
    ("classes", "short_side", "stain"),
    [(["benign", "malignant"], None, "H&E"), (["a", "b"], None, "H&E"), (BIRDS, 500, None)],
)
def test_loading_cards_without_entries_are_read_as_the_bundle(run, classes, short_side, stain, monkeypatch):
    """As ``predict``, which runs the same bundle: its card says what a model of an earlier version does not."""
    network = tiny_network(num_classes=len(classes))
    write_model(network, run / "models", {"method": "minmax", "trunk": "tiny", "classes": classes})
    Image.fromarray(PIXELS).save(run / "tile.png")
    seen = []
    monkeypatch.setattr("glas_wsol.loading.Localizer.__init__", lambda self, config: seen.append(config))
    glas_wsol.load(run)
    planned = plan_inference([run / "tile.png"], [run], run / "out")
    seen.append(ConfigParser())
    seen[1].read_config(str(planned.files[0]))
    seen[1].update(dict(planned.settings))
    for config in seen:
        found = [parsed(config, name) for name in ("scale", "short_side", "stain")]
        assert found == [1.0, short_side, stain]


def test_weights_that_are_not_those_of_the_card_are_refused(run):
    state = torch.load(run / "models" / "model.pt", weights_only=True)
    torch.save({name: values + 1 for name, values in state.items()}, run / "models" / "model.pt")
    with pytest.raises(WeightsError, match=r"not the one that .* beside it describes"):
        glas_wsol.load(run)


def test_the_package_is_imported_without_torch():
    code = "import sys, glas_wsol; assert glas_wsol.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
