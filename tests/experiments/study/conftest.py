# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A tiny data set, a request of a few rows, and children that only pretend to train."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.experiments.study import Request
from glas_wsol.experiments.study import image_sets as images
from glas_wsol.experiments.study.run_study import run_study
from glas_wsol.networks.trunks import Trunk, build_trunk

ROOT = Path(__file__).parents[3]
OVERLAYS = ("configs/data/light.json", "configs/trunks/resnet18.json")


@functools.cache
def _random_trunk(name: str) -> Trunk:
    return build_trunk(name, "none")


@pytest.fixture(autouse=True)
def _trunks_without_weights_are_built_once(monkeypatch):
    real = images.build_trunk
    once = lambda name, weights: _random_trunk(name) if weights == "none" else real(name, weights)  # noqa: E731
    monkeypatch.setattr(images, "build_trunk", once)


@pytest.fixture(scope="session")
def tissue(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("the data") / "tissue"
    return write_tissue_phantom(folder, train=12, test=4, size=(64, 72), scale=0.15, workers=1)


@pytest.fixture
def request_of(tissue, tmp_path):
    """Makes a request; without changes: two seeds of one row."""

    def make(**changes: Any) -> Request:
        asked: dict[str, Any] = {
            "output": tmp_path / "a study",
            "bundle": ROOT / "bundles" / "glas_minmax_entropy",
            "overlays": OVERLAYS,
            "methods": ["cam_max"],
            "seeds": [0, 1],
            "folds": ["stratified-0"],
            "dataset_dir": str(tissue),
            "overrides": {},
        }
        asked |= changes
        asked["overrides"] = {"weights": "none", **asked["overrides"]}
        return Request(**asked)

    return make


def option(command: Sequence[str], name: str) -> str:
    return command[list(command).index(f"--{name}") + 1]


@dataclass
class Pretend:
    """Children that write what a run would, and fail where they are told to."""

    failing: set[str] = field(default_factory=set)  # METHOD/FOLD_seed_SEED
    commands: list[tuple[str, ...]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    stops: int = 0
    guard: Any = field(default_factory=threading.Lock)

    def __call__(self, command: Sequence[str], log: IO[bytes]) -> int:
        with self.guard:
            self.commands.append(tuple(command))
        folder = Path(option(command, "output_dir"))
        log.write(b"MONAI's greeting\nepoch 1: 50 %\repoch 1: 100 %\n")
        if self.name(command) in self.failing:
            log.write(b"error: the disk is full [model.pt]: make room\nbye\n")
            return 1
        if "--split" not in command:
            (folder / "models").mkdir(exist_ok=True)
            (folder / "models" / "model.pt").write_text("weights")
            return 0
        values = {"classification_error": {"value": 0.25}, "f1_foreground": {"value": 0.5}}
        values["f1_background"] = {"value": None}
        (folder / "evaluation.json").write_text(json.dumps({"measures": values}))
        (folder / "evaluation.npz").write_bytes(b"methods")
        return 0

    def stop(self) -> None:
        self.stops += 1

    @staticmethod
    def name(command: Sequence[str]) -> str:
        return "/".join(Path(option(command, "output_dir")).parts[-2:])

    @property
    def trained(self) -> list[str]:
        return [self.name(command) for command in self.commands if "--split" not in command]

    @property
    def evaluated(self) -> list[str]:
        return [self.name(command) for command in self.commands if "--split" in command]


def pretend(request: Request, failing: Sequence[str] = (), **options: Any) -> Pretend:
    """Conduct a study with children that pretend; what they were told, also where the study failed: ``error``."""
    made = Pretend(set(failing))

    def children(variables: Mapping[str, str], inherited: Sequence[int]) -> Pretend:
        made.variables = dict(variables)
        return made

    run_study(request, children=children, **options)
    return made
