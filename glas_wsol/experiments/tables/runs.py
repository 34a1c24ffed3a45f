# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Finds and reads evaluated runs, and checks that they are complete."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.bundle.methods import UNTRAINED
from glas_wsol.errors import OutputError
from glas_wsol.metrics.measures import Measure
from glas_wsol.utils.json_files import RESULTS, read_json

__all__ = ["EvaluatedRun", "find_runs", "read_run"]

_NUMBER = (int, float)
# What a report must hold to be compared, and as what.
_FACTS: Mapping[str, tuple[type, ...]] = {
    "n": (int,),
    "n_with_masks": (int,),
    "method": (str,),
    "passes": (int, type(None)),
    "supervision": (str,),
    "names_class": (bool,),
    "trunk": (str,),
    "trunk_weights_sha256": (str,),
    "dataset": (str,),
    "synthetic": (bool,),
    "classes": (list,),
    "split": (str,),
    "fold": (str,),
    "fold_seed": (int,),
    "seed": (int, type(None)),
    "images_sha256": (str,),
    "threshold": _NUMBER,
    "threshold_rule": (str,),
    "selection_rule": (str, type(None)),
    "mask_threshold": _NUMBER,
    "recipe": (dict, type(None)),
    "training": (dict, type(None)),
    "measures": (dict,),
}
_TRAINING: Mapping[str, tuple[type, ...]] = {
    "seconds": _NUMBER,
    "cpu_seconds": _NUMBER,
    "epochs": (int,),
    "device": (str,),
    "threads": (int,),
}
_PHANTOMS = {"GlaS": "phantom (synthetic tissue)", "CUB5": "phantom (synthetic birds)"}
_AGAIN = "evaluate this run again"


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """One evaluated run.

    Attributes:
        folder: of the run.
        facts: the content of ``evaluation.json``.
        names: of the images, ``[N]``, sorted.
        rows: by key of the measure, ``[N, k]`` float64 in the order of `names`; NaN for an image not measured.
    """

    folder: Path
    facts: Mapping[str, Any]
    names: np.ndarray
    rows: Mapping[str, np.ndarray]

    @property
    def seed(self) -> int:
        """Seed of the training; 0 where nothing was trained and the report has none."""
        return self.facts["seed"] or 0

    @property
    def fold(self) -> str:
        """The fold; with the seed it was drawn by, where that is not 0, since it is another fold then."""
        seed = self.facts["fold_seed"]
        return f"{self.facts['fold']} (seed {seed})" if seed else self.facts["fold"]


def find_runs(places: Iterable[str | Path]) -> list[Path]:
    """The folders with an ``evaluation.json``, at and below the places, each once, sorted.

    Links are not followed and hidden folders not entered; a place itself may be either.

    Args:
        places: folders of runs, or folders that hold such at any depth.

    Raises:
        OutputError: if a place is no folder, or holds no evaluation.
    """
    found: dict[Path, Path] = {}
    for place in map(Path, places):
        if not place.is_dir():
            raise OutputError("no such folder of runs", place, "name folders that evaluate.json wrote into")
        here = []
        for folder, below, files in os.walk(place, onerror=_refuse):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if "evaluation.json" in files:
                here.append(Path(folder))
        if not here:
            fix = "evaluate a run into it first (bundle, configs/evaluate.json)"
            raise OutputError("no evaluation.json here or below", place, fix)
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return sorted(found.values())


def _refuse(error: OSError) -> None:
    raise OutputError(f"cannot be read ({error.strerror})", error.filename, "check its permissions") from error


def read_run(folder: str | Path, measures: Mapping[str, Measure]) -> EvaluatedRun:
    """Read ``evaluation.json`` and ``evaluation.npz`` and check that they belong together.

    Raises:
        OutputError: if one is missing, damaged, of an older version, or not of the same evaluation as the other.
    """
    folder = Path(folder)
    facts = _facts(folder / "evaluation.json")
    path = folder / "evaluation.npz"
    if not path.is_file():
        fix = f"{_AGAIN}: the values of its images are compared, not only their means"
        raise OutputError("no evaluation.npz beside evaluation.json", folder, fix)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = np.asarray(file["names"])
            rows = {key: np.asarray(file[key], dtype=np.float64) for key in measures if key in file.files}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise OutputError("this evaluation is damaged", path, _AGAIN) from error
    whole = names.ndim == 1 and names.dtype.kind == "U" and len(names) == facts["n"] > 0
    if not whole or len(set(names.tolist())) != len(names) or any(r.shape[:1] != names.shape for r in rows.values()):
        raise OutputError("this evaluation does not have one name and one row per image", path, _AGAIN)
    if any(values.ndim != 2 for values in rows.values()):
        raise OutputError("this evaluation holds rows that are not a table", path, _AGAIN)
    for key, values in rows.items():
        said = (facts["measures"].get(key) or {}).get("value")
        found = float(measures[key].aggregate(values, np.ones((1, len(values))))[0])
        if math.isnan(found) != (said is None) or (said is not None and not math.isclose(found, said, abs_tol=1e-6)):
            what = f"evaluation.json says {key} {said}, the images in evaluation.npz give {found:.6g}"
            raise OutputError(what, folder, _AGAIN)
    order = np.argsort(names, kind="stable")
    return EvaluatedRun(folder, facts, names[order], {key: values[order] for key, values in rows.items()})


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path, RESULTS)
    except (OSError, ValueError) as error:
        raise OutputError("this evaluation is damaged", path, _AGAIN) from error
    if not isinstance(facts, dict):
        raise OutputError("this evaluation is damaged", path, _AGAIN)
    _check(facts, _FACTS, "", path)
    if facts["seed"] is None and facts["supervision"] != UNTRAINED:
        raise OutputError("this evaluation does not say with which seed its model was trained", path, _AGAIN)
    if facts["synthetic"]:  # earlier evaluations name the data set whose layout the phantom has
        facts["dataset"] = _PHANTOMS.get(facts["dataset"], facts["dataset"])
    if facts["training"] is not None:
        _check(facts["training"], _TRAINING, "training ", path)
    return facts


def _check(facts: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], where: str, path: Path) -> None:
    missing = [key for key in kinds if key not in facts]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        what = f"this evaluation does not say {where}{', '.join(missing[:3])}{more}: another version made it"
        raise OutputError(what, path, _AGAIN)
    for key, allowed in kinds.items():
        if not isinstance(facts[key], allowed) or (isinstance(facts[key], bool) and bool not in allowed):
            raise OutputError(f"{where}{key} is {facts[key]!r} in this evaluation", path, _AGAIN)
