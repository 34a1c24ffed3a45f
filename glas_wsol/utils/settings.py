# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Comparing the settings of two runs: what a component was made with, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from typing import Any

__all__ = ["as_json", "changes", "describe", "settings_of"]


def settings_of(component: Any, prefix: str = "") -> dict[str, Any]:
    """What a component says it was made with; nothing where it does not say.

    Args:
        component: may have a method ``settings()``.
        prefix: put before every name.
    """
    settings = component.settings() if hasattr(component, "settings") else {}
    return {f"{prefix}{name}": value for name, value in settings.items()}


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they come back from a file: tuples as lists.

    Args:
        settings: JSON values and tuples.
    """
    return json.loads(json.dumps(settings))


def changes(then: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """One clause per setting that differs; a setting that is absent counts as None.

    Args:
        then: the settings of the earlier run.
        now: those of this one.
        names: which to compare, in the order of the clauses.
    """
    return [f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in names if then.get(k) != now.get(k)]


def describe(value: Mapping[str, Any], leave_out: Collection[str] = ("max_pixels",)) -> dict[str, Any]:
    """What components were made with: of any object its class and attributes, of a network its settings.

    Args:
        value: JSON values, paths, and objects of them, such as transforms and inferers.
        leave_out: attributes of no matter for results. Defaults to the pixel budget.

    Returns:
        JSON values by their path in ``value``, joined by ``#``. Of what has no attributes of its own (functions,
        generators of random numbers) there is the name alone.
    """
    found: dict[str, Any] = {}

    def walk(one: Any, path: str, above: tuple[int, ...]) -> None:
        if isinstance(one, Mapping):
            for key, part in one.items():
                if key not in leave_out:
                    walk(part, f"{path}#{key}" if path else str(key), above)
        elif isinstance(one, (list, tuple)) and not all(map(_plain, one)):
            for number, part in enumerate(one):
                walk(part, f"{path}#{number}", above)
        elif isinstance(one, (list, tuple)) or _plain(one):
            found[path] = one
        elif isinstance(one, PathLike):
            found[path] = str(one)
        elif hasattr(one, "tolist") and not isinstance(one, type):  # arrays, tensors and their numbers
            found[path] = one.tolist()
        elif isinstance(one, type) or callable(getattr(one, "__get__", None)) or id(one) in above:
            found[path] = getattr(one, "__qualname__", type(one).__qualname__)
        else:
            found[path] = getattr(one, "__qualname__", type(one).__qualname__)
            own = {} if hasattr(one, "state_dict") or not hasattr(one, "__dict__") else dict(sorted(vars(one).items()))
            walk(settings_of(one) or own, path, (*above, id(one)))

    walk(value, "", ())
    return as_json(found)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
