# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Rescale tiles and their masks: by a factor, to a length of the shorter side, or to the micrometres of a pixel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor, ensure_tuple_rep

from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.transforms._tensors import to_tensor
from glas_wsol.transforms.pixel_size import SAME
from glas_wsol.transforms.reading.reader import MAX_PIXELS
from glas_wsol.transforms.reading.spacing import mpp_of

__all__ = ["Rescale", "Rescaled"]


class Rescale(Transform):
    """Resize by one factor, or so that the shorter side gets a given length, keeping the proportions.

    With ``training_mpp`` the factor holds for pixels of that size. An image whose pixels have another one is brought to
    the same micrometres per pixel; one whose pixels have no known size is taken to have that of the training.

    Unlike MONAI's ``Resize``, shrinking is antialiased by the interpolation itself (as Pillow does), bytes stay bytes,
    and nearest neighbours work for integers of any width.

    Args:
        factor: of both sides; above 0.
        short_side: length of the shorter side in px, instead of ``factor``.
        mode: ``"bilinear"`` for images, ``"nearest-exact"`` for masks.
        training_mpp: micrometres of a pixel that ``factor`` holds for; None (default): for any.

    Raises:
        ConfigError: on ``short_side`` with ``factor`` or ``training_mpp``, a value out of range or an unknown mode.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        factor: float = 1.0,
        short_side: int | None = None,
        mode: str = "bilinear",
        training_mpp: float | None = None,
    ) -> None:
        if short_side is not None and factor != 1.0:
            raise ConfigError("both a scale and a short_side are set", "scale, short_side", "set one; scale=1 is none")
        if short_side is not None and training_mpp is not None:
            raise ConfigError("both mpp and a short_side are set", "mpp, short_side", "set one; null is none")
        if not 0 < factor < float("inf"):
            raise ConfigError(f"factor is {factor}", "Rescale", "use a number above 0")
        if short_side is not None and short_side < 1:
            raise ConfigError(f"short_side is {short_side}", "Rescale", "use 1 or more")
        _check_mode(mode)
        self.factor, self.short_side, self.mode, self.training_mpp = factor, short_side, mode, training_mpp

    def output_size(self, height: int, width: int, mpp: tuple[float, float] | None = None) -> tuple[int, int]:
        """Return the height and width after rescaling, each rounded (half up) and at least 1.

        Args:
            height: before, px.
            width: before, px.
            mpp: width and height of a pixel in micrometres; None (default) where they are not known.
        """
        factor = self.factor if self.short_side is None else self.short_side / min(height, width)
        across, down = (1.0, 1.0) if mpp is None or self.training_mpp is None else (x / self.training_mpp for x in mpp)
        # a size that was rounded for its file is the same size, and gives the same number of pixels
        down, across = (1.0 if abs(ratio - 1) < SAME else ratio for ratio in (down, across))
        half = 0.5 + 1e-9  # 0.29 * 50 is 14.499999999999998
        return max(1, int(height * factor * down + half)), max(1, int(width * factor * across + half))

    def __call__(
        self, img: NdarrayOrTensor, mode: str | None = None, mpp: tuple[float, float] | None = None
    ) -> torch.Tensor:
        """Rescale ``[C, H, W]``; the type stays, and an image whose size does not change is returned itself.

        Args:
            img: the image or mask.
            mode: instead of the mode set at construction.
            mpp: width and height of a pixel in micrometres. Defaults to None: as the image's metadata say.

        Raises:
            ImageFileError: if an image of large pixels is enlarged beyond what is read of a file.
        """
        mode = self.mode if mode is None else mode
        _check_mode(mode)
        image = to_tensor(img)
        mpp = mpp or mpp_of(img)
        size = self.output_size(image.shape[-2], image.shape[-1], mpp)
        if mpp and size[0] * size[1] > max(MAX_PIXELS, image.shape[-2] * image.shape[-1]):
            what = f"with pixels of {mpp[0]:.4g} um it is enlarged to {size[1]} x {size[0]} px, more than {MAX_PIXELS}"
            path = getattr(img, "meta", {}).get("filename_or_obj", "")
            raise ImageFileError(what, path, "give the size of its pixels with mpp")
        if size == tuple(image.shape[-2:]):
            return image
        plain = convert_to_tensor(image, track_meta=False)
        scaled = _bilinear(plain, size) if mode == "bilinear" else _nearest(plain, size)
        return convert_to_dst_type(scaled, image)[0]


def _check_mode(mode: str) -> None:
    if mode not in ("bilinear", "nearest-exact"):
        raise ConfigError(f"mode is {mode!r}", "Rescale", "use 'bilinear' for images or 'nearest-exact' for masks")


def _bilinear(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if size[1] == 1 < size[0]:  # torch 2.13 gives each pixel of a column the value of the first
        return _bilinear(image.transpose(-2, -1), (1, size[0])).transpose(-2, -1)
    values = image if image.is_floating_point() else image.float()
    values = F.interpolate(values[None], size, mode="bilinear", antialias=True)[0]
    if image.is_floating_point():
        return values
    if image.dtype == torch.bool:
        return values >= 0.5
    limits = torch.iinfo(image.dtype)
    return values.round().clamp(limits.min, limits.max).to(image.dtype)


def _nearest(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    # `F.interpolate` takes no integers but bytes, and floats lose labels above 2**24.
    for dim, after in zip((-2, -1), size, strict=True):
        before = image.shape[dim]
        source = (2 * torch.arange(after, device=image.device) + 1) * before // (2 * after)
        image = image.index_select(dim, source)
    return image


class Rescaled(MapTransform):
    """Dictionary-based version of `Rescale`. ``mode``: one mode for all keys, or one for each.

    The size of a pixel is that of the first key, for all of them.
    """

    backend = Rescale.backend

    def __init__(
        self,
        keys: KeysCollection,
        factor: float = 1.0,
        short_side: int | None = None,
        mode: Sequence[str] | str = "bilinear",
        allow_missing_keys: bool = False,
        training_mpp: float | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mode: tuple[str, ...] = ensure_tuple_rep(mode, len(self.keys))
        for one in self.mode:
            _check_mode(one)
        self.rescaler = Rescale(factor, short_side, training_mpp=training_mpp)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Rescale every key's ``[C, H, W]``."""
        d = dict(data)
        mpp = mpp_of(d.get(self.keys[0]))
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.rescaler(d[key], mode, mpp)
        return d
