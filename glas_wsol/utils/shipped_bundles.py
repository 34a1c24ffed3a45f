# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Find the bundles and overlays: inside the installed package, or beside it in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glas_wsol.errors import ConfigError
from glas_wsol.utils.json_files import read_json
from glas_wsol.version import PACKAGE

__all__ = ["bundle_folder", "bundle_folders", "bundle_of", "is_shipped", "shipped_root"]

_PACKAGE = PACKAGE.resolve()
_SUFFIX = "_minmax_entropy"


def shipped_root() -> Path:
    """The folder that holds ``bundles/`` and ``configs/``; an exported bundle, of the copy in it."""
    return _PACKAGE if (_PACKAGE / "bundles").is_dir() else _PACKAGE.parent


def bundle_folders() -> list[Path]:
    """The bundles that came with the package, the one for tissue first; of the copy in an exported bundle that one."""
    root = shipped_root()
    if (root / "configs" / "inference.json").is_file():
        return [root]
    return sorted((root / "bundles").glob(f"*{_SUFFIX}"), key=lambda path: not path.name.startswith("glas"))


def bundle_of(classes: Any) -> Path | None:
    """The bundle that came with the package and has these classes, else that for tissue; None without any."""
    known = bundle_folders()
    cards = {folder: read_json(folder / "configs" / "inference.json").get("card", {}) for folder in known}
    return next((one for one in known if cards[one].get("classes") == classes), known[0] if known else None)


def is_shipped(file: str | Path) -> bool:
    """Whether a config came with the package."""
    return any(Path(file).resolve().is_relative_to(shipped_root() / name) for name in ("bundles", "configs"))


def bundle_folder(name: str | Path) -> Path:
    """A bundle's folder.

    Args:
        name: a path, or the name of a bundle that came with the package, such as ``glas`` or ``glas_minmax_entropy``.

    Raises:
        ConfigError: if it is neither.
    """
    # a name before a folder of that name: a folder of the working directory must not change what "glas" means
    named = (path for path in bundle_folders() if str(name) in (path.name, *_short(path)))
    path = next(named, Path(name).expanduser())
    if not (path / "configs").is_dir():
        names = " or ".join(_short(one)[0] for one in bundle_folders())
        raise ConfigError("no bundle here", name, f"give {names}, or a folder that holds configs/" if names else "")
    return path


def _short(bundle: Path) -> tuple[str, str]:
    """``glas`` of glas_minmax_entropy; ``cub`` and ``cub5`` of cub5_minmax_entropy."""
    name = bundle.name.removesuffix(_SUFFIX)
    return name.rstrip("0123456789"), name
