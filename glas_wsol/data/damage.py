# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Find all images and masks that cannot be used, before a run reads the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from tqdm import tqdm

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms.reading import read_mask, read_rgb

__all__ = ["damaged"]


def damaged(
    pairs: Sequence[tuple[str | PathLike[str], str | PathLike[str] | None]], progress: bool = False
) -> list[str]:
    """Read every pixel, as a run will.

    Args:
        pairs: each image's file and, where there is one, its mask's.

    Returns:
        A clause for every file that is damaged, and for every mask of another size than its image; in order.
    """
    faults: list[str] = []
    for image, mask in tqdm(pairs, desc="reading", unit="image", disable=not progress, leave=False):
        try:
            size = read_rgb(image).shape[:2]
            found = size if mask is None else read_mask(mask).shape
        except ImageFileError as error:
            faults.append(f"{error.where}: {error.what}")
            continue
        if found != size:
            faults.append(f"{mask}: {found[1]} x {found[0]} px, and its image {size[1]} x {size[0]} px")
    return faults
