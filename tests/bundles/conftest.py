# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Both bundles, trained once per session on small phantoms with a small trunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).parents[2]
BUNDLES = ("glas_minmax_entropy", "cub5_minmax_entropy")

# A data set, a network and a schedule that two cores train in seconds; everything else is the bundle's own.
SMALL: dict[str, Any] = {
    "trunk": "resnet18",
    "weights": "none",
    "epochs": 2,
    "batch_size": 4,
    "crop_size": 64,
    "passes": 2,
    "device": "cpu",
    "batch_norm": "frozen",
    "optimizer#lr": 0.01,
}
PHANTOM = {
    "glas_minmax_entropy": {"seed": 0, "train": 12, "test": 4, "size": [104, 155], "scale": 0.2},
    "cub5_minmax_entropy": {"seed": 0, "train": 20, "test": 5},
}
DATA = {
    "glas_minmax_entropy": {"fold": "stratified-0", "phantom": PHANTOM["glas_minmax_entropy"]},
    "cub5_minmax_entropy": {"fold": "stratified-0", "short_side": 80, "phantom": PHANTOM["cub5_minmax_entropy"]},
}


def config(bundle: str, name: str) -> str:
    return str(ROOT / "bundles" / bundle / "configs" / f"{name}.json")


def workflow(kind: str, files: list[str], **override: Any) -> ConfigWorkflow:
    """A workflow as `python -m monai.bundle run` makes it."""
    made = ConfigWorkflow(config_file=files, workflow_type=kind, **override)
    made.initialize()
    return made


@dataclass(frozen=True)
class Run:
    bundle: str
    output: Path
    settings: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.output / "models" / "model.pt"


@pytest.fixture(scope="session", params=BUNDLES)
def trained(request, tmp_path_factory) -> Run:
    """One trained run per bundle; tests read it and write elsewhere."""
    bundle = request.param
    output = tmp_path_factory.mktemp("trained") / bundle
    settings = {**SMALL, **DATA[bundle], "bundle_root": str(ROOT / "bundles" / bundle)}
    train = workflow("train", [config(bundle, "train")], output_dir=str(output), **settings)
    assert train.check_properties() == []
    train.run()
    train.finalize()
    return Run(bundle, output, settings)
