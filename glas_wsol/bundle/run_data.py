# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The data of a run: read when the config is; the phantom is drawn only when more than its classes is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from glas_wsol.data.cub import CUB5_CLASSES
from glas_wsol.data.datalist import Datalist, load_datalist
from glas_wsol.data.glas import GLAS_CLASSES

__all__ = ["run_datalist"]


def run_datalist(dataset_dir: partial[str], **settings: Any) -> Any:
    """What :func:`~glas_wsol.data.load_datalist` reads.

    Args:
        dataset_dir: :func:`~glas_wsol.bundle.resolve_dataset`, not yet called (``"_mode_": "callable"``).
        settings: further arguments of ``load_datalist``.

    Returns:
        A :class:`~glas_wsol.data.Datalist`; of the phantom one that is drawn on first use, and has its ``classes``
        before: building a network, as ``monai.bundle.load`` does, needs no data.
    """
    given = dataset_dir.keywords

    def read() -> Datalist:
        return load_datalist(dataset_dir(), **settings)

    if given["dataset_dir"] != "phantom":
        return read()
    if given["kind"] == "tissue":
        return _Undrawn(GLAS_CLASSES, read)
    return _Undrawn(CUB5_CLASSES, read) if settings.get("classes") == "cub5" else read()


class _Undrawn:
    """A datalist that is read when anything but its classes is asked for."""

    def __init__(self, classes: tuple[str, ...], read: Callable[[], Datalist]) -> None:
        self.classes, self._read = classes, cache(read)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for these
            raise AttributeError(name)
        return getattr(self._read(), name)
