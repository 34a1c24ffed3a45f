# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Defines one class per failure a user can cause. Each message is one line: what is wrong, where, and how to fix it."""

from __future__ import annotations

import copyreg
import errno
import re
import unicodedata
from collections.abc import Mapping, Sequence

__all__ = [
    "FIX_FILES",
    "FIX_ROOM",
    "ArchiveError",
    "BusyError",
    "ConfigError",
    "DatalistError",
    "GlasWsolError",
    "ImageFileError",
    "IncompleteError",
    "NumericalError",
    "OutputError",
    "SplitError",
    "WeightsError",
    "as_typed",
    "count",
    "exception_chain",
    "readable",
    "set_typed",
]

FIX_ROOM = "choose a folder that can be written and has room"
"""What to do where a place refuses what is written."""

FIX_FILES = "raise the limit (ulimit -n), or use fewer workers"
"""What to do where no more files may be opened."""


def exception_chain(error: BaseException) -> list[BaseException]:
    """An exception and what it was raised from or in the handling of, the outermost first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def readable(text: str) -> str:
    r"""A text of a stranger as it may be shown in a terminal.

    What would move the cursor, colour the screen, or turn the order of letters round is spelt out: ``\x1b``.
    """
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNS else c for c in text)


def count(number: int, one: str, many: str = "") -> str:
    """A number and what it counts: ``1 image``, ``2 images``, ``2 classes``.

    Args:
        number: how many.
        one: what it is, in the singular.
        many: in the plural; empty (default): with an ``s``, or an ``es`` behind an ``s``.
    """
    return f"{number} {one if number == 1 else many or one + ('es' if one.endswith('s') else 's')}"


_IDS = re.compile(
    r"(?<![\w/\\.#@\-])(?P<quote>'?)(?P<id>output_dir|dataset_dir|ckpt_dir|stage_one_dir)(?P=quote)(?![\w/\\.\-])"
)
_TYPED: dict[str, str] = {}


def set_typed(names: Mapping[str, str]) -> None:
    """Say how settings are typed here, such as ``{"output_dir": "--output"}``; others are typed as ``--setting``."""
    _TYPED.clear()
    _TYPED.update(names)


def as_typed(text: str) -> str:
    """A message about settings in the words of the command line; what looks like a part of a path is left alone."""
    return _IDS.sub(lambda found: _TYPED.get(found["id"], f"--{found['id']}"), text)


_REFUSALS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS), FIX_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions, or choose another place"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG), "see what lies there, or choose another place"
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), FIX_FILES),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "see that the disk is there and works"),
}
_SHOWN = 1000  # faults of a datalist in one message


class GlasWsolError(Exception):
    """Base of every failure a user can cause and correct.

    Args:
        what: what is wrong, a short clause without a full stop.
        where: the file, line or setting it was found in; empty where ``what`` says it already.
        fix: what to do about it, an imperative clause without a full stop.
    """

    exit_code = 1
    """Status that a process ends with."""

    def __init__(self, what: str, where: object = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, str(where), fix
        place = f" [{self.where}]" if self.where else ""
        remedy = f": {fix}" if fix else ""
        super().__init__(readable(f"{what}{place}{remedy}".replace("\n", " ")))

    def __reduce__(self) -> tuple:  # whatever arguments a subclass takes: it comes whole out of another process
        new = vars(copyreg)["__newobj__"]  # a name that type stubs lack
        return new, (type(self), *self.args), vars(self)

    @staticmethod
    def behind(error: BaseException) -> GlasWsolError | None:
        """The `GlasWsolError` that MONAI wrapped, once per level; None where there is none."""
        return next((cause for cause in exception_chain(error) if isinstance(cause, GlasWsolError)), None)

    @staticmethod
    def of_system(error: BaseException) -> GlasWsolError | None:
        """What the system refused because room, files or a working disk are lacking; None of any other error.

        Args:
            error: as caught; of what it was caused by the innermost counts.
        """
        refusals = [one for one in exception_chain(error) if isinstance(one, OSError) and one.errno in _REFUSALS]
        if not refusals:
            return None
        found = refusals[-1]
        return OutputError(str(found.strerror).lower(), found.filename or "", _REFUSALS[found.errno or 0])


class ArchiveError(GlasWsolError):
    """An archive that is damaged, another one than expected, or unsafe to unpack."""


class ConfigError(GlasWsolError):
    """A setting that does not exist, has a value out of range, or contradicts another one."""


class ImageFileError(GlasWsolError):
    """A file that is not a readable 2-D image, or is larger than the pixel budget."""


class WeightsError(GlasWsolError):
    """Weights that are missing, damaged, unsafe to load, or made for another network."""


class SplitError(GlasWsolError):
    """A split that the data set does not have, or that cannot be trained or evaluated on."""


class OutputError(GlasWsolError):
    """An output place that cannot be written."""


class BusyError(OutputError):
    """An output place that another process is at work on."""


class NumericalError(GlasWsolError):
    """A loss or a map that is not a finite number."""


class IncompleteError(GlasWsolError):
    """A run that ended with results of some images and failures of others; its process ends with status 3."""

    exit_code = 3


class DatalistError(GlasWsolError):
    """Every fault of a data set at once; the message names the first thousand and how many more there are.

    Args:
        where: the table or folder that was read.
        faults: one short line per fault, each naming its row or file.
        fix: what to do about them.
    """

    def __init__(self, where: object, faults: Sequence[str], fix: str = "correct these entries") -> None:
        self.faults = tuple(faults)
        more = len(self.faults) - _SHOWN
        shown = [*self.faults[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        super().__init__(f"{count(len(self.faults), 'fault')} in the data: " + "; ".join(shown), where, fix)
