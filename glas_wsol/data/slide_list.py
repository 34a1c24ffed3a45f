# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""List the whole slides among images to run on: of a folder, a table or one file, beside tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glas_wsol.data.files import distinct_names, existing, is_file, log_warnings
from glas_wsol.data.images import images_datalist, list_images, listed_images
from glas_wsol.data.pairs import files_of
from glas_wsol.errors import DatalistError
from glas_wsol.transforms.reading.slide_formats import is_slide, series_of

__all__ = ["split_slides"]


def split_slides(
    sources: Sequence[str | Path], recursive: bool = False, exclude: str | Path | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Which of the images are whole slides, by their content; the files of one DICOM series are one slide.

    Args:
        sources: images, folders of them, or tables with a column ``image``.
        recursive: whether to list the folders below too.
        exclude: a folder to leave out, such as that of the results.

    Returns:
        The slides, ``{"image": str, "name": str}`` each with ``"mpp"`` where a table has it; and the tiles, as
        :func:`~glas_wsol.data.images.images_datalist` lists them, none where there is no slide: nothing has to be
        parted then.
    """
    found: dict[Path, float | None] = {}
    tiles: list[tuple[str | Path, dict[Path, float | None] | None]] = []
    for source in sources:
        if str(source) == "phantom" and not Path("phantom").exists():
            tiles.append((source, None))
            continue
        root = existing(source)
        sizes: dict[Path, float | None] = {}
        if root.is_dir():
            files = files_of(root, recursive, None if exclude is None else Path(exclude).resolve())
            paths = [*files.images, *files.others]
        elif root.suffix.lower() == ".csv":
            sizes = listed_images(root, [])
            paths = list(sizes)
        else:
            paths = [root]
        slides = [path for path in paths if is_file(path) and is_slide(path)]
        found |= {path: sizes.get(path) for path in slides}
        rest = {path: sizes.get(path) for path in paths if path not in set(slides)} if slides else None
        tiles.append((source, rest))
    if not found:
        return [], []
    series: set[tuple[Path, str]] = set()
    for path in list(found):
        key = path.parent, series_of(path)
        if key[1] and key in series:
            del found[path]
        series.add(key)
    home = existing(sources[0])
    names = distinct_names(list(found), home if home.is_dir() else home.parent)
    items = [
        {"image": str(path), "name": name, **({"mpp": found[path]} if found[path] else {})}
        for path, name in zip(found, names, strict=True)
    ]
    return items, [item for source, rest in tiles for item in _tiles(source, rest, recursive, exclude)]


def _tiles(
    source: str | Path, rest: dict[Path, float | None] | None, recursive: bool, exclude: str | Path | None
) -> list[dict[str, Any]]:
    """The tiles of a source; those left over by its slides may be none at all."""
    if rest is None:
        return images_datalist(source, recursive, exclude)
    root = existing(source)
    if not root.is_dir():
        return [{"image": str(path), "name": path.stem, **({"mpp": mpp} if mpp else {})} for path, mpp in rest.items()]
    try:
        items, warnings = list_images(source, recursive, exclude)
    except DatalistError:  # no tile beside the slides
        return []
    log_warnings(source, (one for one in warnings if " other file" not in one))  # slides are among them
    return [item for item in items if Path(item["image"]) in rest]
