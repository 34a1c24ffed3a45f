# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Both bundles, trained once per test run on small phantoms; what runs of a second or two are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow
from torch import nn

from glas_wsol.errors import GlasWsolError
from glas_wsol.networks.trunks import TRUNKS, TrunkSpec
from tests.conftest import tiny_trunk

ROOT = Path(__file__).parents[2]
BUNDLES = ("glas_minmax_entropy", "cub5_minmax_entropy")

# A data set, a network and a schedule that are trained in seconds; everything else is the bundle's own.
SMALL: dict[str, Any] = {
    "trunk": "narrow",
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


# Five convolutions in place of a backbone: its weights are drawn, written and read back in no time.
NARROW = TrunkSpec(lambda: nn.Sequential(*tiny_trunk(16).stages), list, 16, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="package", autouse=True)
def narrow_trunk() -> Iterator[None]:
    """A trunk of the name that :data:`SMALL` gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, SMALL["trunk"], NARROW)
        yield


def config(bundle: str, name: str) -> str:
    return str(ROOT / "bundles" / bundle / "configs" / f"{name}.json")


def paper(bundle: str) -> list[str]:
    """The files of the paper's recipe."""
    return [config(bundle, "train"), config(bundle, "paper")]


# A third of the time of a small evaluation; the runs of the bundles' own configs draw it.
_HANDLERS = json.loads(Path(config(BUNDLES[0], "evaluate")).read_text())["validate#handlers"]
_DIAGRAM = [handler["_target_"].split(".")[-1] for handler in _HANDLERS].index("ReliabilityDiagram")
NO_DIAGRAM = {f"validate#handlers#{_DIAGRAM}#_disabled_": True}


def workflow(kind: str, files: list[str], **override: Any) -> ConfigWorkflow:
    """A workflow as `python -m monai.bundle run` makes it."""
    made = ConfigWorkflow(config_file=files, workflow_type=kind, **override)
    made.initialize()
    return made


def own_error(error: BaseException | None) -> GlasWsolError:
    """The project's error, which MONAI wraps."""
    while not isinstance(error, GlasWsolError):
        assert error is not None, "an error of the project's own was expected"
        error = error.__cause__ or error.__context__
    assert "\n" not in str(error)
    return error


@dataclass(frozen=True)
class Run:
    bundle: str
    output: Path
    settings: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.output / "models" / "model.pt"


@pytest.fixture(scope="package", params=BUNDLES)
def trained(request, narrow_trunk, tmp_path_factory) -> Run:
    """One trained run per bundle, of the narrow trunk, which this process alone knows; tests read it only."""
    bundle = request.param
    output = tmp_path_factory.mktemp("trained") / bundle
    settings = {**SMALL, **DATA[bundle], "bundle_root": str(ROOT / "bundles" / bundle)}
    train = workflow("train", paper(bundle), output_dir=str(output), **settings)
    assert train.check_properties() == []
    train.run()
    train.finalize()
    return Run(bundle, output, settings)
