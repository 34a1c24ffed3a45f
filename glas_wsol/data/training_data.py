# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Describe the training data of a model, as ``model.json`` records it."""

from __future__ import annotations

from typing import Any

from glas_wsol.data.splits import Datalist
from glas_wsol.transforms.reading.spacing import pixel_size

__all__ = ["training_data"]

_OF_GLAS = {"mpp": [0.62, 0.62], "source": "University of Warwick: one laboratory, one scanner (Zeiss MIRAX MIDI)"}


def training_data(datalist: Datalist) -> dict[str, Any]:
    """Describe the training images of a data set.

    Returns:
        ``name`` of the data set; ``synthetic``: ``"tissue"``, ``"birds"`` or ``"images"`` of drawn ones, else empty;
        ``images`` and ``patients``, how many, the latter None where they are not known or drawn; ``mpp``, width and
        height of a pixel in micrometres, None where they are not known or differ; ``source``, where the images are
        from, empty where that is not known. JSON values.
    """
    items = datalist.select("train")
    patients = {item["group"] for item in items if "group" in item}
    sizes = {pixel_size(item["image"]) for item in items}
    size = sizes.pop() if len(sizes) == 1 else None
    return {
        "name": datalist.name,
        "synthetic": datalist.synthetic,
        "images": len(items),
        "patients": len(patients) if patients and not datalist.synthetic else None,
        "mpp": None if size is None else list(size),
        "source": "",
        **(_OF_GLAS if datalist.name == "GlaS" else {}),
    }
