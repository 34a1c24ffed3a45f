# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Change the amounts of haematoxylin and eosin at random, as they vary between laboratories."""

from __future__ import annotations

from typing import Any

import torch
from monai.transforms import RandomizableTransform

from glas_wsol.errors import ConfigError
from glas_wsol.transforms._shared_draw import RandImage, SharedDrawd

__all__ = ["RandHEStainJitter", "RandHEStainJitterd"]

# Optical densities (red, green, blue) of haematoxylin, eosin and a residual: Ruifrok and Johnston, Anal. Quant. Cytol.
# Histol. 23 (2001) 291-299.
_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
# Below this mean optical density (natural logarithm) Macenko et al. take a pixel for transparent.
_TRANSPARENT = 0.15


class RandHEStainJitter(RandImage):
    """Change the amounts of haematoxylin and eosin at random: ``c -> alpha * c + beta`` for each stain.

    The optical density (Beer-Lambert, natural logarithm) is split in the fixed basis of Ruifrok and Johnston into
    haematoxylin, eosin and a residual, which is left alone; ``alpha`` is uniform in
    ``[1 - sigma_scale, 1 + sigma_scale]`` and ``beta`` in ``[-sigma_shift, sigma_shift]``, drawn for each stain
    (Tellez et al., IEEE TMI 37 (2018) 2126-2136). Blank glass takes up no stain, so the shift grows linearly with a
    pixel's mean optical density up to 0.15, Macenko's limit of transparency, and is whole above it: white stays white.

    Args:
        sigma_scale: 0 to 1.
        sigma_shift: 0 or more, in units of optical density.
        prob: probability of changing an image at all.
    """

    def __init__(self, sigma_scale: float = 0.2, sigma_shift: float = 0.1, prob: float = 1.0) -> None:
        RandomizableTransform.__init__(self, prob)
        if not 0 <= sigma_scale <= 1:
            raise ConfigError(f"sigma_scale is {sigma_scale}", "RandHEStainJitter", "use a number between 0 and 1")
        if not 0 <= sigma_shift < float("inf"):
            raise ConfigError(f"sigma_shift is {sigma_shift}", "RandHEStainJitter", "use a number of 0 or more")
        self.sigma_scale, self.sigma_shift = sigma_scale, sigma_shift
        self.alpha: tuple[float, float] = (1.0, 1.0)
        self.beta: tuple[float, float] = (0.0, 0.0)

    def settings(self) -> dict[str, float]:
        """What it was made with, without what was drawn last."""
        return {"sigma_scale": self.sigma_scale, "sigma_shift": self.sigma_shift, "prob": self.prob}

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether, and ``alpha`` and ``beta`` of haematoxylin and eosin."""
        super().randomize(None)
        if not self._do_transform:
            return
        self.alpha = tuple(self.R.uniform(1 - self.sigma_scale, 1 + self.sigma_scale, 2).tolist())
        self.beta = tuple(self.R.uniform(-self.sigma_shift, self.sigma_shift, 2).tolist())

    def changed(self, image: torch.Tensor) -> torch.Tensor:
        """The image with other amounts of both stains."""
        basis = torch.tensor(_HED, dtype=image.dtype, device=image.device)
        density = -image.clamp(min=1e-6).log()
        amounts = torch.tensordot(torch.linalg.inv(basis)[:, :2].T, density, dims=1)
        tissue = (density.mean(0) / _TRANSPARENT).clamp(0, 1)
        alpha = image.new_tensor(self.alpha).view(2, 1, 1)
        beta = image.new_tensor(self.beta).view(2, 1, 1)
        added = torch.tensordot(basis[:2].T, (alpha - 1) * amounts + beta * tissue, dims=1)
        # A factor on the image itself: where nothing is added, it is not even rounded.
        return (image * torch.exp(-added)).clamp_(0, 1)


class RandHEStainJitterd(SharedDrawd):
    """Dictionary-based version of `RandHEStainJitter`, which describes its strengths; all keys share one draw."""

    array_transform = RandHEStainJitter
