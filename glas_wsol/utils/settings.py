# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Record the settings that a run was made with, and find what has changed since."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any

from glas_wsol.utils.digests import digest_of

__all__ = ["Fingerprint", "as_json", "describe", "described", "settings_of"]


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

        A setting that a component was given too, or a component that another one holds, is named once, by the shorter.

        Args:
            known: compare only what both have, within mappings too: a setting that is newer than the earlier run had
                no other value than its default then.
        """
        names = self.keys() & now.keys() if known else self.keys() | now.keys()
        pairs = {name: (self.get(name), now.get(name)) for name in sorted(names)}
        found = {name: pair for name, pair in pairs.items() if _differ(*pair, known)}
        tails = {name: f"#{name.partition('#')[2] or name}" for name in found}
        twice = {
            name
            for name, pair in found.items()
            if any(len(one) < len(name) and name.endswith(tails[one]) and found[one] == pair for one in found)
        }
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


def described(components: Mapping[str, Any]) -> Fingerprint:
    """As :func:`describe`, by ids as they are typed, and without what changes while a component is used.

    Args:
        components: by their ids, such as transforms.

    Returns:
        An argument that a component hands on to one inside it is named as its own:
        ``augmentation#transforms#2#roi_size``.
    """
    found = describe(components)
    objects = {name.rpartition("#")[0] for name in found} & found.keys()
    named: dict[str, Any] = {}
    for name in sorted(found, key=lambda name: name.count("#")):  # its own come first
        parts = name.split("#")
        if any(part.startswith("_") and part != "_loader" for part in parts):  # there LoadImaged has its options
            continue
        paths = ["#".join(parts[: end + 1]) for end in range(len(parts))]
        handed_on = {end for end in range(1, len(parts)) if {paths[end - 1], paths[end]} <= objects}
        named.setdefault("#".join(part for end, part in enumerate(parts) if end not in handed_on), found[name])
    return Fingerprint(named)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
