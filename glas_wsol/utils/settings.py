# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Record the settings that a run was made with, and find what has changed since."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any

from glas_wsol.utils.digests import digest_of

__all__ = ["Fingerprint", "as_json", "describe", "settings_of"]


def settings_of(component: Any, prefix: str = "") -> dict[str, Any]:
    """What a component's method ``settings()`` reports, each name after a prefix; nothing where it has none."""
    settings = component.settings() if hasattr(component, "settings") else {}
    return {f"{prefix}{name}": value for name, value in settings.items()}


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as read back from a file: tuples as lists."""
    return json.loads(json.dumps(settings))


class Fingerprint(dict[str, Any]):
    """What a result was made with, as JSON values by their ids: the one thing that a later run is compared with.

    Checkpoints, records of inference, pseudo-labels, evaluations and studies all store one.
    """

    @classmethod
    def of(cls, settings: Mapping[str, Any], components: Mapping[str, Any] | None = None) -> Fingerprint:
        """The fingerprint of settings and of the settings that components report."""
        own = {k: v for name, one in (components or {}).items() for k, v in settings_of(one, f"{name}#").items()}
        return cls(as_json({**settings, **own}))

    def changes(self, now: Mapping[str, Any], known: bool = False) -> list[str]:
        """One clause per setting that differs now; one that is absent counts as None.

        A flat setting that a component was given too is named once, by its flat id.

        Args:
            known: compare only what both have, within mappings too: a setting that is newer than the earlier run had
                no other value than its default then.
        """
        names = self.keys() & now.keys() if known else self.keys() | now.keys()
        pairs = {name: (self.get(name), now.get(name)) for name in sorted(names)}
        found = {name: pair for name, pair in pairs.items() if _differ(*pair, known)}
        twice = {name for name, pair in found.items() if "#" in name and found.get(name.rpartition("#")[2]) == pair}
        return [f"{name} was {a!r}, is {b!r}" for name, (a, b) in found.items() if name not in twice]

    def digest(self) -> str:
        """SHA-256, whatever the order."""
        return digest_of(self, sort_keys=True)


def _differ(then: Any, now: Any, known: bool) -> bool:
    if known and isinstance(then, Mapping) and isinstance(now, Mapping):
        return any(_differ(then[key], now[key], known) for key in then.keys() & now.keys())
    return then != now


def describe(value: Mapping[str, Any], leave_out: Collection[str] = ("max_pixels",)) -> Fingerprint:
    """What components were made with: of any object its class and attributes, of a network its settings.

    Args:
        value: JSON values, paths, and objects of them, such as transforms and inferers.
        leave_out: attributes that do not change results. Defaults to the pixel budget.

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
    return Fingerprint.of(found)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
