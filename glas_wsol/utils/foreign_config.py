# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the ``inference.json`` of a bundle that somebody else made as data: its flat settings, nothing executed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glas_wsol.errors import ConfigError
from glas_wsol.utils.configs import RENAMED, executed_parts
from glas_wsol.utils.json_files import read_json

__all__ = ["OF_POSTPROCESSING", "ForeignConfig", "agreed_settings", "setting_id"]

logger = logging.getLogger(__name__)

_NO_SETTINGS = ("_desc_", "imports", "network", "load_model", "initialize", "run", "finalize", "handlers")
_PIPELINE = ("network_def", "preprocessing", "inferer", "postprocessing")
_OWN_KEYS = ("_target_", "_desc_", "checkpoint")
OF_POSTPROCESSING = ("threshold", "min_box_area")


class ForeignConfig:
    """The ``inference.json`` of a bundle, as data: nothing of it is executed.

    Args:
        folder: of the bundle; any other folder gives no settings.

    Attributes:
        content: what it holds; empty where it is not there.

    Raises:
        ConfigError: if it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.content = folder / "configs" / "inference.json", {}
        if self.file.is_file():
            try:
                self.content: dict[str, Any] = dict(read_json(self.file))
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError("cannot be read", self.file, "export the bundle again") from error

    def settings(self, own: Mapping[str, Any], names: Collection[str], fix: str) -> dict[str, Any]:
        """The flat settings that differ from the package's own.

        Args:
            own: content of the package's own ``inference.json``.
            names: ids of those to look at.
            fix: what to do about one that is an expression; ``{name}`` and ``{id}`` are replaced by its own.

        Raises:
            ConfigError: if such a setting is an expression, or not a plain value.
        """
        others = [name for name in _PIPELINE if name in self.content and self._differs(name, own)]
        if others:
            what = "%s: its %s is not this package's own and is not run; the package's own is"
            logger.warning(what, self.file, " and ".join(others))
        found = {}
        for identifier, value, shipped in self._flat(own):
            if value == shipped or identifier not in names:
                continue
            if isinstance(value, Mapping) or executed_parts(value):
                name = identifier.rpartition("#")[2]
                what = f"{name!r} is an expression, which is not run here"
                raise ConfigError(what, self.file, fix.format(name=name, id=identifier))
            found[identifier] = value
        return found

    def card(self) -> dict[str, Any]:
        """What the bundle assumes of a model without ``model.json``; a ConfigError if it is more than data."""
        found = self._part("card")
        faults = executed_parts(found, "card")
        if faults:
            raise ConfigError(f"{faults[0]} is more than data, which is not run here", self.file, "correct it")
        return found

    def _part(self, name: str) -> dict[str, Any]:
        part = self.content.get(name)
        return {k: v for k, v in part.items() if k not in _OWN_KEYS} if isinstance(part, Mapping) else {}

    def _flat(self, own: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Id, value and the package's own value of every flat setting."""
        for given, value in self.content.items():
            name = RENAMED.get(given, given)
            if name in own and name not in _NO_SETTINGS and not isinstance(own[name], Mapping):
                yield name, value, own[name]
        for name in OF_POSTPROCESSING:
            if name in self._part("postprocessing"):
                yield setting_id(name), self.content["postprocessing"][name], None

    def _differs(self, name: str, own: Mapping[str, Any]) -> bool:
        theirs, ours = self.content[name], own.get(name)
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            left_out = ("_desc_", *OF_POSTPROCESSING)
            theirs, ours = ({k: v for k, v in one.items() if k not in left_out} for one in (theirs, ours))
        return theirs != ours


def setting_id(name: str) -> str:
    """The id of a setting in ``inference.json``."""
    return f"postprocessing#{name}" if name in OF_POSTPROCESSING else name


def agreed_settings(
    bundles: Sequence[ForeignConfig], own: Mapping[str, Any], names: Collection[str], fix: str
) -> dict[str, Any]:
    """The flat settings of the bundles around one model or several, see :meth:`ForeignConfig.settings`.

    Raises:
        ConfigError: if two bundles differ in a setting.
    """
    each = [bundle.settings(own, names, fix) for bundle in bundles]
    for name in dict.fromkeys(name for one in each for name in one):
        values = [one.get(name, own.get(name)) for one in each]
        if any(value != values[0] for value in values):
            said, short = " and ".join(repr(value) for value in values), name.rpartition("#")[2]
            what = f"the bundles set {short!r} to {said}"
            raise ConfigError(what, bundles[0].file, fix.format(name=short, id=name))
    return each[0] if each else {}
