# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: small networks that run in milliseconds; checkpoints compared; no network for any test."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle.config_item import ComponentLocator
from torch import nn

from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.trunks import Trunk

torch.set_num_threads(1)

OFFLINE = Path(__file__).parent / "offline"
# Before any test is imported, so that every process that one starts is watched too.
REFUSED = Path(tempfile.mkstemp(prefix="refused_", suffix=".txt")[1])
os.environ["GLAS_WSOL_REFUSED_CONNECTIONS"] = str(REFUSED)
os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])])
import tests.offline.sitecustomize  # noqa: E402, F401 - watches this process

_find = ComponentLocator._find_classes_or_functions
_found: dict[tuple[str, ...], dict[str, list]] = {}


def _find_once(self: ComponentLocator, modules: list[str]) -> dict[str, list]:
    """MONAI's table of its own names, which it otherwise makes anew for every config: a tenth of a second each."""
    if (known := tuple(modules)) not in _found:
        _found[known] = _find(self, modules)
    return _found[known]


ComponentLocator._find_classes_or_functions = _find_once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: several processes then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it again and again is a quarter of the time of some tests."""
    gc.collect()
    gc.freeze()


# A handler that the configs of an earlier test made may hold a stream that is closed since.
logging.raiseExceptions = False


def pytest_sessionfinish() -> None:
    """Leave nothing behind."""
    REFUSED.unlink(missing_ok=True)


def watched() -> Iterator[None]:
    """Fail what runs meanwhile if a process of it reached for another machine, whatever became of the refusal."""
    yield
    said = REFUSED.read_text(encoding="utf-8") if REFUSED.is_file() else ""
    if said:
        REFUSED.write_text("")
        pytest.fail(f"the network was reached for: {said}")


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Every test is watched."""
    yield from watched()


def tiny_trunk(channels: int = 8) -> Trunk:
    """Five strided convolutions with batch normalisation: the shape of a real trunk, a thousandth of its work."""

    def stage(source: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(source, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    return Trunk([stage(3)] + [stage(channels) for _ in range(4)], channels, (0.5,) * 3, (0.5,) * 3)


def tiny_network(seed: int = 0, **options: Any) -> MinMaxEntropyNetwork:
    """A min-max entropy network on the tiny trunk, with running statistics that are not those of an untouched layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MinMaxEntropyNetwork(tiny_trunk(), **{"num_classes": 2, "seed": seed, **options})
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.05, 0.2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def same(a: Any, b: Any) -> bool:
    """Whether two checkpoints, or what they are made of, are equal bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Six non-square asymmetric images with labels of both classes, float64."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(6, 3, 96, 64, generator=generator, dtype=torch.float64)
    image[:, :, :20, :30] *= 0.3
    return {"image": image, "label": torch.tensor([0, 1, 0, 1, 1, 0])}
