# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Reads the images of a run from its tables, as one frozen value each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glas_wsol.errors import OutputError
from glas_wsol.results.how_to_read import is_strange
from glas_wsol.utils.csv_files import read_table

__all__ = ["AGAIN", "Case", "ClassProbabilities", "number", "read_cases", "read_failures", "read_slides"]

AGAIN = "run the command that wrote it again"

# Sources of class scores in predictions.json, and their part of the image. Not every method has them.
_PARTS = {"localizer": "image", "decidable": "decidable", "undecidable": "undecidable"}


@dataclass(frozen=True)
class ClassProbabilities:
    """Class scores of the model for a part of the image.

    Attributes:
        probabilities: of every class, in label order, each in [0, 1].
        entropy: in nats; None where it is not known.
        share: the entropy as a share of the largest it can be, in [0, 1]; None where it is not known.
    """

    probabilities: Mapping[str, float]
    entropy: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Case:
    """One image: its result, its files, and the truth where that is known.

    Attributes:
        name: unique in its run.
        said: the class or classes named, or ``"no evidence"``; empty where the method names none, or nothing was found.
        probability: of the most probable class named, in [0, 1]; None where none is.
        probabilities: of every class; empty without evidence and where the method names no class.
        class_scores: by part of the image: ``"image"``, ``"decidable"``, ``"undecidable"``; those that are known, and
            evidence.
        unknown_mask: whether those of the regions were left out, being no evidence.
        note: remark on the scores of the regions.
        familiarity: how much it looks like the training images, in [0, 1]; None where not known.
        decidable: share of the image in the mask, in [0, 1]; None of an image that failed.
        regions: boxes of the mask; None of an image that failed.
        evidence: False if the image shows nothing to decide on.
        reason: why not, or why it failed; empty otherwise.
        failed: whether there is no result of it.
        pixel_size: what to know of the size of its pixels; empty where it is known.
        size: width and height in pixels; None where unknown.
        mask: its mask's file; None where none is there.
        overlay: its overlay's file; None where none is there.
        truth: its class or classes by the datalist; empty where unknown.
        predicted: the class or classes most probable, with evidence or without; empty where there is no truth either.
        outlines: its true mask's file; None where there is none.
        scores: figures of this image alone, such as its F1+, by key.
        uncertainty: mean entropy of ``R+``, in [0, 1]; None where not known.
        mpp: width and height of a pixel in micrometres; None where unknown.
        threshold: of the mask.
        slide: the slide's own file, of which ``image`` is a thumbnail; empty of a tile.
    """

    name: str
    image: str
    said: str = ""
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    class_scores: Mapping[str, ClassProbabilities] = field(default_factory=dict)
    unknown_mask: bool = False
    note: str = ""
    familiarity: float | None = None
    decidable: float | None = None
    regions: int | None = None
    evidence: bool = True
    reason: str = ""
    fix: str = ""
    failed: bool = False
    pixel_size: str = ""
    size: tuple[int, int] | None = None
    mask: Path | None = None
    overlay: Path | None = None
    truth: str = ""
    predicted: str = ""
    outlines: Path | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    uncertainty: float | None = None
    mpp: tuple[float, float] | None = None
    threshold: float = 0.5
    slide: str = ""

    @property
    def named(self) -> Mapping[str, float]:
        """:attr:`probabilities`; empty where they are those of a part."""
        return (
            {}
            if self.probabilities in [one.probabilities for one in self.class_scores.values()]
            else self.probabilities
        )

    @property
    def strange(self) -> bool | None:
        """Whether the image is unlike the training images; None where not known."""
        return is_strange(self.familiarity)

    @property
    def wrong(self) -> bool | None:
        """Whether another class was named than the true one, evidence or not; None where either is unknown."""
        return self.truth != self.predicted if self.truth and self.predicted else None


def number(value: Any) -> float | None:
    """A finite number, or None of anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def read_cases(entries: Sequence[Any], folder: Path, rows: Iterable[Mapping[str, str]] = ()) -> tuple[Case, ...]:
    """The images of ``predictions.json``, each with its row of ``evaluation.csv`` if there is one.

    Args:
        folder: of the table; masks and overlays are below it.

    Raises:
        OutputError: if an entry is not one that a run writes.
    """
    known = {row.get("name", ""): row for row in rows}
    try:
        return tuple(_case(entry, folder, known.get(entry["name"], {})) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError("an entry is not one that a run writes", folder / "predictions.json", AGAIN) from error


def _case(entry: Mapping[str, Any], folder: Path, row: Mapping[str, str]) -> Case:
    name, evidence = str(entry["name"]), bool(entry.get("evidence", True))
    probabilities = _probabilities(entry.get("probabilities")) if evidence else {}
    said = str(entry.get("class", ""))
    named = [probabilities[one] for one in said.split(";") if one in probabilities]
    width, height = number(entry.get("width")), number(entry.get("height"))
    regions = dict(entry.get("class_scores") or {}) if evidence else {}
    scores = {key: number(row.get(key)) for key in ("f1_foreground", "f1_background")}
    return Case(
        name=name,
        image=str(entry["path"]),
        said=said,
        probability=max(named, default=max(probabilities.values(), default=None)),
        probabilities=probabilities,
        class_scores=_class_scores(regions),
        unknown_mask=regions.get("regions_are_evidence") is False and bool(regions.get("undecidable")),
        note=str(regions.get("note") or ""),
        familiarity=number(entry.get("familiarity")),
        decidable=number(entry["decidable_fraction"]),
        regions=len(entry.get("boxes") or ()),
        evidence=evidence,
        reason=str(entry.get("reason") or ""),
        pixel_size=str(entry.get("pixel_size") or ""),
        size=(int(width), int(height)) if width and height else None,
        mask=_inside(folder, name, "masks", (".png", ".tif")),
        overlay=_inside(folder, name, "overlays", (".png",)),
        truth=row.get("label", ""),
        predicted=row.get("predicted", ""),
        outlines=Path(row["mask"]) if row.get("mask") else None,
        scores={key: value for key, value in scores.items() if value is not None},
        uncertainty=number(entry.get("uncertainty")),
        **_common(entry),
    )


def _common(entry: Mapping[str, Any]) -> dict[str, Any]:
    mpp = tuple(map(number, entry.get("mpp") or ()))
    return {"mpp": mpp if len(mpp) == 2 and None not in mpp else None, "threshold": float(entry.get("threshold", 0.5))}


def read_slides(entries: Sequence[Any], folder: Path) -> tuple[Case, ...]:
    """The slides of ``slides.json``, each shown by its thumbnail.

    Raises:
        OutputError: if an entry is not one that a run writes.
    """
    try:
        return tuple(_slide(entry, folder / "slides") for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError("an entry is not one that a run writes", folder / "slides.json", AGAIN) from error


def _slide(entry: Mapping[str, Any], folder: Path) -> Case:
    name = str(entry["name"])
    shown = name if name == Path(name).name else ""
    files = {kind: _inside(folder, kind, shown, (".png",)) for kind in ("thumbnail", "thumbnail_mask", "overlay")}
    # of the decidable area; a slide has no probability, as none was calibrated
    shares = ", ".join(f"{one} {100 * float(share):.0f} %" for one, share in dict(entry["class_shares"]).items())
    area = f"{float(entry['tissue_mm2']):.3g} mm2 of tissue, {float(entry['decidable_mm2']):.3g} mm2 decidable"
    return Case(
        name=name,
        image=str(files["thumbnail"] or entry["path"]),
        said=str(entry["class"]),
        decidable=number(entry["decidable_fraction"]),
        regions=int(entry["parts"]),
        evidence=bool(entry["evidence"]),
        reason=str(entry["reason"]),
        pixel_size=f"slide: {area}" + (f" ({shares})" if shares else ""),
        size=(int(entry["width"]), int(entry["height"])),
        mask=files["thumbnail_mask"],
        overlay=files["overlay"],
        slide=str(entry["path"]),
        **_common(entry),
    )


def _probabilities(values: Any) -> dict[str, float]:
    return {str(name): float(p) for name, p in dict(values or {}).items()}


def _class_scores(said: Mapping[str, Any]) -> dict[str, ClassProbabilities]:
    found = {}
    for who, part in _PARTS.items():
        one = said.get(who)
        evident = who == "localizer" or said.get("regions_are_evidence", True)
        if evident and one and one.get("probabilities"):
            entropy, share = number(one.get("entropy")), number(one.get("normalised_entropy"))
            found[part] = ClassProbabilities(_probabilities(one["probabilities"]), entropy, share)
    return found


def _inside(folder: Path, name: str, kind: str, suffixes: Sequence[str]) -> Path | None:
    """The image's file of some kind; a name that somebody edited must not reach out of the folder."""
    if not name or name != Path(name).name:
        return None
    paths = (folder / kind / f"{name}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def read_failures(path: Path) -> tuple[Case, ...]:
    """The images of ``failed.csv``, none without such a file; an OutputError if it cannot be read."""
    if not path.is_file():
        return ()
    return tuple(
        Case(
            name=Path(row.get("image", "")).name or row.get("image", ""),
            image=row.get("image", ""),
            reason=f"{row.get('stage', '')}: {row.get('what', '')}",
            fix=row.get("fix", ""),
            failed=True,
            evidence=False,
        )
        for row in read_table(path, fix=AGAIN)[1]
    )
