# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Prepare mini-batches: image labels only, or true masks for the one method with full supervision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from glas_wsol.errors import ConfigError

__all__ = ["MASK", "ImageLabels", "ImageMasks", "TargetBatch", "moved", "refuse_masks"]

MASK = "mask"
"""Key of the true mask in an item of a data set."""


class TargetBatch(PrepareBatch):
    """Images and targets of one kind; a subclass defines which, and what it refuses."""

    key: str = Keys.LABEL
    """Key of the targets in an item of a data set."""

    def check(self, batchdata: Mapping[str, Tensor]) -> None:
        """Refuse, by a ConfigError, a batch that training must not use, or that lacks the targets."""

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Move images and targets to the device, as plain tensors.

        Args:
            batchdata: ``image`` ``[B, 3, H, W]`` in [0, 1] and the targets under :attr:`key`.

        Raises:
            ConfigError: if the batch is refused, see :meth:`check`.
        """
        self.check(batchdata)
        image, target = (moved(batchdata[key], device, non_blocking, **kwargs) for key in (Keys.IMAGE, self.key))
        return image, target


class ImageLabels(TargetBatch):
    """Images and image labels ``[B]``; a batch that carries true masks is refused, used or not.

    Args:
        metadata: whether images keep their metadata, the size of a pixel among them, which inference at another size
            than the training's needs. Defaults to False: training has brought them to its size.
    """

    def __init__(self, metadata: bool = False) -> None:
        self.metadata = metadata

    def __call__(self, batchdata: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As :meth:`TargetBatch.__call__`."""
        image, target = super().__call__(batchdata, *args, **kwargs)
        given = batchdata[Keys.IMAGE]
        if self.metadata and isinstance(given, MetaTensor):
            image = MetaTensor(image, meta=given.meta)
        return image, target

    def check(self, batchdata: Mapping[str, Tensor]) -> None:
        """Refuse a batch with masks, see :func:`refuse_masks`."""
        refuse_masks(batchdata)


class ImageMasks(TargetBatch):
    """Images, and true masks ``[B, 1, H, W]`` of 0 and 1 (above a threshold) in the images' dtype: full supervision."""

    key = MASK

    def __init__(self, mask_threshold: float = 0) -> None:
        self.mask_threshold = mask_threshold

    def check(self, batchdata: Mapping[str, Tensor]) -> None:
        """Refuse a batch without masks."""
        if MASK not in batchdata:
            raise ConfigError("the training images have no masks", "training batch", "give masks, or another method")

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As :meth:`TargetBatch.__call__`; the masks are thresholded."""
        image, mask = super().__call__(*args, **kwargs)
        return image, (mask > self.mask_threshold).to(image.dtype)


def refuse_masks(batchdata: Mapping[str, Tensor], but: Collection[str] = ()) -> None:
    """Refuse a batch that carries true masks, under whatever key, used or not.

    A method trained from image labels must not be able to read a pixel label by mistake: besides the image, nothing
    in the batch may have the shape of one.

    Args:
        but: keys that may have that shape, because a network predicted them. The true mask's own key is refused even
            then.

    Raises:
        ConfigError: if it carries masks.
    """
    # [B, H, W] has three dimensions, image labels have one, or two where an image may have several.
    known = {Keys.IMAGE, *but}
    shaped = [k for k, v in batchdata.items() if k not in known and isinstance(v, Tensor) and v.ndim > 2]
    if MASK in batchdata or shaped:
        named = f" ({', '.join(map(repr, shaped))})" if shaped and MASK not in batchdata else ""
        what = f"the loader hands out true masks{named}, and this method learns from image labels only"
        raise ConfigError(what, "training batch", "leave masks=True out of the data set's select()")


def moved(values: Tensor, device: str | torch.device | None, non_blocking: bool, **kwargs: Any) -> Tensor:
    """A batch's values on a device, as a plain tensor."""
    # MetaTensor carries __torch_function__ through every operation that follows.
    plain = values.as_tensor() if isinstance(values, MetaTensor) else values
    return plain.to(device=device, non_blocking=non_blocking, **kwargs)
