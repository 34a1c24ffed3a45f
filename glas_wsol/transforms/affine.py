# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Turn, shear along x and scale isotropically at random, the paper's augmentation of CUB5 for the other methods.

MONAI's ``RandAffine`` draws a scale for each axis, evenly in its inverse, and shears both axes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ensure_tuple_rep
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.transforms._tensors import to_tensor

__all__ = ["RandIsotropicAffined", "warp"]


def warp(image: torch.Tensor, angle: float, shear: float, scale: float, mode: str = "bilinear") -> torch.Tensor:
    """Shear along x, then turn and scale about the centre of the image; borders reflect.

    Args:
        image: ``[C, H, W]`` of any type.
        angle: degrees, positive from x (right) to y (down): clockwise as an image is shown.
        shear: degrees; what lies below the centre moves to the right by its distance times ``tan(shear)``.
        scale: above 0; 2 shows things twice as large.
        mode: ``"bilinear"``, for floats; or ``"nearest"``, which preserves labels.
    """
    height, width = image.shape[-2:]
    cosine, sine, tangent = (f(math.radians(v)) for f, v in ((math.cos, angle), (math.sin, angle), (math.tan, shear)))
    # From where a pixel is shown to where it was, in px about the centre: [[1, tan], [0, 1]]^-1 rotation^-1 / scale.
    xx, xy, yx, yy = cosine + tangent * sine, sine - tangent * cosine, -sine, cosine
    # Its coordinates run from -1 to 1 over each axis.
    matrix = [[xx / scale, xy / scale * height / width, 0.0], [yx / scale * width / height, yy / scale, 0.0]]
    values = image if image.is_floating_point() else image.double()  # holds all labels exactly
    theta = torch.tensor([matrix], dtype=values.dtype).to(values.device)
    grid = F.affine_grid(theta, [1, 1, height, width], align_corners=False)
    return F.grid_sample(values[None], grid, mode, "reflection", align_corners=False)[0].to(image.dtype)


class RandIsotropicAffined(RandomizableTransform, MapTransform):
    """:func:`warp` with angle, shear and scale drawn evenly, once for all keys.

    Args:
        prob: probability of changing them at all.
        degrees: the angle is from ``-degrees`` to ``degrees``. Defaults to 10.
        shear: the shear is from ``-shear`` to ``shear``, degrees. Defaults to 10.
        scale: least and largest scale. Defaults to 0.3 and 1.5.
        mode: of each key, or of all.

    Raises:
        ConfigError: if a range is not valid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        degrees: float = 10.0,
        shear: float = 10.0,
        scale: Sequence[float] = (0.3, 1.5),
        mode: Sequence[str] | str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if not (degrees >= 0 and 0 <= shear < 90 and len(scale) == 2 and 0 < scale[0] <= scale[1]):
            what = f"degrees={degrees}, shear={shear}, scale={list(scale)}"
            fix = "give 0 or more degrees, a shear from 0 to below 90, a least and a largest scale above 0"
            raise ConfigError(what, "RandIsotropicAffined", fix)
        self.ranges = ((-degrees, degrees), (-shear, shear), tuple(scale))
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.drawn = (0.0, 0.0, 1.0)

    def settings(self) -> dict[str, object]:
        """What it was made with, without what was drawn last."""
        (_, degrees), (_, shear), scale = self.ranges
        return {"prob": self.prob, "degrees": degrees, "shear": shear, "scale": scale, "mode": self.mode}

    def randomize(self, data: None = None) -> None:
        """Draw angle, shear and scale, whether they are used or not: what is drawn after them does not depend on it."""
        super().randomize(None)
        angle, shear, scale = (float(self.R.uniform(low, high)) for low, high in self.ranges)
        self.drawn = (angle, shear, scale)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Change every key."""
        d = dict(data)
        self.randomize()
        if self._do_transform:
            for key, mode in self.key_iterator(d, self.mode):
                d[key] = warp(to_tensor(d[key]), *self.drawn, mode)
        return d
