# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""List images to run on, without labels: of a folder, a table or one file."""

from __future__ import annotations

from pathlib import Path

from glas_wsol.data.class_folders import IMAGE_KINDS, folders_in
from glas_wsol.data.files import IMAGE_SUFFIXES, distinct_names, existing, is_file, log_warnings
from glas_wsol.data.pairs import files_of, mask_stem, others_said, such_as
from glas_wsol.data.rows import image_path, listed_mpp, read_rows
from glas_wsol.errors import ConfigError, DatalistError, ImageFileError

__all__ = ["images_datalist", "list_images"]


def images_datalist(source: str | Path, recursive: bool = False, exclude: str | Path | None = None) -> list[dict]:
    """As `list_images`, whose warnings are logged."""
    images, warnings = list_images(source, recursive, exclude)
    log_warnings(source, warnings)
    return images


def list_images(
    source: str | Path, recursive: bool = False, exclude: str | Path | None = None
) -> tuple[list[dict], list[str]]:
    """List images to run on; labels and masks are neither needed nor read.

    Args:
        source: an image; a folder of bmp, png, jpg, jpeg, tif and tiff images, in natural order, without hidden files
            and without masks (``a_mask.png`` beside ``a.png``, ``a_anno.bmp``, folders ``masks``); or a ``.csv`` with
            a column ``image`` of paths, absolute or relative to it, in its order, and perhaps one of micrometres per
            pixel, ``mpp``.
        recursive: whether to list the folders below too.
        exclude: a folder to leave out, such as that of the results; without effect if ``source`` itself lies in it.

    Returns:
        ``{"image": str, "name": str}`` each, with ``"mpp": float`` where a table has it, and sentences on what is left
        out. Names are distinct, also where case is ignored: the path below the folder (of the table) without suffix,
        folders joined by ``__``. Only ``a.png`` and ``a.tif`` side by side keep their suffixes.

    Raises:
        ConfigError: if ``exclude`` is the folder itself: the results of one run would be images of the next.
        DatalistError: if there is no image; every fault of a table at once.
        ImageFileError: if ``source`` is a file of another kind.
    """
    root, warnings, sizes = existing(source), [], {}
    if root.is_dir():
        leave_out = None if exclude is None else Path(exclude).resolve()
        if leave_out == root.resolve():
            raise ConfigError("the results would lie among the images", root, "choose another folder for the output")
        if leave_out is not None and root.resolve().is_relative_to(leave_out):
            leave_out = None
        files, home = files_of(root, recursive, leave_out), root
        images = files.images
        if leave_out is not None:
            images = [image for image in images if not (is_file(image) and image.resolve().is_relative_to(leave_out))]
        if not images:
            where = "in it or below" if recursive else "directly in it"
            fix = "name the folder of the images" if recursive else "name their folder, or look below with --recursive"
            what = ", ".join([f"no {IMAGE_KINDS} image {where}", *others_said(files.others)])
            raise DatalistError(root, [what], fix)
        masks = [path for image in images for path in files.masks.get(image, ())]
        warnings += [f"{such_as(masks, 'mask', root)} passed over"] if masks else []
        warnings += files.warnings(root) + others_said(files.others)
        below = [] if recursive else [path for path in folders_in(root) if path.resolve() != leave_out]
        if below:
            warnings.append(f"{such_as(below, 'folder', root)} not looked into: give --recursive to do so")
    elif root.suffix.lower() == ".csv":
        sizes, home = _listed(root, warnings), root.parent
        images = list(sizes)
    elif root.suffix.lower() in IMAGE_SUFFIXES:
        images, home = [root], root.parent
    else:
        raise ImageFileError("not a known kind of image", root, f"use {IMAGE_KINDS}, a folder or a .csv")
    names = distinct_names(images, home)
    items = [{"image": str(image), "name": name} for image, name in zip(images, names, strict=True)]
    given = [sizes.get(image) for image in images]
    return [item | ({"mpp": mpp} if mpp else {}) for item, mpp in zip(items, given, strict=True)], warnings


def _listed(table: Path, warnings: list[str]) -> dict[Path, float | None]:
    faults: list[str] = []
    first: dict[Path, int] = {}
    images: dict[Path, float | None] = {}
    for row in read_rows(table, ("image",), faults):
        image = image_path(table, row, "image", faults)
        if image is None:
            continue
        images[image] = listed_mpp(row, faults)
        if first.setdefault(image.resolve(), row.line) != row.line:
            faults.append(f"line {row.line}: image {row['image']!r} again, after line {first[image.resolve()]}")
    if faults:
        raise DatalistError(table, faults)
    stems = {(image.parent, image.stem.casefold()) for image in images}
    bases = [(image, mask_stem(image.stem)) for image in images]
    masks = [image for image, base in bases if base and (image.parent, base[0].casefold()) in stems]
    warnings += [f"{such_as(masks, 'image', table.parent)} named like the mask of another image"] if masks else []
    return images
