# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Summarizes model, images, metrics and training at the top of a report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glas_wsol.errors import count
from glas_wsol.metrics.measures import MEASURES
from glas_wsol.report.cases import Case, number
from glas_wsol.report.run_folder import Contents
from glas_wsol.results.how_to_read import NOT_KNOWN, STRANGE, UNLIKE
from glas_wsol.version import __version__

__all__ = ["Count", "Fact", "Figure", "counts", "facts", "figures", "rounds", "shown", "training_facts"]

_ROUND_WORDS = {
    "margin": "margin of the labels, nats",
    "teachers_agree": "kappa of component and first stage",
    "loss": "loss",
    "student_agrees": "kappa of the masks and their seeds",
    "same_as_before": "kappa of the masks and those before",
}


@dataclass(frozen=True)
class Count:
    """How many images there are of some kind; ``state`` is the filter that shows them, where there is one."""

    value: int
    title: str
    state: str = ""


@dataclass(frozen=True)
class Fact:
    """A term and its value; ``code`` where that is a digest or a path."""

    term: str
    text: str
    code: bool = False


@dataclass(frozen=True)
class Figure:
    """A measure of an evaluation, as printed.

    ``below``: no better than its floor; ``without_width``: the bounds of its interval are printed alike.
    """

    title: str
    value: str
    interval: str = ""
    floor: str = ""
    images: str = ""
    better: str = "lower"
    below: bool = False
    without_width: bool = False


def counts(cases: Sequence[Case]) -> list[Count]:
    """How many images, of which classes, without evidence, failed, and of another class than the true one."""
    done = [case for case in cases if not case.failed]
    named = Counter(case.said for case in done if case.evidence and case.said)
    found = [Count(len(cases), "image" if len(cases) == 1 else "images", "all")]
    found += [Count(times, said) for said, times in sorted(named.items())]
    found.append(Count(sum(not case.evidence for case in done), "no evidence", "none"))
    if any(case.wrong is not None for case in done):
        found.append(Count(sum(bool(case.wrong) for case in done), "wrong class", "wrong"))
    if any(case.strange is not None for case in done):
        found.append(Count(sum(bool(case.strange) for case in done), UNLIKE, "strange"))
    found.append(Count(len(cases) - len(done), "failed", "failed"))
    return found


def facts(contents: Contents) -> list[Fact]:
    """What the model is, what it was run on, and how its threshold and itself were chosen; what is known of it."""
    card, evaluation, entry = contents.card, contents.evaluation, contents.entry
    first = _first_of(evaluation, card, entry)
    network = contents.made_with.get("network")
    network = network if isinstance(network, Mapping) else {}
    digests = _texts(entry.get("models") or evaluation.get("checkpoint_sha256") or card.get("sha256"))
    classes = _texts(first("classes")) or list(dict(entry.get("probabilities") or {}))
    threshold = number(first("threshold"))
    rule = evaluation.get("threshold_rule")
    done = [case for case in contents.cases if not case.failed]
    sizes = Counter(case.pixel_size for case in done if case.pixel_size)
    network_mpp = number(first("network_mpp")) or number(card.get("mpp"))
    paths = [os.path.dirname(case.image) for case in contents.cases if case.image]  # noqa: PTH120 as written, not here
    found = [
        Fact("Method", _text(first("method")) or _text(network.get("class"))),
        Fact("Learns from", _text(evaluation.get("supervision"))),
        Fact("Training data", contents.trained_on),
        Fact("Pixels, of the network", f"{network_mpp:.4g} um" if network_mpp else ""),
        Fact(
            "Pixels, of the images",
            "; ".join(f"{some} of {count(len(done), 'image')}: {said}" for said, some in sizes.items()),
        ),
        Fact("Trunk", _text(first("trunk"))),
        Fact("Classes", ", ".join(classes)),
        Fact("Weights, SHA-256", ", ".join(digests), code=True),
        Fact("Trunk's weights, SHA-256", _text(first("trunk_weights_sha256")), code=True),
        Fact("Trunk's licence", _text(first("trunk_licence"))),
        Fact("Model chosen by", _text(first("selection_rule"))),
        Fact("Epoch chosen", _text(card.get("epoch"))),
        Fact("Threshold of the mask", "" if threshold is None else f"{threshold:g}" + (f", {rule}" if rule else "")),
        Fact("Views averaged", _views(first("views"))),
        Fact("Familiarity", _familiarity(contents.cases)),
        Fact("Evaluated on" if evaluation else "Data set", _data(evaluation)),
        Fact("Split", ", ".join(filter(None, (_text(evaluation.get("split")), _named("fold", first("fold")))))),
        Fact("Seed", _text(first("seed"))),
        Fact("Images in", _common(paths), code=True),
        Fact("Results written", f"{contents.written:%Y-%m-%d %H:%M} UTC"),
        Fact("Version", _text(entry.get("version") or contents.made_with.get("glas_wsol")) or __version__),
    ]
    return [fact for fact in found if fact.text]


