# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the flat settings of the bundles may be, looked at before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from glas_wsol.errors import ConfigError

__all__ = ["check_settings"]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that a component would take for something else, or stumble over in words of its own.

    Args:
        settings: flat ids with their values. Ids that have no rule here pass: their components check them.

    Raises:
        ConfigError: naming every value that cannot be, and what may be given.
    """
    wrong = [(name, value, _allowed(name, value)) for name, value in settings.items() if _breaks(name, value)]
    if wrong:
        what = ", ".join(f"{name}={value!r}" for name, value, _ in wrong)
        fix = "; ".join(f"give {allowed}" if len(wrong) == 1 else f"{name}: {allowed}" for name, _, allowed in wrong)
        raise ConfigError(what, "settings", fix)
    for name in ("device", "data_device"):
        if name in settings:
            _check_device(name, settings[name])


def _breaks(name: str, value: Any) -> bool:
    return name in _RULES and not _RULES[name][0](value)


def _allowed(name: str, value: Any) -> str:
    rule, allowed = _RULES[name]
    # MONAI's command line hands over null as a text, and None not at all
    return f"{allowed}; null is typed '$None'" if value in ("null", "None") and rule(None) else allowed


def _check_device(name: str, device: Any) -> None:
    try:
        where = torch.device(str(device))  # a bare number would leave open of what: the configs look for "cuda"
    except RuntimeError as error:
        raise ConfigError(f"{name}={device!r} is no device", "settings", "give cpu, cuda, or cuda:1") from error
    if where.type != "cuda":
        return
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not there:
        raise ConfigError(f"{name}={device!r}, and torch finds no CUDA device", "settings", "give cpu")
    if where.index is not None and where.index >= there:
        fix = f"give cuda:0 to cuda:{there - 1}" if there > 1 else "give cuda"
        raise ConfigError(f"{name}={device!r}, and {there} CUDA devices are here", "settings", fix)


def _whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _or_null(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_text, value))


def _three(value: Any, rule: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(rule, value))


_ANY, _SOME = (_whole(0), "a whole number from 0"), (_whole(1), "a whole number from 1")
# "false" from a command line is a text, and a text that is not empty counts as true
_SWITCH = (lambda value: isinstance(value, bool), "True or False, with a capital on the command line")
_PROBABILITY = (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1")
_FROM_0 = (lambda value: _number(value) and value >= 0, "a number from 0")
_ABOVE_0 = (lambda value: _number(value) and value > 0, "a number above 0")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    # a folder called 2024 is a number to the command line
    **dict.fromkeys(("dataset_dir", "output_dir"), (_text, "a path; before a name that is a number put ./")),
    "trunk": (_text, "the name of one, such as efficientnet_lite0"),
    "classes": (_texts, "a list of names, as ['benign','malignant']"),
    "formats": (lambda value: _text(value) or _texts(value), "a list of them, as ['png','geojson']"),
    "seed": (_whole(0, 2**32 - 1), "a whole number from 0 to 4294967295"),
    **dict.fromkeys(("num_workers", "patience"), _ANY),
    **dict.fromkeys(("epochs", "batch_size", "val_interval", "crop_size", "refine_epochs"), _SOME),
    **dict.fromkeys(("refine_rounds", "refine_batch_size"), _SOME),
    # the rows that erase nothing say null
    "passes": (_or_null(_whole(0)), "0 for no erasing, or a whole number of forwards of the localizer"),
    **dict.fromkeys(("amp", "channels_last", "fused", "resume", "lr_per_epoch"), _SWITCH),
    **dict.fromkeys(("overlap", "overlays", "recursive", "rest", "rotations"), _SWITCH),
    "amp_dtype": (lambda value: value in ("bfloat16", "float16"), "bfloat16 or float16"),
    "compiler": (_or_null(_text), "null, or the name of a backend of torch.compile, such as inductor"),
    **dict.fromkeys(("vertical_flip", "rotation", "affine", "color_jitter", "stain_jitter"), _PROBABILITY),
    "seed_softness": _PROBABILITY,
    "dropout": (lambda value: _number(value) and 0 <= value < 1, "a number from 0, below 1"),
    "seed_share": (lambda value: _number(value) and 0 < value <= 0.5, "a number above 0, at most 0.5"),
    "decoder_width": (lambda value: _whole(8)(value) and value % 8 == 0, "a positive multiple of 8"),
    **dict.fromkeys(("reflect_fraction", "fill_holes", "drop_specks", "mask_threshold"), _FROM_0),
    "refine_lr": _ABOVE_0,
    "scale": (lambda value: _number(value) and 0 < value <= 100, "a number above 0, at most 100"),
    "short_side": (_or_null(_whole(1, 100_000)), "a whole number of pixels from 1 to 100000, or null"),
    "pixel_mean": (_or_null(lambda value: _three(value, _number)), "three numbers, or null"),
    "pixel_std": (
        _or_null(lambda value: _three(value, lambda one: _number(one) and one > 0)),
        "three numbers above 0, or null",
    ),
}
"""By flat id, what a value must be, and that in words."""
