# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What stands behind an exception, and what to do where the system refuses something."""

from __future__ import annotations

__all__ = ["FIX_FILES", "FIX_ROOM", "causes"]

FIX_ROOM = "choose a folder that can be written and has room"
"""What to do where a place refuses what is written."""

FIX_FILES = "raise the limit (ulimit -n), or use fewer workers"
"""What to do where no more files may be opened."""


def causes(error: BaseException) -> list[BaseException]:
    """An exception and what it was raised from or in the handling of, the outermost first.

    Args:
        error: as caught.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain
