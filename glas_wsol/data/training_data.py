# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Describe the training data of a model, as ``model.json`` records it, and find the size of its images' pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from glas_wsol.data.splits import Datalist
from glas_wsol.errors import DatalistError
from glas_wsol.transforms.pixel_size import ONE_SIZE
from glas_wsol.transforms.reading.spacing import PixelSize, pixel_size

__all__ = ["training_data", "training_mpp"]

_OF_GLAS = {"source": "University of Warwick: one laboratory, one scanner (Zeiss MIRAX MIDI)"}


def training_data(datalist: Datalist) -> dict[str, Any]:
    """Describe the training images of a data set.

    Returns:
        ``name`` of the data set; ``synthetic``: ``"tissue"``, ``"birds"`` or ``"images"`` of drawn ones, else empty;
        ``images`` and ``patients``, how many, the latter None where they are not known or drawn; ``mpp``, width and
        height of a pixel in micrometres, None where they are not known or differ; ``source``, where the images are
        from, empty where that is not known; ``corrected``, of how many images the mask was corrected, where it was of
        any. JSON values.
    """
    items = datalist.select("train")
    patients, sources = ({item[key] for item in items if key in item} for key in ("group", "source"))
    common = _common([one.mpp for one in _sizes(items)])
    return {
        "name": datalist.name,
        "synthetic": datalist.synthetic,
        "images": len(items),
        "patients": len(patients) if patients and not datalist.synthetic else None,
        "mpp": common if common is None else [common, common],
        "source": ", ".join(sorted(sources)),
        **({"corrected": datalist.corrected} if datalist.corrected else {}),
        **(_OF_GLAS if datalist.name == "GlaS" else {}),
    }


def training_mpp(datalist: Datalist, mpp: float | None = None) -> tuple[float | None, list[str]]:
    """The micrometres per pixel that the training images are brought to, before the training's scale.

    Args:
        datalist: has a split ``train``.
        mpp: to bring all images to. Defaults to None: their own, where all have one.

    Returns:
        Micrometres of a pixel, or None where some image's are not known, or they differ: such images are left as they
        are. And sentences on what files say and is not believed, one for each kind, and on sizes that differ.

    Raises:
        DatalistError: if images are to be brought to ``mpp`` and the size of their pixels is not known.
        SplitError: if there is no such split.
    """
    items = datalist.select("train")
    sizes = _sizes(items)
    unknown = [item["name"] for item, size in zip(items, sizes, strict=True) if size.mpp is None]
    doubts = {size.doubt: item["name"] for item, size in reversed([*zip(items, sizes, strict=True)]) if size.doubt}
    said = [f"pixel sizes in files are not believed: {doubt} (such as {name})" for doubt, name in doubts.items()]
    if mpp is not None:
        if unknown:
            what = f"mpp={mpp:g}, and {len(unknown)} of {len(items)} training images have no known pixel size, such as"
            fix = "give a table with a column mpp, or leave mpp out"
            raise DatalistError(datalist.source, [f"{what} {unknown[0]}"], fix)
        return mpp, said
    common = _common([size.mpp for size in sizes])
    if common is None and len(unknown) < len(items):
        which = f"are known of {len(items) - len(unknown)} of {len(items)} only" if unknown else "differ"
        said.append(f"the pixel sizes of training images {which}: they stay as they are, and the model records none")
    return common, said


def _sizes(items: Sequence[Mapping[str, Any]]) -> list[PixelSize]:
    return [PixelSize((item["mpp"],) * 2) if "mpp" in item else pixel_size(item["image"]) for item in items]


def _common(sizes: Sequence[tuple[float, float] | None]) -> float | None:
    """The one size of all pixels, which are square; None where one is not known or they differ by more than 1 %."""
    known = [side for size in sizes if size is not None for side in size]
    if len(known) < 2 * len(sizes):
        return None
    middle = median(known)
    return middle if all(abs(side / middle - 1) <= ONE_SIZE for side in known) else None
