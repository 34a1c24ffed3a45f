# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Evaluated runs as the evaluation leaves them, without any evaluation."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.bundle.methods import METHODS, UNTRAINED
from glas_wsol.writers.drawing import write_png


def write_run(
    folder: Path, items: list[dict[str, Any]], masks: Mapping[str, np.ndarray], classes: tuple[str, ...], **facts: Any
) -> Path:
    """One run: report, values, table and masks.

    Args:
        folder: is made.
        items: of the split, as a datalist selects them with masks.
        masks: by name, ``[H, W]`` bool.
        classes: in label order.
        **facts: of ``evaluation.json``, instead of those of CAM-Avg on the test split of GlaS.
    """
    method = facts.get("method", "cam_avg")
    supervision = METHODS[method].supervision if method in METHODS else "image labels"
    trained = supervision != UNTRAINED
    names = [item["name"] for item in items]
    report = {
        "n": len(items),
        "n_with_masks": sum("mask" in item for item in items),
        "n_without_evidence": 0,
        "method": method,
        "passes": None,
        "supervision": supervision,
        "names_class": supervision == "image labels",
        "trunk": "efficientnet_lite0" if trained else "none",
        "trunk_weights_sha256": "ab" * 32 if trained else "",
        "dataset": "GlaS",
        "synthetic": True,
        "classes": list(classes),
        "split": "test",
        "fold": "paper",
        "fold_seed": 0,
        "seed": 0,
        "images_sha256": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "threshold": 0.5,
        "threshold_rule": "fixed by the method, not tuned",
        "selection_rule": "lowest validation error" if trained else None,
        "mask_threshold": 0,
        "recipe": {"epochs": 2, "seed": facts.get("seed", 0)} if trained else None,
        "training": None,
        "measures": {},
        **facts,
    }
    (folder / report["split"] / "masks").mkdir(parents=True)
    for name, mask in masks.items():
        write_png(folder / report["split"] / "masks" / f"{name}.png", mask)
    (folder / "evaluation.json").write_text(json.dumps(report), encoding="utf-8")
    np.savez_compressed(folder / "evaluation.npz", names=np.array(names))
    with (folder / "evaluation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label", "predicted", "image", "mask"])
        for item in items:
            label = classes[item["label"]]
            writer.writerow([item["name"], label, label, item["image"], item.get("mask", "")])
    return folder
