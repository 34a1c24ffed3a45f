# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Items as postprocessing leaves them, and what an evaluation of them leaves on disk."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events

from glas_wsol.metrics import ClassificationError
from glas_wsol.results.localization import Localization
from tests.metrics.conftest import evaluate

CLASSES = ("benign", "malignant")


def item(name: str, p: float, label: int, *, truth: bool = True, evidence: bool = True, size=(40, 70), **more) -> dict:
    """A tile whose upper left quarter is decidable and, where there is a truth, whose left half is gland."""
    decidable = np.full(size, 0.125, np.float32)
    decidable[: size[0] // 2, : size[1] // 2] = 0.875
    classes = more.pop("classes", CLASSES)
    image = torch.linspace(0, 1, 3 * size[0] * size[1]).view(3, *size)
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    found = Localization(name, f"tiles/{name}.bmp", classes, (1 - p, p), decidable, evidence, image=pixels)
    made = {
        "image": image,
        "label": torch.tensor(label),
        "localization": found,
        "probabilities": torch.tensor([1 - p, p]),
    }
    if truth:
        made["truth"] = torch.zeros(1, *size, dtype=torch.bool)
        made["truth"][..., : size[1] // 2] = True
        made["truth_path"] = f"masks/{name}.png"
    return made


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def left(folder: Path) -> set[str]:
    """Files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class BrokenOffError(Exception):
    pass


def broken_off(tmp_path: Path, handler: Any) -> None:
    """An evaluation of one image that ends before its first batch is through."""

    class Breaks:
        def attach(self, engine):
            def stop(_):
                raise BrokenOffError

            engine.add_event_handler(Events.ITERATION_STARTED, stop)

    with pytest.raises(BrokenOffError):
        evaluate({"e": ClassificationError()}, [[item("c", 0.75, 1)]], [handler, Breaks()])
