# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Load masks beside their images, which say the size that outlines are filled in at."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from glas_wsol.transforms.reading import MAX_PIXELS, read_mask

__all__ = ["LoadMaskd"]


class LoadMaskd(MapTransform):
    """Replace the path of a mask, of pixels or of outlines, by its labels, see `read_mask`.

    Args:
        keys: the masks.
        image_key: of the image, loaded before and not yet rescaled. Defaults to ``"image"``.
        allow_missing_keys: whether an image may have no mask. Defaults to False.
        max_pixels: the largest width * height that is decoded.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        allow_missing_keys: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key, self.max_pixels = image_key, max_pixels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load ``[1, H, W]`` int32, with the file's name as metadata.

        Raises:
            ImageFileError: see `read_mask`.
        """
        d = dict(data)
        height, width = d[self.image_key].shape[-2:]
        for key in self.key_iterator(d):
            labels = torch.from_numpy(read_mask(d[key], self.max_pixels, (height, width)))
            d[key] = MetaTensor(labels[None], meta={ImageMetaKey.FILENAME_OR_OBJ: str(d[key])})
        return d
