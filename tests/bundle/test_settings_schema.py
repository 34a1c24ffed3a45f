# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the flat settings may be: each rule lets its default pass, and says in one line what it refuses and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from glas_wsol.bundle.settings_schema import SCHEMA, Settings
from glas_wsol.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json"))


def looked_at(path: Path) -> dict[str, str]:
    """The settings that a whole config has looked at; none of an overlay."""
    content = json.loads(path.read_text())
    found = content.get("settings") or content.get("preflight", {}).get("settings", {})
    return {name: value for name, value in found.items() if name != "_target_"}


def check_settings(values: dict[str, Any]) -> None:
    Settings(**values).check()


WHOLE = [path for path in CONFIGS if looked_at(path)]


def test_every_run_begins_with_the_look():
    runs = {path: json.loads(path.read_text()).get("run") for path in [*CONFIGS, *ROOT.glob("configs/*/*.json")]}
    assert {path.stem for path in WHOLE} == {"train", "inference"}
    assert [path for path, run in runs.items() if run and run[0] != "@preflight"] == []


def test_failures_are_told_in_one_line_from_the_start():
    begins = {
        path: json.loads(path.read_text()).get("initialize") for path in [*CONFIGS, *ROOT.glob("configs/*/*.json")]
    }
    begins = {path: begin for path, begin in begins.items() if begin}
    # the references of the preflight are resolved before it runs; the package is found once the path is set
    first = ["$sys.path.append(@bundle_root)", {"_target_": "glas_wsol.bundle.install_excepthook"}]
    assert {path.stem for path in begins} == {"train", "inference", "multi_gpu_train", "multi_gpu_evaluate"}
    assert [path for path, begin in begins.items() if begin[:2] != first] == []


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: "-".join(path.parts[-3:]))
def test_schema_every_flat_setting_is_checked_and_defaults_pass(path):
    content, settings = json.loads(path.read_text()), looked_at(path)
    assert settings == {name: f"@{name}" for name in settings}
    own = SCHEMA.keys() & content.keys() - {"output_dir"}  # which the preflight has by itself
    if path.stem == "train":
        assert own - {"classes"} <= settings.keys()  # those are found, not set
    assert settings.keys() <= content.keys()
    check_settings({name: content[name] for name in settings if not str(content[name]).startswith(("$", "@"))})


def test_every_setting_of_the_schema_is_one_of_a_bundle():
    used = {name for path in WHOLE for name in looked_at(path)} | {"output_dir"}
    assert SCHEMA.keys() <= used


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: "-".join(path.parts[-3:]))
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "gpu", torch.device("cuda", 1)], ids=repr)
def test_schema_on_any_device_computes_dependent_settings(path, device):
    parser = ConfigParser(json.loads(path.read_text()))
    parser["device"] = device
    found = {name: parser.get_parsed_content(name) for name in ("channels_last", "fused") if name in parser}
    check_settings(found)
    if found:
        assert found["fused"] is ("cuda" in str(device))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": -1}, "epochs=-1 [settings]: give a whole number from 1"),
        ({"epochs": True}, "epochs=True"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"num_workers": "two"}, "num_workers='two' [settings]: give a whole number from 0"),
        ({"passes": -1}, "0 for no erasing"),
        ({"seed": 2**32}, "4294967295"),
        ({"resume": "false"}, "resume='false' [settings]: give True or False"),
        ({"overlays": 1}, "True or False"),
        ({"rotation": 1.1}, "from 0 to 1"),
        ({"scale": float("nan")}, "above 0"),
        ({"scale": float("inf")}, "above 0"),
        ({"pixel_mean": [0.5]}, "three numbers"),
        ({"pixel_std": [1, 1, 0]}, "three numbers above 0"),
        ({"output_dir": 2024}, "put ./"),
        ({"ckpt_dir": 3}, "ckpt_dir=3 [settings]: give a path"),
        ({"checkpoint": []}, "checkpoint=[] [settings]: give a path, or a list of paths"),
        ({"split": "none"}, "split='none' [settings]: give train, valid or test"),
        ({"split": 3}, "split=3"),
        ({"method": 3}, "method=3"),
        ({"weights": 3}, "weights=3"),
        ({"cub_classes": 3}, "cub_classes=3 [settings]: give cub5, all or a list of names"),
        ({"phantom": 3}, "phantom=3 [settings]: give seed, train"),
        ({"phantom": {"train": 0}}, "phantom={'train': 0}"),
        ({"phantom": {"size": 3}}, "as --phantom#train 40"),
        ({"phantom": {"trian": 3}}, "phantom={'trian': 3}"),
        ({"phantom": {"confounded": 1}}, "confounded"),
        ({"formats": 3}, "a list of them"),
        ({"classes": "ab"}, "a list of names"),
        ({"device": "gpu"}, "device='gpu' is no device [settings]: give cpu, cuda, or cuda:1"),
        ({"device": None}, "is no device"),
        ({"seed_share": 0.6}, "at most 0.5"),
        ({"seed_softness": "x"}, "from 0 to 1"),
        ({"teachers": {"stain": 0.0}}, "one of them above"),
        ({"teachers": {"stain": -1.0, "components": 2.0}}, "weights from 0"),
        ({"seed_scope": "all"}, "give source, dataset, image or both"),
        ({"selection_ties": "first"}, "give loss or last"),
        ({"stage": "_thrice"}, "_refined for two stages"),
        ({"dropout": 1}, "below 1"),
        ({"decoder_width": 12}, "multiple of 8"),
        ({"device": 0}, "device=0 is no device"),
        ({"data_device": "gpu"}, "data_device='gpu' is no device [settings]"),
        ({"fused": "false"}, "fused='false' [settings]: give True or False"),
        ({"channels_last": 1}, "channels_last=1 [settings]: give True or False"),
        ({"amp_dtype": "float8"}, "amp_dtype='float8' [settings]: give bfloat16 or float16"),
        ({"amp_dtype": []}, "amp_dtype=[]"),
        ({"compiler": False}, "compiler=False [settings]: give null, or the name of a backend"),
        ({"epochs": 0, "crop_size": "a", "device": "gpu"}, "epochs=0, crop_size='a' [settings]: epochs: a whole"),
    ],
)
def test_what_is_not_valid_is_refused_in_one_line(settings, words):
    with pytest.raises(ConfigError) as caught:
        check_settings(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"passes": None},
        {"split": "val", "checkpoint": ["a.pt", "b.pt"], "phantom": {"train": 8, "size": (64, 96), "scale": 0.1}},
        {"short_side": None, "pixel_mean": None},
        {"device": "cpu", "data_device": torch.device("cpu")},
        {"compiler": None, "amp_dtype": "float16", "fused": False},
        {},
    ],
)
def test_what_may_be_passes(settings):
    check_settings(settings)


@pytest.mark.parametrize(
    ("there", "device", "words"),
    [(0, "cuda", "no CUDA device"), (1, "cuda:1", "give cuda"), (3, "cuda:7", "cuda:0 to cuda:2"), (2, "cuda:1", "")],
)
def test_a_cuda_device_must_be_there(monkeypatch: Any, there, device, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if not words:
        check_settings({"device": device})
        return
    for name in ("device", "data_device"):
        with pytest.raises(ConfigError, match=f"{name}=.*{words}"):
            check_settings({name: device})
