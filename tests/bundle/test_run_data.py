# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A config that is only read draws nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from glas_wsol.data.cub import CUB5_CLASSES
from glas_wsol.errors import GlasWsolError

ROOT = Path(__file__).parents[2]
SMALL = {"train": 12, "test": 2, "size": [64, 97], "scale": 0.15}


def opened(bundle: str, folder: Path, **settings) -> ConfigWorkflow:
    file = ROOT / "bundles" / bundle / "configs" / "paper.json"
    given = {"trunk": "resnet18", "weights": "none", "fold": "stratified-0", "output_dir": str(folder)}
    made = ConfigWorkflow(config_file=str(file), **given, **settings)
    made.initialize()
    return made


def test_a_network_is_built_before_the_phantom_is_drawn(tmp_path):
    workflow = opened("glas_minmax_entropy", tmp_path, phantom={**SMALL, "seed": 0, "confounded": False})
    assert workflow.network_def.num_classes == 2
    assert list(tmp_path.iterdir()) == []
    datalist = workflow.parser.get_parsed_content("datalist")
    assert (datalist.name, len(datalist.select("test"))) == ("phantom (synthetic tissue)", 2)
    assert (tmp_path / "phantom" / "phantom.json").is_file()


def test_the_birds_phantom_has_the_papers_classes(tmp_path):
    workflow = opened("cub5_minmax_entropy", tmp_path)
    assert workflow.parser.get_parsed_content("classes") == CUB5_CLASSES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dataset_dir", [None, "", "None", "null"])
def test_no_data_set_is_never_the_phantom(tmp_path, dataset_dir):
    workflow = opened("glas_minmax_entropy", tmp_path)
    workflow.parser["dataset_dir"] = dataset_dir
    workflow.initialize()
    with pytest.raises(RuntimeError) as caught:
        workflow.parser.get_parsed_content("datalist")
    assert "no such data set" in str(GlasWsolError.behind(caught.value))


def test_the_phantom_s_options_are_still_checked(tmp_path):
    workflow = opened("glas_minmax_entropy", tmp_path, phantom={**SMALL, "test": -1})
    datalist = workflow.parser.get_parsed_content("datalist")
    with pytest.raises(GlasWsolError, match="test is -1"):
        datalist.select("train")
    assert json.dumps(datalist.classes)
