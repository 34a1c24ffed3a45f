# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Put the size of a pixel that is given for an image in the place of the one in its file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from glas_wsol.transforms.pixel_size import check_mpp
from glas_wsol.transforms.reading.spacing import DOUBT, MPP, mpp_metadata

__all__ = ["PixelSized"]


class PixelSized(MapTransform):
    """After reading: what is given counts before what the item has under ``mpp`` (of a table), that before the file.

    The item is left without ``mpp``: its images have it in their metadata, see
    :func:`~glas_wsol.transforms.reading.spacing.mpp_of`.

    Args:
        keys: the images.
        mpp: micrometres per pixel of all images, or the width and the height of a pixel. Defaults to None: as the item
            or the file says.

    Raises:
        ConfigError: if ``mpp`` is not valid.
    """

    def __init__(self, keys: KeysCollection, mpp: float | Sequence[float] | None = None) -> None:
        super().__init__(keys)
        self.mpp = check_mpp(mpp)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Set the metadata of one item.

        Raises:
            ConfigError: if the item's ``mpp`` is not valid.
        """
        d = dict(data)
        listed = d.pop(MPP, None)
        size = self.mpp or check_mpp(listed)
        for key in self.key_iterator(d):
            if size is not None and isinstance(d[key], MetaTensor):
                d[key].meta.update({MPP: mpp_metadata(size), DOUBT: ""})
        return d
