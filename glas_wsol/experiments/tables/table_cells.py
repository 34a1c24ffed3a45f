# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Formats the cells of one group's tables: values, intervals, notes and published values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glas_wsol.bundle.methods import PIXEL_LABELS, UNTRAINED
from glas_wsol.errors import count
from glas_wsol.experiments.published import PUBLISHED_DATASETS, published_backbone, published_value
from glas_wsol.experiments.tables.comparison import Comparison, Difference, Estimate
from glas_wsol.experiments.tables.groups import Cell, Group, MethodRuns
from glas_wsol.experiments.tables.layout import Footnotes
from glas_wsol.metrics.bootstrap import NO_WIDTH
from glas_wsol.metrics.measures import Measure
from glas_wsol.results.localization import THRESHOLD

__all__ = ["TableContext", "measure_entries", "p_value", "percent", "signed", "title_of_measure", "without_width"]

PUBLISHED_COLUMN = "publ."
_FEW_IMAGES, _FEW_SEEDS = 20, 10  # below these a note warns of a bootstrap of so few
_SEEN = {  # what the models of a split's images have already to do with them
    "train": "split train: the models were trained on these very images, and every value flatters them",
    "valid": "split valid: the models were chosen by the class labels of these very images, which flatters their class "
    "measures",
}


@dataclass(frozen=True)
class TableContext:
    """Everything a table of one group is made from.

    Attributes:
        measures: by key, in the order printed.
    """

    group: Group
    measures: Mapping[str, Measure]
    comparison: Comparison

    def shown(self, oracle: bool = False) -> list[Measure]:
        """The measures that were not, or were, computed with a threshold chosen on pixel labels."""
        return [measure for measure in self.measures.values() if measure.oracle == oracle]

    def estimate(self, method: MethodRuns, measure: Measure) -> Estimate | None:
        """The value with its interval; None where there is none, or the method names no class."""
        if measure.needs == "class" and not method.first.facts["names_class"]:
            return None
        return self.comparison.estimate(method, measure)

    def difference(self, method: MethodRuns, other: MethodRuns, measure: Measure) -> Difference | None:
        """``method`` minus ``other``; None where one has no value or they have no run in common."""
        if self.estimate(method, measure) is None or self.estimate(other, measure) is None:
            return None
        return self.comparison.difference(method, other, measure)

    def published(self, method: MethodRuns, measure: Measure | str) -> float | None:
        """The paper's value, as a share."""
        key = measure if isinstance(measure, str) else measure.key
        return published_value(self.group.dataset, self.group.synthetic, method.name, method.passes, key)

    @property
    def has_published(self) -> bool:
        """Whether the paper has a column for this data set."""
        return not self.group.synthetic and self.group.dataset in PUBLISHED_DATASETS

    def name(self, method: MethodRuns, notes: Footnotes | None = None, full: bool = False) -> str:
        """The method's title with its marks: what it learns from, whether runs are missing, a threshold set by hand.

        Args:
            notes: receive what runs are missing, and the threshold.
            full: add the backbone where there are several, for tables without a column for it.
        """
        mark = {PIXEL_LABELS: " †", UNTRAINED: " ‡"}.get(method.supervision, "")
        missing = self.group.missing(method)
        if missing and notes is not None:
            mark += " " + notes.mark(
                f"no runs of {_cells_said(missing)}. Its values are of the runs it has; "
                "differences are of the runs both methods have"
            )
        elif self._lone(method) and notes is not None:
            mark += " " + notes.mark("one seed: its interval holds for that one training only")
        facts = method.first.facts
        if facts["threshold"] != THRESHOLD and notes is not None:
            mark += " " + notes.mark(f"threshold of the mask {facts['threshold']:g}: {facts['threshold_rule']}")
        title = self.group.label(method) if full else method.title
        if full and title == method.title and method.backbone and len(self._backbones) > 1:
            title += f", {method.backbone}"
        return title + mark

    @property
    def _backbones(self) -> set[str]:
        return {method.backbone for method in self.group.methods if method.backbone}

    def _lone(self, method: MethodRuns) -> bool:
        return method.supervision != UNTRAINED and len(method.seeds) == 1 and self.most_seeds > 1

    @property
    def most_seeds(self) -> int:
        """The largest number of seeds of a trained method; 0 where none is trained."""
        return max((len(method.seeds) for method in self.group.methods if method.supervision != UNTRAINED), default=0)

    def cell(self, method: MethodRuns, measure: Measure, notes: Footnotes) -> str:
        """``value [lo, hi]``, or a dash with the reason as a footnote."""
        estimate = self.estimate(method, measure)
        if estimate is None:
            return "-" + notes.mark(self._reason(method, measure))
        text = f"{_number(estimate.value, measure)} {_bounds(estimate.lo, estimate.hi, measure)}"
        if estimate.method == "wilson":
            text += " " + notes.mark(
                "no error seen, or only errors: no resample differs, so the interval is Wilson's, for the images alone"
            )
        elif without_width(estimate, measure) and (method.name, measure.key) != (
            "all_ones",
            "f1_background",
        ):  # always 0
            text += " " + notes.mark(NO_WIDTH)
        if estimate.n < method.n_images:
            text += " " + notes.mark(f"measured on {estimate.n} of {method.n_images} images")
        return text

    def _reason(self, method: MethodRuns, measure: Measure) -> str:
        if measure.needs == "class" and not method.first.facts["names_class"]:
            return "the method names no class"
        if measure.needs == "mask" and not any(run.facts["n_with_masks"] for run in method.runs.values()):
            return "no evaluated image has a true mask"
        return "no value on these images"

    def mark_notes(self) -> tuple[str, ...]:
        """What the daggers mean, where there are any."""
        marks = {
            PIXEL_LABELS: "† pixel labels: trained on the true masks, an upper bound and no rival",
            UNTRAINED: "‡ not trained: no label of any kind, no seed",
        }
        return tuple(text for kind, text in marks.items() if any(r.supervision == kind for r in self.group.methods))

    def interval_notes(self) -> tuple[str, ...]:
        """How the intervals were made, in words."""
        c = self.comparison
        how = (
            f"value [low, high]: mean over seeds, with a {100 * c.level:g} % interval: percentile bootstrap, "
            f"{c.resamples} resamples, drawing images and seeds again with replacement, the same for every method"
        )
        notes = [how]
        n, k = max(method.n_images for method in self.group.methods), self.most_seeds
        if n < _FEW_IMAGES:
            notes.append(
                f"only {count(n, 'image')}: intervals and p of so few are too narrow and too small, not to be relied on"
            )
        if k == 1:
            notes.append("one seed: the intervals hold for that one training only, another training may lie outside")
        elif 1 < k < _FEW_SEEDS:
            notes.append(
                f"only {k} seeds: what trainings add to the spread is understated (its variance by about 1/{k})"
            )
        if k and self.group.split in _SEEN:
            notes.append(_SEEN[self.group.split])
        return tuple(notes)

    def data_note(self) -> str:
        """Backbone, images, seeds and folds, for tables without columns for them."""
        trained = [method for method in self.group.methods if method.supervision != UNTRAINED] or self.group.methods
        data = {(method.n_images, len(method.seeds), len(method.folds)) for method in trained}
        if len(self._backbones) > 1 or len(data) > 1:
            return "n, seeds and folds of each method are in table 1a"
        n, seeds, folds = data.pop()
        backbone = "".join(f"backbone {name}, " for name in self._backbones)
        return f"{backbone}n = {n}{f', seeds: {seeds}' if self.most_seeds else ''}, folds: {folds}"

    def published_notes(self) -> tuple[str, ...]:
        """What stands in the published columns, where there are any."""
        if not self.has_published:
            return ()
        g, size = self.group, PUBLISHED_DATASETS[self.group.dataset]
        n = max(method.n_images for method in g.methods)
        ours, others = published_backbone("minmax"), published_backbone("cam_avg")
        here = "" if (g.split, n) == ("test", size) else f", not these {n} of split {g.split}"
        return (
            f"{PUBLISHED_COLUMN}: published in the paper (tables 1 and 2), one training each, {ours} for min-max "
            f"entropy and {others} for its rivals, on the test set of {size} images{here}",
        )

    def where(self) -> dict[str, Any]:
        """The first columns of every CSV."""
        return {"dataset": self.group.dataset, "synthetic": self.group.synthetic, "split": self.group.split}


