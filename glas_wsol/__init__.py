# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Weakly supervised localization of decidable regions by min-max entropy, as MONAI components."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glas_wsol.version import __version__

if TYPE_CHECKING:
    import torch

    from glas_wsol.loading import Localizer
    from glas_wsol.results import Localization

__all__ = ["__version__", "load", "samples", "save"]


def load(
    model: str | PathLike[str] | Sequence[str | PathLike[str]] = "glas",
    *,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Localizer:
    """Load a trained model, to be called with an image.

    Example::

        localize = glas_wsol.load()
        found = localize(glas_wsol.samples()[0])
        glas_wsol.save(found, "results", ["png", "geojson"])

    Args:
        model: an exported bundle's folder with its model, the output folder of a training, or a ``model.pt`` or
            ``.safetensors`` file with its ``model.json`` beside it; a list of them is their ensemble. Defaults to the
            model that came with the package.
        device: where to compute. Defaults to CUDA where there is one, else the CPU.
        settings: as in ``inference.json``: ``stain``, ``flips``, ``rotations``, ``scales``, ``class_scores``,
            ``threshold``, ``min_box_area``, ``fill_holes``, ``drop_specks``, ``mpp``, ``max_pixels``; ``trunk`` where
            the folder of a transformer has moved since the training (``"hf:FOLDER"``). Those not given
            are what the bundle's ``inference.json`` says, which leaves ``stain``, ``fill_holes`` and ``drop_specks`` to
            ``model.json``; of a model without a bundle around it what ``model.json`` says, then what the package's
            bundle with its classes does. No expression of a config is executed.

    Returns:
        A function of an image: a file, ``[H, W, 3]`` uint8, or a tensor ``[3, H, W]`` in [0, 1]. It returns a
        :class:`~glas_wsol.results.Localization`, with the numbers of a run of ``inference.json``.

    Raises:
        ConfigError: if a setting does not exist or is out of range, or several models do not fit together.
        WeightsError: if a model is missing, unsafe, or not the one its ``model.json`` describes.
    """
    from glas_wsol.loading import load_localizer  # torch takes seconds to import, and the version is wanted without it

    return load_localizer(model, device=device, **settings)


def samples() -> list[Path]:
    """The sample tiles that came with the package: real H&E tissue of the colon, PNG, 224 x 224 px of about 1.5 um.

    They are of EBHI-Seg (CC BY 4.0; ``samples/README.md`` of the tissue bundle). No model in the package was trained on
    them. ``samples.csv`` beside them has their diagnoses and masks.
    """
    from glas_wsol.utils.shipped_bundles import sample_table

    return sorted(path for path in sample_table().parent.glob("*.png") if not path.stem.endswith("_mask"))


def save(
    found: Localization,
    folder: str | PathLike[str],
    formats: str | Iterable[str] = ("png",),
    *,
    overlay: bool = True,
    undecidable: bool = False,
) -> list[Path]:
    """Write a result, as a run of inference does; a file of the same name is replaced.

    Args:
        folder: made if absent; files are named after the result.
        formats: of :data:`~glas_wsol.writers.formats.FORMATS`. Defaults to the mask as PNG.
        overlay: whether to draw the overlay too. Defaults to True.
        undecidable: whether GeoJSON outlines the undecidable region too. Defaults to False.

    Raises:
        ConfigError: on an unknown format, or one that needs a missing package.
        ImageFileError: where a format needs what the image's file does not have.
        OutputError: where a file cannot be written.
    """
    from glas_wsol.writers.formats import save_localization

    return save_localization(fspath(folder), found, formats, overlay=overlay, undecidable=undecidable)
