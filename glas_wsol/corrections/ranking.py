# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Rank the images of a run by what a correction of their outlines would probably teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.results.how_to_read import UNLIKE, is_strange
from glas_wsol.transforms.reading import read_rgb
from glas_wsol.utils.csv_files import write_csv
from glas_wsol.utils.json_files import RESULTS, read_json

__all__ = ["Suggestion", "suggest", "write_suggestions"]

_AGAIN = "predict these images again"


@dataclass(frozen=True)
class Suggestion:
    """An image whose outlines are to be corrected.

    Attributes:
        image: its file.
        name: of its files of results.
        uncertainty: mean entropy of ``R+``, in [0, 1].
        familiarity: see :class:`~glas_wsol.results.localization.Localization`; None where not known.
        novelty: how little it looks like those suggested before it, in [0, 1]; 1 of the first.
        why: the three in words.
    """

    image: str
    name: str
    uncertainty: float
    familiarity: float | None
    novelty: float
    why: str


def suggest(results: str | Path, count: int = 5, progress: bool = False) -> tuple[Suggestion, ...]:
    """Choose images one by one: by uncertainty, little familiarity, and difference to those chosen before.

    The three are added as shares of the run's images: of those that are at most as uncertain; half, of those that are
    at least as familiar, where that is known; and the distance to the nearest image chosen, by the mean and spread of
    each colour and by the mask's share, divided by the greatest. Images without evidence are left out: nothing of them
    is decided. No true outline is used.

    Args:
        results: folder that inference or evaluation wrote, with ``predictions.json``.
        count: how many, at least 1; fewer where there are no more.

    Raises:
        ConfigError: if ``count`` is less than 1.
        ImageFileError: if an image cannot be read.
        OutputError: if there are no such results, or none to choose from.
    """
    if count < 1:
        raise ConfigError(f"-n {count}", "suggest", "give 1 or more")
    path = Path(results) / "predictions.json"
    entries = [entry for entry in _entries(path) if entry["evidence"]]
    if not entries:
        raise OutputError("no image has evidence, so there are no outlines to correct", path, "look at its images")
    uncertainty = np.array([entry["uncertainty"] for entry in entries], np.float64)
    familiarity = np.array([np.nan if entry["familiarity"] is None else entry["familiarity"] for entry in entries])
    shares = (uncertainty[:, None] >= uncertainty).mean(axis=1)
    with np.errstate(invalid="ignore"):
        unlike = np.where(np.isnan(familiarity), 0, (familiarity[:, None] <= familiarity).mean(axis=1))
    looks = np.stack([_look(entry) for entry in tqdm(entries, "looking", unit="image", disable=not progress)])
    looks = (looks - looks.mean(axis=0)) / np.maximum(looks.std(axis=0), 1e-6)
    novelty, distance = np.ones(len(entries)), np.full(len(entries), np.inf)
    found: dict[int, Suggestion] = {}
    while len(found) < min(count, len(entries)):
        score = shares + unlike / 2 + novelty
        score[list(found)] = -1
        best = int(score.argmax())  # the first of equal ones
        place = 1 + int((uncertainty > uncertainty[best]).sum())
        said = f"uncertain: {place}. of {len(entries)}" + ("" if not found else f"; new: {novelty[best]:.2f}")
        found[best] = _suggestion(entries[best], float(novelty[best]), said)
        distance = np.minimum(distance, np.linalg.norm(looks - looks[best], axis=1))
        novelty = distance / max(float(distance.max()), 1e-6)
    return tuple(found.values())


def write_suggestions(path: str | Path, suggestions: Sequence[Suggestion]) -> None:
    """Write them as a CSV table, the first to correct on top; its column ``image`` makes it a list of images too."""
    rows = [asdict(one) | {"familiarity": "" if one.familiarity is None else one.familiarity} for one in suggestions]
    write_csv(Path(path), rows)


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        below = sorted(file.parent.name for file in path.parent.glob("*/predictions.json"))
        fix = f"name its folder {below[0]}" if below else "name the folder that predict or evaluate wrote"
        raise OutputError("no results here", path.parent, fix)
    try:
        entries = read_json(path, RESULTS)
        numbers = {"uncertainty": (int, float), "decidable_fraction": (int, float)}
        needed = {"name": str, "path": str, "evidence": bool, **numbers}
        whole = all(isinstance(entry[key], kind) for entry in entries for key, kind in needed.items())
        whole = whole and all(isinstance(entry["familiarity"], (int, float, type(None))) for entry in entries)
    except KeyError as error:
        raise OutputError(f"these results have no {error}: they are of an older version", path, _AGAIN) from error
    except (OSError, ValueError, TypeError) as error:
        raise OutputError("these results cannot be read", path, _AGAIN) from error
    if not whole:
        raise OutputError("an entry is not one that a run writes", path, _AGAIN)
    return entries


def _look(entry: Mapping[str, Any]) -> np.ndarray:
    """Mean and spread of each colour, and the mask's share."""
    pixels = read_rgb(entry["path"])[::4, ::4].reshape(-1, 3) / 255
    return np.array([*pixels.mean(axis=0), *pixels.std(axis=0), float(entry["decidable_fraction"])])


def _suggestion(entry: Mapping[str, Any], novelty: float, said: str) -> Suggestion:
    familiarity = entry["familiarity"]
    strange = f"; {UNLIKE}" if is_strange(familiarity) else ""
    known = "" if familiarity is None else f"; familiarity {100 * familiarity:.0f} %"
    return Suggestion(
        entry["path"], entry["name"], entry["uncertainty"], familiarity, round(novelty, 4), said + (strange or known)
    )
