# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Comparing the settings of two runs: what a component was made with, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["as_json", "changes", "settings_of"]


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
