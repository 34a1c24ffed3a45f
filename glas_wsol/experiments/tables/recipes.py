# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Checks that the runs of one method share a recipe, and lists in what the recipes of methods differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from glas_wsol.errors import ConfigError
from glas_wsol.experiments.tables.runs import EvaluatedRun

__all__ = ["check_recipe", "unshared_settings"]

# Settings that seed and fold decide, under any prefix: they differ between the runs of one method.
_OF_THE_RUN = frozenset(
    {
        "seed",
        "fold",
        "fold_seed",
        "training_images",
        "validation_images",
        "best_epoch",
        "total_steps",
        "steps of the schedule",  # of reports of before
        "first_stage",  # the digest of the model that a second stage went on from
    }
)
# What identifies a method; every table has it.
_OF_THE_METHOD = frozenset({"method", "passes", "class", "supervision", "names_class"})
# Other facts of a report that must be the same within a method.
_FACTS = (
    "trunk",
    "trunk_weights_sha256",
    "threshold",
    "threshold_rule",
    "selection_rule",
    "supervision",
    "names_class",
)
_PLAIN = {"flips": False, "rotations": False, "scales": [1.0]}  # the views of a report without any


def check_recipe(title: str, runs: Sequence[EvaluatedRun]) -> None:
    """Refuse, by a ConfigError, runs of one method, or their views, that differ in more than seed and fold decide."""
    first, then = runs[0], _settings(runs[0])
    widths: dict[str, int] = {}
    for run in runs:
        for key, values in run.rows.items():
            if widths.setdefault(key, values.shape[1]) != values.shape[1]:
                what = f"two runs of {title} hold {key} in different forms: two versions made them"
                raise ConfigError(what, f"{first.folder}, {run.folder}", "evaluate all with one version")
        now, absent = _settings(run), object()
        names = [name for name in then | now if then.get(name, absent) != now.get(name, absent)]
        if names:
            said = [f"{name} is {_said(then, name)} there and {_said(now, name)} here" for name in names[:3]]
            said += [f"and {len(names) - 3} more"] if len(names) > 3 else []
            what = f"two runs of {title} are not of one recipe: {', '.join(said)}"
            raise ConfigError(what, f"{first.folder}, {run.folder}", "make tables of one recipe at a time")


def _said(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "absent"


def unshared_settings(
    runs: Mapping[str, EvaluatedRun],
) -> tuple[dict[str, list[tuple[str, list[str]]]], dict[str, list[str]]]:
    """What the recipes of methods do not share; methods that nothing was trained for are left out.

    Args:
        runs: one run of each method, by the method's label.

    Returns:
        By setting that all trained methods have: its values as text, each with the labels of the methods that have it.
        By setting that only some methods have: the labels of those methods.
    """
    trained = {label: _settings(run) for label, run in runs.items() if run.facts["recipe"] is not None}
    for settings in trained.values():
        for name in [name for name in settings if name.rpartition("#")[2] in _OF_THE_METHOD]:
            settings.pop(name)
        if settings.get("weights") == settings["trunk_weights_sha256"]:
            settings.pop("weights")
    differ: dict[str, list[tuple[str, list[str]]]] = {}
    own: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for settings in trained.values() for name in settings):
        having = [label for label, settings in trained.items() if name in settings]
        if len(having) < len(trained):
            own[name] = having
        values: dict[str, list[str]] = defaultdict(list)
        for label in having:
            values[_text(trained[label][name])].append(label)
        if len(values) > 1:
            differ[name] = list(values.items())
    return differ, own


def _settings(run: EvaluatedRun) -> dict[str, Any]:
    recipe = run.facts["recipe"] or {}
    own = {name: value for name, value in recipe.items() if name.rpartition("#")[2] not in _OF_THE_RUN}
    views = {f"views: {name}": value for name, value in (run.facts.get("views") or _PLAIN).items()}
    return {name: run.facts[name] for name in _FACTS} | views | own


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return f"{value[:12]}..."
    return f"{text[:57]}..." if len(text) > 60 else text or "none"
