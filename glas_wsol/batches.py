# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a training step may see of a mini-batch: image labels, or masks for the one row with full supervision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from glas_wsol.errors import ConfigError

__all__ = ["MASK", "ImageLabels", "ImageMasks", "moved"]

MASK = "mask"
"""Key of the true mask in an item of a data set."""


class ImageLabels(PrepareBatch):
    """Images and image labels; a batch that carries true masks is refused, used or not.

    A method that learns from image labels must not be able to read a pixel label by mistake: besides the image, nothing
    in the batch may have the shape of one, under whatever key.
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Move images and labels to the device, as plain tensors.

        Args:
            batchdata: ``image`` ``[B, 3, H, W]`` in [0, 1] and ``label`` ``[B]``.
            device: where to.
            non_blocking: see ``Tensor.to``.
            kwargs: further arguments of ``Tensor.to``.

        Returns:
            Images and labels.

        Raises:
            ConfigError: if the batch carries masks.
        """
        # [B, H, W] has three dimensions, image labels have one, or two where an image may have several.
        shaped = [k for k, v in batchdata.items() if k != Keys.IMAGE and isinstance(v, Tensor) and v.ndim > 2]
        if MASK in batchdata or shaped:
            named = f" ({', '.join(map(repr, shaped))})" if shaped and MASK not in batchdata else ""
            what = f"the loader hands out true masks{named}, and this method learns from image labels only"
            raise ConfigError(what, "training batch", "leave masks=True out of the data set's select()")
        image, label = (moved(batchdata[key], device, non_blocking, **kwargs) for key in (Keys.IMAGE, Keys.LABEL))
        return image, label


class ImageMasks(PrepareBatch):
    """Images and binary true masks: full supervision.

    Args:
        mask_threshold: a mask is foreground above this value. Defaults to 0.
    """

    def __init__(self, mask_threshold: float = 0) -> None:
        self.mask_threshold = mask_threshold

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Move images and masks to the device, as plain tensors.

        Args:
            batchdata: ``image`` ``[B, 3, H, W]`` in [0, 1] and ``mask`` ``[B, 1, H, W]``.
            device: where to.
            non_blocking: see ``Tensor.to``.
            kwargs: further arguments of ``Tensor.to``.

        Returns:
            Images, and masks of zeros and ones in the images' dtype.

        Raises:
            ConfigError: if the batch has no masks.
        """
        if MASK not in batchdata:
            raise ConfigError("the training images have no masks", "training batch", "give masks, or another method")
        image, mask = (moved(batchdata[key], device, non_blocking, **kwargs) for key in (Keys.IMAGE, MASK))
        return image, (mask > self.mask_threshold).to(image.dtype)


def moved(values: Tensor, device: str | torch.device | None, non_blocking: bool, **kwargs: Any) -> Tensor:
    """A batch's values on a device, as a plain tensor.

    Args:
        values: a tensor, MONAI's or not.
        device: where to.
        non_blocking: see ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.
    """
    # MetaTensor carries __torch_function__ through every operation that follows.
    plain = values.as_tensor() if isinstance(values, MetaTensor) else values
    return plain.to(device=device, non_blocking=non_blocking, **kwargs)
