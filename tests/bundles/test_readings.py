# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The paper as printed and as its authors' code has it: both overlays in both bundles."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from glas_wsol.bundle.command_line import unknown_ids
from tests.bundles.conftest import BUNDLES, DATA, ROOT, SMALL, config, paper, workflow

READINGS = sorted(ROOT.glob("configs/paper/*.json"))
PAGE = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
BY_OVERLAY = {
    "as_printed": {
        "network": {"normalisation": "none", "classifier_scale": 1.0, "classifier_align_corners": False},
        "trainer": {
            "passes": 5,
            "erase_from_epoch": 0,
            "counted": "trusted",
            "permanent_loss_test": True,
            "reuse_dropout": False,
        },
    },
    "as_published_code": {
        "network": {"normalisation": "batch", "classifier_scale": 0.5, "classifier_align_corners": True},
        "trainer": {
            "passes": 4,
            "erase_from_epoch": 1,
            "counted": "all",
            "permanent_loss_test": False,
            "reuse_dropout": True,
        },
    },
}


def reading(name: str, bundle: str, output: Any, *more: str) -> ConfigWorkflow:
    files = [*paper(bundle), str(ROOT / f"configs/paper/{name}.json"), *more]
    given = {**SMALL, **DATA[bundle], "output_dir": str(output), "bundle_root": str(ROOT / "bundles" / bundle)}
    given["crop_size"] = 96  # half of it is more than one position of the last mini-batch, which is of one image
    for own in ("passes", "batch_norm", "short_side"):  # the overlay and paper.json say
        given.pop(own, None)
    return workflow("train", files, **given)


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", BY_OVERLAY)
def test_a_reading_trains_and_is_evaluated_as_it_says(name, bundle, tmp_path):
    run = reading(name, bundle, tmp_path)
    parser: ConfigParser = run.parser
    network, trainer = parser.get_parsed_content("network_def"), parser.get_parsed_content("train#trainer")
    expected = BY_OVERLAY[name]
    assert {key: network.settings()[key] for key in expected["network"]} == expected["network"]
    assert {key: trainer.settings()[key] for key in expected["trainer"]} == expected["trainer"]
    assert network.batch_norm == "batch"
    decayed = [(p.ndim, g["weight_decay"]) for g in trainer.optimizer.param_groups for p in g["params"]]
    assert len(decayed) == len(list(network.parameters()))
    literal = name == "as_printed"
    assert all(decay == (0.0 if literal and ndim == 1 else 1e-5) for ndim, decay in decayed)
    tissue = bundle == "glas_minmax_entropy"
    assert parser.get_parsed_content("rotation") == (0.75 if literal and tissue else 0.0)
    assert parser.get_parsed_content("reflect_fraction") == (0.5 if not literal and tissue else 0.0)
    assert parser.get_parsed_content("short_side") == (None if literal or tissue else 500)
    assert parser.get_parsed_content("selection_ties") == ("loss" if literal else "last")
    run.run()
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert {key: card["network"][key] for key in expected["network"]} == expected["network"]
    reading(name, bundle, tmp_path, config(bundle, "evaluate")).run()
    assert json.loads((tmp_path / "evaluation.json").read_text())["passes"] == expected["trainer"]["passes"]


def test_every_reading_is_tested_and_on_the_page():
    assert {path.stem for path in READINGS} == set(BY_OVERLAY)
    for path in READINGS:
        keys = [key for key in json.loads(path.read_text()) if key != "_desc_"]
        assert all(f"`{key}`" in PAGE for key in keys)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_readings_page_and_config_name_each_other(bundle):
    parser = ConfigParser()
    parser.read_config(paper(bundle))
    assert "docs/differences.md" in parser.config["_desc_"]
    rows = [line.split("|")[5] for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 6]
    named = {match for row in rows for match in re.findall(r"`([a-z_#]+)`", row)}
    values = {"trusted", "all", "alive", "none", "batch", "sample", "erase_from_epoch"}
    assert len(named - values) > 15
    assert unknown_ids(parser, sorted(named - values)) == []
