# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the flat settings may be: each rule lets its default pass, and says in one line what it refuses and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glas_wsol.checks import _RULES, check_settings
from glas_wsol.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json"))


def looked_at(path: Path) -> dict[str, str]:
    """The settings that a whole config has looked at; none of an overlay."""
    return json.loads(path.read_text()).get("preflight", {}).get("settings", {})


WHOLE = [path for path in CONFIGS if looked_at(path)]


def test_every_run_begins_with_the_look():
    runs = {path: json.loads(path.read_text()).get("run") for path in [*CONFIGS, *ROOT.glob("configs/*/*.json")]}
    assert {path.stem for path in WHOLE} == {"paper", "train", "inference"}
    assert [path for path, run in runs.items() if run and run[0] != "@preflight"] == []


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: "-".join(path.parts[-3:]))
def test_every_flat_setting_with_a_rule_is_looked_at_and_every_default_passes(path):
    content, settings = json.loads(path.read_text()), looked_at(path)
    assert settings == {name: f"@{name}" for name in settings}
    own = (_RULES.keys() | {"device"}) & content.keys() - {"output_dir"}  # which the preflight has by itself
    assert settings.keys() == own - ({"classes"} if "datalist" in content else set())  # those are found, not set
    check_settings({name: value for name, value in content.items() if not str(value).startswith(("$", "@"))})


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
        ({"formats": 3}, "a list of them"),
        ({"classes": "ab"}, "a list of names"),
        ({"device": "gpu"}, "device='gpu' is no device [settings]: give cpu, cuda, or cuda:1"),
        ({"device": None}, "is no device"),
        ({"epochs": 0, "crop_size": "a", "device": "gpu"}, "epochs=0, crop_size='a' [settings]: epochs: a whole"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, words):
    with pytest.raises(ConfigError) as caught:
        check_settings(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"passes": None}, {"short_side": None, "pixel_mean": None}, {"device": "cpu"}, {"mine": object()}, {}]
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
    with pytest.raises(ConfigError, match=words):
        check_settings({"device": device})
