# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The one result: what the network says of one image. Evaluation measures it, every writer consumes it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.errors import ImageFileError

__all__ = ["THRESHOLD", "Localization", "LocalizePredictiond", "has_evidence"]

THRESHOLD = 0.5
"""Fixed by training (the pseudo-threshold's centre); nothing is tuned on pixel labels."""

# A tile whose 8 x 8 px means differ by less than this (in [0, 1]) shows nothing: glass, or a blank scan with its noise.
# Stained tissue lies well above: 0.093 to 0.305 in the 85 training images of GlaS, 0.071 to 0.342 in 272 of EBHI-Seg.
_LEAST_CONTRAST = 0.02
# The sigmoid's range over a map of no range at all is 0; over any map with a maximum and a minimum it is 0.96.
_LEAST_RANGE = 1e-3


@dataclass(frozen=True)
class Localization:
    """Which pixels decided, and for which class.

    Attributes:
        name: the image's name, unique in its run.
        path: the image's file, empty if it came from memory.
        classes: class names in label order.
        probabilities: ``p(class | X+)`` of the classifier on the decidable region, one per class, sum 1.
        decidable: ``[H, W]`` float32, soft decidable region ``R+`` in [0, 1], at the image's own size.
        evidence: False if the image shows nothing to decide on: its mask is empty and its class is not to be read.
        threshold: of ``decidable``, for the mask.
    """

    name: str
    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    decidable: np.ndarray
    evidence: bool
    threshold: float = THRESHOLD

    @property
    def mask(self) -> np.ndarray:
        """``[H, W]`` bool: the decidable region; empty without evidence."""
        return (self.decidable >= self.threshold) & self.evidence

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return int(np.argmax(self.probabilities))

    @property
    def class_name(self) -> str:
        """Name of the most probable class, or ``"no evidence"``."""
        return self.classes[self.label] if self.evidence else "no evidence"

    @property
    def probability(self) -> float | None:
        """Probability of the most probable class; None without evidence."""
        return self.probabilities[self.label] if self.evidence else None

    @property
    def decidable_fraction(self) -> float:
        """Share of the image in the mask, in [0, 1]."""
        return float(self.mask.mean())


def has_evidence(image: Tensor, decidable: Tensor) -> bool:
    """Whether an image shows anything to decide on.

    A blank image still gets a confident map from any network with padding: its border differs from its middle, and
    the per-image normalisation blows that up. So the image itself must have contrast, and its map a range.

    Args:
        image: ``[3, H, W]``, in [0, 1].
        decidable: ``[H, W]``, in [0, 1].
    """
    if float(decidable.max() - decidable.min()) < _LEAST_RANGE:
        return False
    side = max(1, min(8, min(image.shape[-2:]) // 4))  # of the blocks averaged, against noise
    means = F.avg_pool2d(image.float().unsqueeze(0), kernel_size=side, stride=side, ceil_mode=True)
    return float(means.std(dim=[2, 3], unbiased=False).max()) >= _LEAST_CONTRAST


class LocalizePredictiond(Transform):
    """From the network's tensor to a :class:`Localization`, after each image of an evaluator.

    Reads ``pred`` (``[1 + c, H, W]``, sums to 1 at every pixel), ``image`` (``[3, H, W]`` in [0, 1]) and, where they
    are, ``name`` and ``mask``. Adds ``localization``, ``probabilities`` (``[c]``) and, where there is a mask,
    ``truth`` (``[1, H, W]`` bool) and ``truth_path``.

    Args:
        classes: class names in label order.
        threshold: for the mask. Defaults to 0.5.
        mask_threshold: true masks are foreground above this value: 0 (default) for instance ids as in GlaS, 127 for
            the grey votes of CUB.
    """

    def __init__(self, classes: Sequence[str], threshold: float = THRESHOLD, mask_threshold: float = 0) -> None:
        self.classes = tuple(classes)
        self.threshold = threshold
        self.mask_threshold = mask_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Localize one decollated item."""
        prediction, image = (
            v.as_tensor() if isinstance(v, MetaTensor) else v for v in (data[Keys.PRED], data[Keys.IMAGE])
        )
        meta = data[Keys.IMAGE].meta if isinstance(data[Keys.IMAGE], MetaTensor) else {}
        path = str(meta.get("filename_or_obj", ""))
        decidable = 1 - prediction[0]
        # Channel k is R+ p(k), so the channels' sums have the ratio of the probabilities wherever R+ is not 0.
        mass = prediction[1:].double().sum(dim=(1, 2))
        probabilities = mass / mass.sum() if mass.sum() > 0 else torch.full_like(mass, 1 / len(mass))
        item = dict(data)
        item["probabilities"] = probabilities.float()
        item["localization"] = Localization(
            name=str(data.get("name", Path(path).stem)),
            path=path,
            classes=self.classes,
            probabilities=tuple(probabilities.tolist()),
            decidable=decidable.float().cpu().numpy(),
            evidence=has_evidence(image, decidable),
            threshold=self.threshold,
        )
        if "mask" in data:
            item["truth"] = self._truth(data["mask"], image)
            item["truth_path"] = str(getattr(data["mask"], "meta", {}).get("filename_or_obj", "in memory"))
        return item

    def _truth(self, mask: Tensor, image: Tensor) -> Tensor:
        values = torch.as_tensor(mask)
        path = getattr(mask, "meta", {}).get("filename_or_obj", "mask")
        if values.shape[-2:] != image.shape[-2:]:
            sizes = f"{tuple(values.shape[-2:])}, its image {tuple(image.shape[-2:])}"
            raise ImageFileError(f"the mask's size is {sizes}", path, "give masks of their images' size")
        largest = float(values.max())
        if 0 < largest <= self.mask_threshold:
            what = f"no value of the mask is above mask_threshold={self.mask_threshold}, the largest is {largest:g}"
            raise ImageFileError(what, path, "set mask_threshold=0 for masks of labels or ids")
        return values > self.mask_threshold
