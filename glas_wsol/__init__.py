# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Weakly supervised localization of decidable regions by min-max entropy, as MONAI components."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from glas_wsol.loading import Localizer

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def load(
    model: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Localizer:
    """Load a trained model, to be called with an image.

    Example::

        localize = glas_wsol.load("dist/glas_minmax_entropy")
        found = localize("tile.png")
        found.save("results", ["png", "geojson"])

    Args:
        model: an exported bundle's folder with its model, the output folder of a training, or a ``model.pt`` or
            ``.safetensors`` file with its ``model.json`` beside it; a list of them is their ensemble.
        device: where to compute. Defaults to CUDA where there is one, else the CPU.
        settings: as in ``inference.json``: ``stain``, ``flips``, ``rotations``, ``scales``, ``class_scores``,
            ``threshold``, ``min_box_area``, ``fill_holes``, ``drop_specks``, ``mpp``, ``max_pixels``. Those not given
            are what the bundle's ``inference.json`` says, which leaves ``stain``, ``fill_holes`` and ``drop_specks`` to
            ``model.json``; of a model without a bundle around it what ``model.json`` says, then the defaults: one view,
            threshold 0.5 and, of an older model, no ``stain``. No expression of a config is executed.

    Returns:
        A function of an image: a file, ``[H, W, 3]`` uint8, or a tensor ``[3, H, W]`` in [0, 1]. It returns a
        :class:`~glas_wsol.results.localization.Localization`, with the numbers of a run of ``inference.json``.

    Raises:
        ConfigError: if a setting does not exist or is out of range, or several models do not fit together.
        WeightsError: if a model is missing, unsafe, or not the one its ``model.json`` describes.
    """
    from glas_wsol.loading import load_localizer  # torch takes seconds to import, and the version is wanted without it

    return load_localizer(model, device=device, **settings)
