# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Which configs and settings the short commands stand for; that MONAI's command line reads them back as they were."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from fire.parser import DefaultParseValue

from glas_wsol.bundle.bundle_runs import BundleRun, plan_evaluation, plan_training
from glas_wsol.bundle.overrides import parse_overrides
from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.utils.shipped_bundles import bundle_of

ROOT = Path(__file__).parents[2]
GLAS, CUB = (ROOT / "bundles" / f"{name}_minmax_entropy" for name in ("glas", "cub5"))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "two words",
            "it's",
            'say "it\'s"',
            "$HOME",
            "a,b",
            "2024",
            "[1]",
            "None",
            "1e3",
            "back\\slash",
            "ä",
            "{x: 1}",
        ),
        *("$None", "-3", 3, True, ["png", "it's"], [0.5, 1.0]),
    ],
)
def test_command_is_read_back_as_it_was(value, tmp_path):
    run = BundleRun([tmp_path / "a b.json", tmp_path / "it's.json"], {"x": value})
    words = shlex.split(run.command)
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    assert DefaultParseValue(words[5]) == [str(file) for file in run.files]
    assert DefaultParseValue(words[7]) == value


def test_plan_training_defaults_to_the_recommended_recipe(tmp_path):
    run = plan_training("DATA", "OUT", settings=parse_overrides(["--fold", "patient-0", "--short_side=null"], {}))
    assert run.files == (GLAS / "configs" / "train.json",)
    given = {"dataset_dir": "DATA", "output_dir": "OUT", "fold": "patient-0", "short_side": "$None"}
    assert run.settings == {"bundle_root": str(GLAS), **given}


def test_plan_training_of_another_method_lays_its_overlay_last():
    names = ["train", "paper", "light", "efficientnet_lite0"]
    assert [one.stem for one in plan_training("D", "O", method="cam_avg").files] == [*names, "cam_avg"]
    assert [one.stem for one in plan_training("D", "O", method="refined_4").files] == [*names, "refined_4"]
    paper = plan_training("D", "O", "cub", "wildcat", "paper", ["configs/trunks/resnet18.json"]).files
    assert [one.stem for one in paper] == ["train", "paper", "resnet18", "wildcat"]
    assert paper[0].parent.parent == CUB


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "cam_avgg"}, "did you mean cam_avg"),
        ({"method": "grad_cam"}, "give --method cam_avg"),
        ({"bundle": "nowhere"}, "give glas or cub"),
        ({"settings": {"epochz": "3"}}, "did you mean epochs"),
        ({"overlays": ["nowhere.json"]}, "no such file"),
    ],
)
def test_plan_training_of_what_is_not_there_is_refused(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        plan_training("D", "O", **options)


def test_plan_training_tells_the_word_phantom_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan_training("phantom", "O").settings["dataset_dir"] == "phantom"
    (tmp_path / "phantom").mkdir()
    with pytest.raises(ConfigError, match=r"give \./phantom for the folder"):
        plan_training("phantom", "O")
    assert plan_training("./phantom", "O").settings["dataset_dir"] == "./phantom"


def trained(folder: Path, **record) -> Path:
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").touch()
    card = {"classes": ["benign", "malignant"], "fold": "patient-2", "trunk": "resnet18", "network": {"class": "X"}}
    (folder / "models" / "model.json").write_text(json.dumps({**card, "short_side": None}))
    if record:
        (folder / "training.json").write_text(json.dumps(record))
    return folder


def test_plan_evaluation_takes_settings_of_the_training(tmp_path):
    files = [str(GLAS / "configs" / f"{name}.json") for name in ("train", "paper", "multi_gpu_train")]
    settings = {"dataset_dir": "/a,b", "epochs": 3, "stain": None, "output_dir": "elsewhere"}
    out = trained(tmp_path, config_files=files, settings=settings)
    run = plan_evaluation(str(out), "test", settings={"device": "cpu"})
    assert [one.name for one in run.files] == ["train.json", "paper.json", "evaluate.json"]
    expected = {"dataset_dir": "/a,b", "epochs": 3, "stain": "$None", "split": "test", "device": "cpu"}
    assert run.settings == {**expected, "output_dir": str(out)}
    assert plan_evaluation(str(out), dataset_dir="other").settings["dataset_dir"] == "other"


@pytest.mark.parametrize("record", [{}, {"config_files": ["/gone.json"], "settings": {}}, {"settings": 3}])
def test_plan_evaluation_without_a_record_asks_for_the_data(tmp_path, record):
    out = trained(tmp_path, **record)
    with pytest.raises(ConfigError, match="give --data DATA"):
        plan_evaluation(str(out))
    run = plan_evaluation(str(out), dataset_dir="DATA")
    assert run.files == (GLAS / "configs" / "train.json", GLAS / "configs" / "evaluate.json")
    said = {"trunk": "resnet18", "fold": "patient-2", "short_side": "$None", "dataset_dir": "DATA"}
    assert run.settings == {"bundle_root": str(GLAS), **said, "output_dir": str(out), "split": "valid"}


def test_plan_evaluation_without_a_model_says_to_train(tmp_path):
    with pytest.raises(WeightsError, match=r"no trained model .*: train first"):
        plan_evaluation(str(tmp_path))


def test_bundle_of_classes_that_none_has_is_that_for_tissue():
    assert bundle_of(["x", "y"]) == bundle_of(None) == GLAS
    birds = json.loads((CUB / "configs" / "inference.json").read_text())["card"]["classes"]
    assert bundle_of(birds) == CUB
