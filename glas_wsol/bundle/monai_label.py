# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Converts a result into what MONAI Label expects: a label map and parameters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils.enums import CommonKeys as Keys
from monai.utils.enums import MetaKeys

from glas_wsol.errors import ConfigError
from glas_wsol.results.localization import Localization
from glas_wsol.writers.entries import entry_of

__all__ = ["RESULT", "LabelMapd"]

RESULT = "result"
"""Key whose value MONAI Label sends to its client beside the map."""


class LabelMapd(Transform):
    """From a :class:`~glas_wsol.results.Localization` to a map of labels.

    Reads ``localization`` and ``image`` (``[3, H, W]``). Puts the map in the place of ``pred``, ``[W, H]`` uint8: 0
    where nothing decided, 1 + k where the class of index k did, as in the channels of the prediction; 1 throughout the
    mask of a method that names no class. Adds ``result``: the entry of :func:`~glas_wsol.writers.entries.entry_of`.

    The map and, with it, the image have x first, as those of MONAI's own readers of pictures: MONAI Label turns them
    back when it writes them.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Map the labels of one item; a ConfigError where an image may have several classes: a pixel has one label."""
        found: Localization = data["localization"]
        if found.multi_label:
            raise ConfigError("an image of several classes has no map of labels", "MONAI Label", "use predict")
        labels = np.where(found.mask, 1 + (found.label or 0), 0).astype(np.uint8)
        item = {key: value for key, value in data.items() if key not in ("localization", "probabilities")}
        item[Keys.PRED] = torch.from_numpy(np.ascontiguousarray(labels.T))
        image = data[Keys.IMAGE]
        turned = torch.as_tensor(image).transpose(1, 2).contiguous()
        meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
        item[Keys.IMAGE] = MetaTensor(turned, meta={**meta, MetaKeys.SPATIAL_SHAPE: np.asarray(turned.shape[1:])})
        item[RESULT] = {**data.get(RESULT, {}), **entry_of(found)}
        return item
