# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Change brightness, contrast, saturation and hue at random, for which MONAI only wraps torchvision."""

from __future__ import annotations

from typing import Any

import torch
from monai.transforms import RandomizableTransform

from glas_wsol.errors import ConfigError
from glas_wsol.transforms._shared_draw import RandImage, SharedDrawd

__all__ = ["RandColorJitter", "RandColorJitterd"]


class RandColorJitter(RandImage):
    """Change brightness, contrast, saturation and hue at random, in random order, as torchvision's ``ColorJitter``.

    Each factor is uniform in ``[max(0, 1 - s), 1 + s]`` with its strength ``s``, the hue shift uniform in
    ``[-hue, hue]`` of a turn. Brightness blends with black, contrast with the mean grey of the image, saturation with
    each pixel's grey (0.2989 R + 0.587 G + 0.114 B); after each the result is clamped to 0..1. A strength of 0 leaves
    its operation out.

    Args:
        brightness: 0 or more.
        contrast: 0 or more.
        saturation: 0 or more.
        hue: 0 to 0.5.
        prob: probability of changing an image at all.
    """

    def __init__(
        self,
        brightness: float = 0.5,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.05,
        prob: float = 1.0,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        for name, value, high in (
            ("brightness", brightness, float("inf")),
            ("contrast", contrast, float("inf")),
            ("saturation", saturation, float("inf")),
            ("hue", hue, 0.5),
        ):
            if not 0 <= value <= high:
                span = "between 0 and 0.5" if name == "hue" else "of 0 or more"
                raise ConfigError(f"{name} is {value}", "RandColorJitter", f"use a number {span}")
        self.strengths = (brightness, contrast, saturation, hue)
        self.steps: tuple[tuple[int, float], ...] = ()

    def settings(self) -> dict[str, float]:
        """What it was made with, without what was drawn last."""
        return dict(
            zip(("brightness", "contrast", "saturation", "hue", "prob"), (*self.strengths, self.prob), strict=True)
        )

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether, in which order and how much: `steps` holds (operation, factor) pairs."""
        super().randomize(None)
        if not self._do_transform:
            return
        brightness, contrast, saturation, hue = self.strengths
        order = self.R.permutation(4)
        factors = [self.R.uniform(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast, saturation)]
        factors.append(self.R.uniform(-hue, hue))
        self.steps = tuple((int(i), float(factors[i])) for i in order if self.strengths[i] > 0)

    def changed(self, image: torch.Tensor) -> torch.Tensor:
        """The image after every step."""
        # A copy of its own, to be changed in place, and in planes: a turn, or channels that lie side by side, would
        # cost half as much again.
        image = image.detach().clone(memory_format=torch.contiguous_format)
        for operation, factor in self.steps:
            image = _OPERATIONS[operation](image, factor)
        return image


# Each may overwrite the image it is given.


def _brightness(image: torch.Tensor, factor: float) -> torch.Tensor:
    return image.mul_(factor).clamp_(0, 1)


def _contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    return _blend(image, _grey(image).mean(), factor)


def _saturation(image: torch.Tensor, factor: float) -> torch.Tensor:
    return _blend(image, _grey(image), factor)


def _hue(image: torch.Tensor, turn: float) -> torch.Tensor:
    """Turn the hue (HSV), keeping value and chroma."""
    red, green, blue = image
    high, low = torch.maximum(green, blue), torch.minimum(green, blue)
    value, middle = torch.maximum(red, high), torch.minimum(red, high)
    # The hue in sixths of a turn is |origin + (middle - lowest) / chroma|: the origin is -2 where green is the largest,
    # 4 where blue is, and where red is, 0, or -6 if blue is above green. Ones and zeros by signs: a comparison takes
    # ten times as long.
    bluer = (blue - green).sign_().clamp_(min=0)
    unlike_red = (high - red).sign_().clamp_(min=0)
    origin = bluer.mul_(-6).addcmul_(bluer, unlike_red, value=-2).sub_(unlike_red, alpha=2)
    part = middle - low
    lowest = torch.minimum(low, middle, out=low)
    chroma = value.sub_(lowest)
    sixths = part.div_(chroma.clamp(min=torch.finfo(image.dtype).tiny)).add_(origin).abs_().add_(6 * turn)
    sixths.sub_((sixths / 6).floor_(), alpha=6)  # the remainder, for which torch takes three times as long
    # A channel is at its highest within one sixth of its own hue (0, 2, 4), at its lowest beyond two.
    torch.sub(sixths, 3, out=image[0]).abs_().sub_(1)
    torch.sub(sixths, 2, out=image[1]).abs_().neg_().add_(2)
    torch.sub(sixths, 4, out=image[2]).abs_().neg_().add_(2)
    return image.clamp_(0, 1).mul_(chroma).add_(lowest).clamp_(0, 1)


def _grey(image: torch.Tensor) -> torch.Tensor:
    red, green, blue = image
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blend(image: torch.Tensor, other: torch.Tensor, factor: float) -> torch.Tensor:
    return image.mul_(factor).add_(other, alpha=1 - factor).clamp_(0, 1)


_OPERATIONS = (_brightness, _contrast, _saturation, _hue)


class RandColorJitterd(SharedDrawd):
    """Dictionary-based version of `RandColorJitter`, which describes its strengths; all keys share one draw."""

    array_transform = RandColorJitter
