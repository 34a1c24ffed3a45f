# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Converts a result to a table row, a JSON entry, and one row for each of its boxes."""

from __future__ import annotations

import json
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.results.class_scores import ClassProbabilities
from glas_wsol.results.localization import Localization
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import write_csv
from glas_wsol.utils.labels import SEPARATOR

__all__ = ["BOX_COLUMNS", "box_rows", "entry_of", "row_of", "write_boxes", "write_entry"]

BOX_COLUMNS = ("path", "box", "x", "y", "width", "height", "area_px", "area_um2", "score", "class", "name")
"""Of a table of boxes."""


def row_of(found: Localization) -> dict[str, Any]:
    """The table row of an image: one cell per column, empty where there is no value.

    Returns:
        Columns ``path``, ``class``, ``probability``, ``decidable_fraction``, ``decidable_px``, ``decidable_um2`` (areas
        of the mask), ``uncertainty`` (mean over the image of the entropy of ``R+``, in [0, 1]), ``boxes`` (how many),
        ``decidable_entropy``, ``undecidable_probability`` (of C on the undecidable region, for the class named),
        ``undecidable_entropy`` (normalised, 1 where C is undecided), ``remark`` (what to know of these three, which are
        empty where they mean nothing), ``pixel_size`` (what to know of the size of a pixel; empty where it is known to
        file and model), ``trained_on`` (the model), ``training_run_alarm`` (estimated failure probability of the run
        that trained it), ``familiarity`` (see :class:`~glas_wsol.results.localization.Localization`; empty where not
        known), ``reason`` (why there is no evidence) and ``name``. Several classes of an image are joined by ``;``.
    """
    area = found.square_micrometres(found.decidable_area)
    decidable, undecidable = found.class_scores.regions if found.evidence else (None, None)
    others = () if undecidable is None else [undecidable.probabilities[label] for label in found.labels]
    alarm = found.provenance.alarm if found.provenance else None
    return {
        "path": found.path,
        "class": found.class_name,
        "probability": SEPARATOR.join(f"{p:.6f}" for p in found.named.values()),
        "decidable_fraction": f"{found.decidable_fraction:.6f}",
        "decidable_px": found.decidable_area,
        "decidable_um2": "" if area is None else f"{area:.6g}",
        "uncertainty": f"{found.uncertainty.mean(dtype=np.float64):.6f}",
        "boxes": len(found.boxes),
        "decidable_entropy": "" if decidable is None else f"{decidable.normalised_entropy:.6f}",
        "undecidable_probability": SEPARATOR.join(f"{p:.6f}" for p in others),
        "undecidable_entropy": "" if undecidable is None else f"{undecidable.normalised_entropy:.6f}",
        "remark": found.remark,
        "pixel_size": found.pixel_size_remark,
        "trained_on": found.trained_on,
        "training_run_alarm": ""
        if alarm is None
        else alarm.verdict.value
        if alarm.score is None
        else f"{alarm.score:.6f}",
        "familiarity": "" if found.familiarity is None else f"{found.familiarity:.4g}",
        "reason": found.reason,
        "name": found.name,
    }


def entry_of(found: Localization) -> dict[str, Any]:
    """The JSON entry of an image; null, or an empty text or mapping, where there is no value.

    Returns:
        The columns of the table; the probability of every class; all class scores with their entropies (nats, and
        normalised to [0, 1]), whether those of the two regions are evidence, and a note on them; the familiarity, and
        whether the image is ``unlike_training`` images, null where not known; every box (see
        :class:`~glas_wsol.results.boxes.Box`); ``mpp``, width and height of a pixel in micrometres, ``assumed_mpp``,
        which the network was made to assume where they are null, and ``pixel_size``, what to know of both; and what it
        was made with, if known.
    """
    height, width = found.size
    # without evidence there is no class, and so no probability of one
    known = found.probabilities and found.evidence
    area, rest = found.square_micrometres(found.decidable_area), found.class_scores.undecidable
    return {
        "path": found.path,
        "name": found.name,
        "class": found.class_name,
        "probabilities": _by_class(found, found.probabilities) if known else {},
        "class_scores": {
            who: _scores_entry(found, getattr(found.class_scores, who) if known else None)
            for who in ("localizer", "decidable", "undecidable")
        }
        | {"regions_are_evidence": found.class_scores.knows_mask if known and rest else None, "note": found.remark},
        "decidable_fraction": round(found.decidable_fraction, 6),
        "decidable_px": found.decidable_area,
        "decidable_um2": None if area is None else round(area, 6),
        "uncertainty": round(float(found.uncertainty.mean(dtype=np.float64)), 6),
        "evidence": found.evidence,
        "reason": found.reason,
        "threshold": found.threshold,
        "min_box_area": found.min_box_area,
        "width": width,
        "height": height,
        "boxes": [_box(found, asdict(box)) for box in found.boxes],
        "mpp": None if found.mpp is None else list(found.mpp),
        "assumed_mpp": found.assumed_mpp,
        "pixel_size": found.pixel_size_remark,
        "familiarity": None if found.familiarity is None else float(f"{found.familiarity:.4g}"),
        "unlike_training": found.unlike_training,
        "trained_on": found.trained_on,
        **(found.provenance.entry() if found.provenance else {}),
    }


def box_rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The boxes of an image as :data:`BOX_COLUMNS`, numbered from 1, the largest first; areas are the parts' own."""
    return [
        {
            "path": entry["path"],
            "box": number,
            **{key: box[key] for key in ("x", "y", "width", "height")},
            "area_px": box["area"],
            "area_um2": "" if box["area_um2"] is None else f"{box['area_um2']:.6g}",
            "score": f"{box['score']:.6f}",
            "class": entry["class"],
            "name": entry["name"],
        }
        for number, box in enumerate(entry["boxes"], start=1)
    ]


def write_entry(path: str | PathLike[str], found: Localization) -> None:
    """Write :func:`entry_of` as a JSON file; an OutputError if it cannot be written."""
    with atomic_write(path, "w", newline="\n") as file:
        json.dump(entry_of(found), file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_boxes(path: str | PathLike[str], found: Localization) -> None:
    """Write :func:`box_rows` as a CSV table, without a box only its header; an OutputError if it cannot be written."""
    write_csv(Path(path), box_rows(entry_of(found)), BOX_COLUMNS)


def _by_class(found: Localization, probabilities: tuple[float, ...]) -> dict[str, float]:
    return {name: round(p, 6) for name, p in zip(found.classes, probabilities, strict=True)}


def _scores_entry(found: Localization, scores: ClassProbabilities | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {
        "probabilities": _by_class(found, scores.probabilities),
        "entropy": round(scores.entropy, 6),
        "normalised_entropy": round(scores.normalised_entropy, 6),
    }


def _box(found: Localization, box: dict[str, Any]) -> dict[str, Any]:
    area = found.square_micrometres(box["area"])
    return {**box, "score": round(box["score"], 6), "area_um2": None if area is None else round(area, 6)}