def _first_of(*sources: Mapping[str, Any]) -> Any:
    def first(key: str) -> Any:
        return next((source[key] for source in sources if source.get(key) not in (None, "")), None)

    return first


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(one) for one in value] if isinstance(value, Iterable) else []


def _named(name: str, value: Any) -> str:
    return "" if value is None else f"{name} {value}"


def _familiarity(cases: Sequence[Case]) -> str:
    done = [case for case in cases if not case.failed]
    if all(case.familiarity is None for case in done):
        return NOT_KNOWN if done else ""
    return f"judges each image, as the alarm does not: below {100 * STRANGE:g} % it is {UNLIKE}"


def _views(views: Any) -> str:
    if not isinstance(views, Mapping):
        return ""
    words = [name for name in ("flips", "rotations") if views.get(name)]
    scales = _texts(views.get("scales"))
    words += [f"scales {', '.join(scales)}"] if len(scales) > 1 or scales not in ([], ["1.0"], ["1"]) else []
    return ", ".join(words) or "one, the image as it is"


def _data(evaluation: Mapping[str, Any]) -> str:
    name = _text(evaluation.get("dataset"))
    return f"{name}: no evidence about real images" if name and evaluation.get("synthetic") else name


def _common(folders: Sequence[str]) -> str:
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # absolute and relative ones, or of several drives
        return ""


def figures(evaluation: Mapping[str, Any]) -> list[Figure]:
    """The measures of an evaluation with their intervals, the floor's beside them; no oracle's."""
    measures, floor = evaluation.get("measures") or {}, evaluation.get("floor") or {}
    found = []
    for key, measure in MEASURES.items():
        one = measures.get(key)
        if measure.oracle or not isinstance(one, Mapping):
            continue
        low, high = one.get("interval") or (None, None)
        bounds = (shown(low, measure.unit), shown(high, measure.unit))
        between = "" if low is None else " to ".join(bounds)
        other = shown(floor[key], measure.unit) if key in floor else ""
        better = "higher" if measure.higher_is_better else "lower"
        value, least = number(one.get("value")), number(floor.get(key))
        below = False
        if value is not None and least is not None:
            below = value <= least if measure.higher_is_better else value >= least
        found.append(
            Figure(
                f"{measure.title} ({measure.unit})",
                shown(value, measure.unit),
                between,
                other,
                _text(one.get("n")),
                better,
                below,
                low is not None and bounds[0] == bounds[1],
            )
        )
    others = evaluation.get("other_classification_errors") or {}
    words = {"localizer": "error of the localizer (%)", "whole_image": "error of the classifier, whole image (%)"}
    for key, title in words.items():
        if number(others.get(key)) is not None:
            found.append(Figure(title, shown(others[key])))
    return found


def shown(value: Any, unit: str = "%") -> str:
    """A figure as printed: 100 times a share in ``"%"``, or ``"px"``; a dash where it is not known."""
    found = number(value)
    return "-" if found is None else f"{100 * found if unit == '%' else found:.1f}"


def training_facts(contents: Contents) -> list[Fact]:
    """Training time, and validation results of the saved model."""
    found = []
    if contents.epochs:
        seconds = sum(number(epoch["seconds"]) or 0 for epoch in contents.epochs)
        device = contents.epochs[-1]["device"]
        found.append(Fact("Trained", f"{count(len(contents.epochs), 'epoch')}, {seconds / 60:.1f} minutes on {device}"))
    validation = contents.card.get("validation") or {}
    error = number(validation.get("classification_error"))
    if error is not None:
        found.append(Fact("Validation error of the model kept", f"{shown(error)} %"))
    recipe = contents.card.get("recipe") or {}
    for key, term in (("batch_size", "Batch size"), ("crop_size", "Crop, px"), ("batch_norm", "Batch normalisation")):
        if recipe.get(key) is not None:
            found.append(Fact(term, str(recipe[key])))
    return found


def rounds(contents: Contents) -> tuple[list[str], list[list[str]]]:
    """The rounds of a second stage: titles, and a line of figures for each; empty where there was none."""
    keys = [key for key in _ROUND_WORDS if any(key in one for one in contents.rounds)]
    if not keys:
        return [], []
    lines = [
        [str(place), *(f"{one[key]:.3f}" if key in one else "" for key in keys)]
        for place, one in enumerate(contents.rounds, start=1)
    ]
    return ["round", *(_ROUND_WORDS[key] for key in keys)], lines
