# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Evaluated runs as an evaluation leaves them, with made-up values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.metrics.measures import MEASURES

SUPERVISION = {"all_ones": "none", "centre_gaussian": "none", "stain": "none", "unet": "pixel labels"}
TRAINED_AS = {"grad_cam": "cam_avg", "grad_cam_pp": "cam_avg"}


def write_run(
    folder: Path,
    rows: Mapping[str, Sequence],
    *,
    names: Sequence[str] | None = None,
    method: str = "cam_avg",
    passes: int | None = None,
    seconds: float | None = 100.0,
    recipe: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Path:
    """One run; `rows` by measure, numbers or rows, one per image."""
    arrays = {key: np.asarray(values, dtype=np.float64) for key, values in rows.items()}
    arrays = {key: a[:, None] if a.ndim == 1 else a for key, a in arrays.items()}
    n = len(next(iter(arrays.values())))
    names = [f"image_{i}" for i in range(n)] if names is None else list(names)
    supervision = SUPERVISION.get(method, "image labels")
    learns = supervision != "none"
    said = {
        "n": n,
        "n_with_masks": n,
        "method": method,
        "passes": passes,
        "supervision": supervision,
        "names_class": supervision == "image labels",
        "trunk": "resnet18" if learns else "none",
        "trunk_weights_sha256": "ab" * 32 if learns else "",
        "dataset": "GlaS",
        "synthetic": False,
        "classes": ["benign", "malignant"],
        "split": "test",
        "fold": "paper",
        "fold_seed": 0,
        "seed": 0,
        "images_sha256": hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest(),
        "threshold": 0.5,
        "threshold_rule": "fixed",
        "selection_rule": "fewest validation errors" if learns else None,
        "mask_threshold": 0,
        "training": None,
        **facts,
    }
    settings = {"epochs": 10, "crop_size": 256, "seed": said["seed"], "fold": said["fold"], "training_images": "x"}
    said["recipe"] = {**settings, **(recipe or {})} if learns else None
    if learns and method not in TRAINED_AS and seconds is not None and said["training"] is None:
        epochs = said["recipe"]["epochs"]
        said["training"] = {"seconds": seconds, "cpu_seconds": 2 * seconds, "epochs": epochs}
        said["training"] |= {"device": "cpu", "threads": 2}
    values = {key: float(MEASURES[key].aggregate(a, np.ones((1, n)))[0]) for key, a in arrays.items()}
    said["measures"] = {
        key: {"value": None if np.isnan(value) else value, "interval": None, "n": n} for key, value in values.items()
    }
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(said), encoding="utf-8")
    np.savez_compressed(folder / "evaluation.npz", names=np.asarray(names), **arrays)
    return folder


def change(folder: Path, **facts: Any) -> Path:
    """Edit a run's report."""
    path = folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return folder


# Mean of F1+, of F1- and of p(label) for each row of a study.
_QUALITY = {
    ("all_ones", None): (0.66, 0.0, 0.5),
    ("centre_gaussian", None): (0.58, 0.31, 0.5),
    ("stain", None): (0.63, 0.48, 0.5),
    ("cam_avg", None): (0.66, 0.24, 0.9),
    ("cam_max", None): (0.60, 0.41, 0.85),
    ("cam_lse", None): (0.64, 0.33, 0.88),
    ("grad_cam", None): (0.65, 0.26, 0.9),
    ("grad_cam_pp", None): (0.66, 0.25, 0.9),
    ("wildcat", None): (0.65, 0.30, 0.9),
    ("deep_mil", None): (0.67, 0.47, 0.8),
    ("minmax", 0): (0.45, 0.62, 0.88),
    ("minmax", 4): (0.71, 0.64, 0.9),
    ("unet", None): (0.88, 0.85, 0.5),
}


def write_study(
    root: Path, n: int = 30, seeds: Sequence[int] = (0, 1, 2), folds: Sequence[str] = ("paper",), **facts: Any
) -> Path:
    """Thirteen rows with every measure; an easy image is easy for all rows."""
    for fold in folds:
        names = [f"{fold}_{i}" for i in range(n)]
        ease = np.random.default_rng(sum(map(ord, fold))).normal(0, 0.08, n)
        labels = np.arange(n) % 2
        for number, ((method, passes), (plus, minus, sure)) in enumerate(_QUALITY.items()):
            for seed in seeds if SUPERVISION.get(method) != "none" else (0,):
                rng = np.random.default_rng([number, seed])
                shift = rng.normal(0, 0.015)

                def drawn(mean, rng=rng, shift=shift, ease=ease):
                    return np.clip(mean + shift + ease + rng.normal(0, 0.05, n), 0, 1) if mean else np.zeros(n)

                p = np.clip(rng.normal(sure, 0.25, n), 0.01, 0.99)
                f_plus, f_minus = drawn(plus), drawn(minus)
                pixels = 1000 * np.stack([1 - f_plus, f_plus, f_minus, 1 - f_minus], axis=1)
                hits = rng.random((n, 3)) < f_plus[:, None] - np.array([0.1, 0.3, 0.5])
                found = np.round(10 * f_plus)
                areas = np.stack([300 * f_plus, np.full(n, 300.0), 320 * f_plus, np.full(n, 320.0)], axis=1)
                rows = {
                    "f1_foreground": f_plus,
                    "f1_background": f_minus,
                    "pixel_average_precision": pixels,
                    "object_f1": np.stack([found, 10 - found, 12 - found], axis=1),
                    "object_dice": areas,
                    "object_hausdorff": np.stack(
                        [3e4 * (1.1 - f_plus), areas[:, 1], 3e4 * (1.1 - f_plus), areas[:, 3]], axis=1
                    ),
                    "box_accuracy": hits,
                    "max_box_accuracy": np.concatenate([hits, hits | (rng.random((n, 3)) < 0.1)], axis=1),
                    "oracle_f1_foreground": np.stack([f_plus, f_minus, f_plus + 0.02, f_minus + 0.01], axis=1),
                    "oracle_f1_background": np.stack([f_plus, f_minus, f_plus + 0.02, f_minus + 0.01], axis=1),
                }
                if SUPERVISION.get(method, "image labels") == "image labels":
                    wrong = p < 0.5
                    both = np.where(labels[:, None] == np.arange(2), p[:, None], 1 - p[:, None])
                    rows |= {
                        "classification_error": wrong,
                        "balanced_error": np.stack([labels, wrong], axis=1),
                        "roc_auc": np.concatenate([labels[:, None], both], axis=1),
                        "calibration_error": np.stack([both.max(axis=1), ~wrong], axis=1),
                    }
                own = {"pooling": method} if method != "unet" else {"skip": True}
                if method == "minmax":
                    own = {"passes": passes, "omega": 8.0, "epochs": 12}
                write_run(
                    root / f"{method}{'' if passes is None else f'_{passes}'}" / f"seed{seed}_{fold}",
                    rows,
                    names=names,
                    method=method,
                    passes=passes,
                    seed=seed,
                    fold=fold,
                    seconds=float(rng.uniform(90, 110)) * (2.1 if passes == 4 else 1),
                    recipe={"pooling": TRAINED_AS.get(method, method), **own}
                    if method not in ("unet", "minmax")
                    else own,
                    **facts,
                )
    return root