def title_of_measure(measure: Measure) -> str:
    """The measure's title with its unit."""
    return f"{measure.title} ({measure.unit})"


def measure_entries(measure: Measure) -> dict[str, Any]:
    """Columns of every record about its measure."""
    unit = "share" if measure.unit == "%" else measure.unit
    return {"measure": measure.key, "unit": unit, "higher_is_better": measure.higher_is_better}


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent, empty where there is none."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def signed(difference: Difference, measure: Measure) -> str:
    """``+value [+lo, +hi]`` of a difference."""
    return f"{_number(difference.value, measure, '+')} {_bounds(difference.lo, difference.hi, measure, '+')}"


def without_width(found: Estimate | Difference, measure: Measure) -> bool:
    """Whether both bounds of the interval are printed as the same number."""
    return _number(found.lo, measure) == _number(found.hi, measure) and not math.isnan(found.lo)


def p_value(p: float) -> str:
    """A p value to three decimals."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float, measure: Measure, sign: str = "") -> str:
    # Adding 0 makes a plain zero of what rounds to minus zero.
    return f"{round(100 * value if measure.unit == '%' else value, 1) + 0.0:{sign}.1f}"


def _bounds(lo: float, hi: float, measure: Measure, sign: str = "") -> str:
    if math.isnan(lo):
        return "[-]"
    return f"[{_number(lo, measure, sign)}, {_number(hi, measure, sign)}]"


def _cells_said(cells: list[Cell]) -> str:
    said = [f"seed {seed} fold {fold}" for seed, fold in cells]
    return ", ".join(said[:4]) + (f" and {len(said) - 4} more" if len(said) > 4 else "")
