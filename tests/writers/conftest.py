# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A folder as an evaluation leaves it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glas_wsol.writers.drawing import write_png


def write_evaluation(
    run: Path,
    items: Mapping[str, Mapping[str, str]],
    masks: Mapping[str, np.ndarray],
    scores: Mapping[str, tuple | None],
    **facts,
) -> Path:
    """Masks of a split, one row per image with (F1+, F1-) or None where there was no truth, and the report.

    Images and true masks lie where `items` say.
    """
    report = {"n": len(scores), "split": "test", "fold": "paper", "seed": 0, **facts}
    (run / report["split"] / "masks").mkdir(parents=True)
    for name, mask in masks.items():
        write_png(run / report["split"] / "masks" / f"{name}.png", mask)
    with (run / "evaluation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label", "predicted", "class", "image", "mask", "f1_foreground", "f1_background"])
        for name, both in scores.items():
            truth = items[name]["mask"] if both else ""
            row = [name, "benign", "malignant", "malignant", items[name]["image"], truth, *(both or ("", ""))]
            writer.writerow(row)
    values = {"classification_error": 0.25, "f1_foreground": 0.5, "f1_background": 0.75}
    report["measures"] = {
        key: {"value": value, "interval": [value - 0.125, value + 0.125], "n": len(scores)}
        for key, value in values.items()
    }
    report["floor"] = {"name": "all-ones", "f1_foreground": 0.375, "f1_background": 0.0}
    (run / "evaluation.json").write_text(json.dumps(report), encoding="utf-8")
    return run
