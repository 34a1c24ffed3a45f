# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Check values before they enter a config, since MONAI executes some; and resolve a config's ids."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from monai.bundle import ConfigParser

from glas_wsol.errors import ConfigError, GlasWsolError

__all__ = ["RENAMED", "executed_parts", "parsed", "plain_path", "refuse_renamed"]

RENAMED = {
    "classes_per_image": "multi_label",
    "opinion": "class_from",
    "opinions": "class_scores",
    "overlap": "prefetch",
    "rest": "undecidable",
    "seeds_over": "seed_scope",
}
"""Former names of settings and of arguments of components, with the present ones."""

_NOW = {
    "classes_per_image": "give multi_label: true for several classes, false for one",
    "seeds_over": "give seed_scope: source, dataset, image or both",
    "read_training": "give read",
    "refine#dataset#copy_cache": "leave it out: the second stage sets it itself",
    "refine#network_def": "give refined_network#network",
    "refine#optimizer": "give second_stage",
    "refine#handlers#6": "give second_stage",
    "refine": "give second_stage",
}
"""What to do about a former id, or one that begins with it, where its new name alone does not say it."""

_ACTIVE = ("$", "@", "%")  # an expression, a reference, a macro


def executed_parts(value: Any, identifier: str = "") -> list[str]:
    """The parts of some values that would be more than data in a config: a short clause each."""
    if isinstance(value, Mapping):
        found = [f"{identifier}: the key {key!r:.100}" for key in value if _is_active(str(key))]
        return found + [part for key, one in value.items() for part in executed_parts(one, f"{identifier}#{key}")]
    if isinstance(value, (list, tuple)):
        return [part for number, one in enumerate(value) for part in executed_parts(one, f"{identifier}#{number}")]
    return [f"{identifier}: {value!r:.100}"] if isinstance(value, str) and value.startswith(_ACTIVE) else []


def _is_active(key: str) -> bool:
    return "#" in key or "::" in key or (key.startswith("_") and key.endswith("_"))


def refuse_renamed(identifier: str, where: object) -> None:
    """Refuse a setting under a name that it no longer has: a ConfigError gives its present one."""
    parent, _, name = identifier.rpartition("#")
    begun = next((old for old in _NOW if f"{identifier}#".startswith(f"{old}#")), None)
    if begun is not None:
        rest = identifier.removeprefix(begun).split("#")
        fix = _NOW[begun] + "#".join(RENAMED.get(part, part) for part in rest)
    elif name in RENAMED:
        fix = f"give {parent + '#' if parent else ''}{RENAMED[name]}"
    else:
        return
    raise ConfigError(f"{identifier!r} has another name now", where, fix)


def plain_path(path: str | PathLike[str]) -> str:
    """A path written so that a config takes it as text, whatever it begins with."""
    text = str(path)
    return f"./{text}" if text.startswith(_ACTIVE) else text


def parsed(parser: ConfigParser, identifier: str) -> Any:
    """The value or component of an id, instantiated; its GlasWsolErrors come without what MONAI wraps around them."""
    try:
        return parser.get_parsed_content(identifier)
    except Exception as error:
        own = GlasWsolError.behind(error)
        if own is None:
            raise
        raise own from None
