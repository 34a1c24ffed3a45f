# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""List files for every datalist: which are images, in what order, and under what names results are written."""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from glas_wsol.errors import DatalistError, readable
from glas_wsol.transforms.reading import IMAGE_SUFFIXES
from glas_wsol.utils import distributed

__all__ = [
    "IMAGE_SUFFIXES",
    "distinct_names",
    "existing",
    "folded",
    "is_file",
    "is_image",
    "log_warnings",
    "natural_key",
]

logger = logging.getLogger(__name__)


def existing(source: str | Path) -> Path:
    """The file or folder as an absolute path.

    Raises:
        DatalistError: if it is no path, does not exist or is not readable.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise DatalistError(repr(source), ["it is no path"], "give the path of a folder, a table or an image")
    path = Path(source).expanduser().absolute()
    try:
        found = source != "" and path.exists()  # "" would quietly be the working directory
    except (OSError, ValueError):  # a name too long or malformed
        found = False
    if not found:
        raise DatalistError(source or "''", ["there is no such file or folder"], "give the path of one that exists")
    if not os.access(path, os.R_OK):
        raise DatalistError(path, ["it is not readable"], "change its permissions")
    return path


def is_file(path: Path) -> bool:
    """`Path.is_file`, and False where a name is too long or malformed to be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_image(path: Path) -> bool:
    """Whether a path is a file that is named like an image, of a kind that is read or another one."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    return is_file(path) and (path.name.lower().endswith(IMAGE_SUFFIXES) or kind.startswith("image/"))


def natural_key(text: str) -> tuple:
    """Sort key that puts ``train_2`` before ``train_10``."""
    parts = re.split(r"0*([0-9]+)", text)
    # a number sorts by its length, then its digits: int() refuses very long ones
    return [(len(part), part) if index % 2 else part for index, part in enumerate(parts)], text


def distinct_names(images: Sequence[Path], root: Path) -> list[str]:
    """Names for output files: the path below ``root`` without its suffix, folders joined by ``__``.

    An image elsewhere has its bare name. Images that would share a name (``a.png`` and ``a.tif``, or ``A.png`` where
    case is ignored) keep their folders and suffix and, where that is not enough, get a digest of their path. So a name
    depends on no other image unless they would collide. Names of more than 200 bytes, of files deep in folders, are cut
    and get a digest: file systems take 255, with the suffixes that results add.
    """
    paths = [image.relative_to(root) if image.is_relative_to(root) else image for image in images]
    inside = [not path.is_absolute() and ".." not in path.parts for path in paths]
    folders = [[part for part in path.parts[:-1] if part not in ("..", path.anchor)] for path in paths]
    parts = list(zip(folders, paths, inside, strict=True))
    names = ["__".join([*(above if here else ()), path.stem]) for above, path, here in parts]
    whole = ["__".join([*above, path.name]) for above, path, _ in parts]
    digests = [hashlib.sha256(os.fsencode(path.as_posix())).hexdigest() for path in paths]
    names = [_cut(name, digest) for name, digest in zip(names, digests, strict=True)]
    whole = [_cut(name, digest) for name, digest in zip(whole, digests, strict=True)]
    for length in (0, *range(8, 65, 8)):
        same = Counter(map(folded, names))
        if len(same) == len(names):
            break
        longer = [f"{name}-{digest[:length]}" if length else name for name, digest in zip(whole, digests, strict=True)]
        names = [new if same[folded(old)] > 1 else old for old, new in zip(names, longer, strict=True)]
    return names


def _cut(name: str, digest: str, limit: int = 200) -> str:
    if len(os.fsencode(name)) <= limit:
        return name
    # the end distinguishes images of one folder; half a character at the cut is left out
    end = os.fsencode(name)[9 - limit :].decode("utf-8", "ignore")
    return f"{digest[:8]}-{end.lstrip('. ')}"


def folded(name: str) -> str:
    """A name as file systems that ignore case and Unicode composition compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def log_warnings(source: object, warnings: Iterable[str]) -> None:
    """Log warnings about data, in the first of several processes."""
    for one in warnings if distributed.is_main() else ():
        logger.warning("%s", readable(f"{source}: {one}"))
