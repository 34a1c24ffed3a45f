# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Macenko stain normalisation that survives tiles without tissue."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from monai.apps.pathology.transforms import ExtractHEStains
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from glas_wsol.errors import ConfigError
from glas_wsol.transforms._tensors import require_unit_rgb, to_tensor

__all__ = ["NormalizeStain", "NormalizeStainD", "NormalizeStainDict", "NormalizeStaind"]

# Below this optical density (natural logarithm) in any channel Macenko et al. take a pixel for transparent.
_TRANSPARENT = 0.15
# Macenko's reference, as in MONAI: columns haematoxylin and eosin, rows red, green, blue.
_REFERENCE = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))


class NormalizeStain(Transform):
    """Give an H&E tile the colours of a reference, or leave it alone where that is impossible.

    The method is Macenko's (ISBI 2009, 1107-1110), the two stains found by MONAI's ``ExtractHEStains``. A tile that is
    white, has too little tissue, or is of one colour has none to find and comes back unchanged. `normalized` says which
    happened to the last tile, and so does ``meta["stain_normalized"]`` of a MetaTensor.

    Args:
        target: colours to give: rows red, green, blue, columns haematoxylin and eosin; Macenko's reference by default.
        max_concentrations: the 99th percentiles of both stains to give.
        min_tissue: the least fraction of stained pixels, 0..1.
        light: brightness from which on glass is blank, 1..255; blank glass comes out white.

    Raises:
        ConfigError: on a setting out of range, or an image that is neither uint8 nor float in 0..1 ``[3, H, W]``.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.NUMPY]

    def __init__(
        self,
        target: Sequence[Sequence[float]] = _REFERENCE,
        max_concentrations: Sequence[float] = (1.9705, 1.0308),
        min_tissue: float = 0.01,
        light: float = 240,
    ) -> None:
        self.target, self.maxima = np.asarray(target, np.float32), np.asarray(max_concentrations, np.float32)
        where = "NormalizeStain"
        if self.target.shape != (3, 2) or not np.isfinite(self.target).all():
            raise ConfigError("target is no 3 x 2 matrix", where, "give rows red, green, blue and columns H, E")
        if self.maxima.shape != (2,) or not (self.maxima > 0).all():
            raise ConfigError(f"max_concentrations is {max_concentrations}", where, "give two numbers above 0")
        if not 0 <= min_tissue <= 1:
            raise ConfigError(f"min_tissue is {min_tissue}", where, "use a number between 0 and 1")
        if not 1 <= light <= 255:
            raise ConfigError(f"light is {light}", where, "use a number between 1 and 255")
        self.min_tissue, self.light = min_tissue, light
        self.normalized = False
        self._extract = ExtractHEStains(tli=light, beta=_TRANSPARENT)

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Return the normalised ``[3, H, W]``, of the type given."""
        image = to_tensor(img)
        plain = convert_to_tensor(image, track_meta=False)
        if plain.dtype != torch.uint8:
            require_unit_rgb(plain, "NormalizeStain")
        elif plain.ndim != 3 or plain.shape[0] != 3:
            raise ConfigError(f"an image of shape {tuple(plain.shape)}", "NormalizeStain", "give RGB images [3, H, W]")
        scale = 1 if plain.dtype == torch.uint8 else 255
        values = plain.detach().cpu().float().mul(scale).numpy().transpose(1, 2, 0)
        stained = self._normalize(values)
        self.normalized = stained is not None
        if stained is not None:
            plain = torch.from_numpy(
                stained.transpose(2, 0, 1) if scale == 255 else np.rint(stained).transpose(2, 0, 1)
            )
            plain = plain / scale
        result = convert_to_dst_type(plain, image)[0]
        if isinstance(result, MetaTensor):
            result.meta["stain_normalized"] = self.normalized
        return result

    def _normalize(self, values: np.ndarray) -> np.ndarray | None:
        """Return ``[H, W, 3]`` in 0..255, or None where the two stains cannot be told."""
        density = -np.log(np.clip(values, 1, self.light) / self.light).reshape(-1, 3)
        # At least three pixels: fewer have no covariance.
        if (density > _TRANSPARENT).all(axis=1).sum() < max(3, self.min_tissue * len(density)):
            return None
        try:
            stains = self._extract(np.rint(values).astype(np.uint8))
        except (ValueError, np.linalg.LinAlgError):
            return None
        stains = stains * np.where(stains.sum(0) < 0, -1, 1)  # an eigenvector's sign is arbitrary
        # Haematoxylin absorbs more red: Macenko's order. MONAI's, by red over blue, mistakes strong eosin for it.
        stains = stains[:, np.argsort(-stains[0])]
        lengths = np.linalg.norm(stains, axis=0)
        # Two stains closer than 1.8 degrees are one: splitting a colour between them would amplify noise.
        if not (lengths > 0).all() or not abs(stains[:, 0] @ stains[:, 1]) < 0.9995 * lengths.prod():
            return None
        amounts = np.linalg.pinv(stains) @ density.T
        highest = np.percentile(amounts, 99, axis=1)
        if not (highest > 0).all():
            return None
        restained = 255 * np.exp(-self.target @ (amounts * (self.maxima / highest)[:, None]))
        return restained.T.reshape(values.shape).clip(0, 255).astype(np.float32)


class NormalizeStaind(MapTransform):
    """Dictionary-based version of `NormalizeStain`.

    Args:
        keys: the images to normalise.
        target: see `NormalizeStain`.
        max_concentrations: see `NormalizeStain`.
        min_tissue: see `NormalizeStain`.
        light: see `NormalizeStain`.
        allow_missing_keys: whether a missing key is passed over.
    """

    backend = NormalizeStain.backend

    def __init__(
        self,
        keys: KeysCollection,
        target: Sequence[Sequence[float]] = _REFERENCE,
        max_concentrations: Sequence[float] = (1.9705, 1.0308),
        min_tissue: float = 0.01,
        light: float = 240,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalizer = NormalizeStain(target, max_concentrations, min_tissue, light)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Normalise every key's ``[3, H, W]`` image."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.normalizer(d[key])
        return d


NormalizeStainD = NormalizeStainDict = NormalizeStaind
