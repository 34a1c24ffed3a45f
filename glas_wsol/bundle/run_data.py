# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Provides a run's data set, read together with the config; the phantom is drawn only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from glas_wsol.data.cub import CUB5_CLASSES
from glas_wsol.data.datalist import Datalist, load_datalist
from glas_wsol.data.glas import GLAS_CLASSES
from glas_wsol.errors import ConfigError
from glas_wsol.utils import distributed

__all__ = ["resolve_dataset", "run_datalist"]


def resolve_dataset(
    dataset_dir: str | None,
    phantom_dir: str,
    kind: str = "tissue",
    options: Mapping[str, Any] | None = None,
    below: str = "",
) -> str:
    """The folder to read: the user's, or the phantom, made on first use.

    Args:
        dataset_dir: a folder or a table, or the word ``phantom`` for synthetic data.
        phantom_dir: where the phantom is written.
        kind: ``tissue`` (GlaS layout) or ``birds`` (CUB-200-2011 layout).
        options: arguments of the phantom's writer.
        below: the phantom's folder of images, where images alone are wanted.

    Raises:
        ConfigError: if nothing is at ``dataset_dir``; None is not the phantom.
    """
    if dataset_dir == "phantom":
        from glas_wsol.data.phantom.birds import write_bird_phantom
        from glas_wsol.data.phantom.tissue import write_tissue_phantom

        write = {"tissue": write_tissue_phantom, "birds": write_bird_phantom}[kind]
        made = distributed.on_main(lambda: write(phantom_dir, progress=True, **(options or {})))
        return str(Path(made) / below)
    try:
        found = dataset_dir is not None and bool(str(dataset_dir).strip()) and Path(dataset_dir).exists()
    except (OSError, ValueError, TypeError):  # a name that no file can have, or no name at all
        found = False
    if dataset_dir is None or not found:
        fix = "give the path of a folder or table, or the word phantom for synthetic data"
        raise ConfigError("no such data set", dataset_dir or repr(dataset_dir), fix)
    return dataset_dir


def run_datalist(dataset_dir: partial[str], **settings: Any) -> Any:
    """What :func:`~glas_wsol.data.load_datalist` reads.

    Args:
        dataset_dir: :func:`~glas_wsol.bundle.resolve_dataset`, not yet called (``"_mode_": "callable"``).

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
    """A datalist that is read when more than its classes is needed."""

    def __init__(self, classes: tuple[str, ...], read: Callable[[], Datalist]) -> None:
        self.classes, self._read = classes, cache(read)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling look for these
            raise AttributeError(name)
        return getattr(self._read(), name)
