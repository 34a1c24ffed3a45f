# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Image-level metrics: errors, ranking, cross-entropy, and the score models are selected by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.metrics.base import MeasureMetric, RowMetric

__all__ = ["BalancedError", "ClassificationError", "CrossEntropy", "RocAuc", "SelectionScore"]

_LEAST_PROBABILITY = 1e-12  # the logarithm of a probability that float32 rounded to 0 stays finite


def _class_of(item: Mapping[str, Any], key: str = "probabilities") -> tuple[int, np.ndarray] | None:
    """Label and class probabilities ``[c]``; None from a method that names no class."""
    if item.get(key) is None:
        return None
    return int(item["label"]), torch.as_tensor(item[key]).detach().cpu().double().numpy()


class ClassificationError(MeasureMetric):
    """Share of images whose most probable class is not the label, in [0, 1].

    Images without probabilities are left out; without any, the value is not a number.

    Args:
        key: where the output holds the class probabilities ``[c]``. Defaults to those of C on X+.
    """

    def __init__(self, key: str = "probabilities") -> None:
        self.key = key
        super().__init__("classification_error", self._row)

    def _row(self, item: Mapping[str, Any]) -> list[float] | None:
        known = _class_of(item, self.key)
        return None if known is None else [float(known[1].argmax() != known[0])]


class BalancedError(MeasureMetric):
    """1 - the mean recall of the classes that are present, in [0, 1]: a rare class counts as much as a common one.

    Images without probabilities are left out; without any, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("balanced_error", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        known = _class_of(item)
        return None if known is None else [known[0], float(known[1].argmax() != known[0])]


class RocAuc(MeasureMetric):
    """Area under the receiver operating characteristic, in [0, 1]; ties count half.

    Of two classes, for class 1; of more, each class against the rest, the mean over the classes that have both.
    Images without probabilities are left out; without any, or with one class only, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("roc_auc", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        known = _class_of(item)
        return None if known is None else [known[0], *known[1]]


def _wrong_and_loss(item: Mapping[str, Any]) -> list[float] | None:
    known = _class_of(item)
    if known is None:
        return None
    label, probabilities = known
    return [float(probabilities.argmax() != label), -float(np.log(max(probabilities[label], _LEAST_PROBABILITY)))]


class CrossEntropy(RowMetric):
    """Mean ``-log p(label)`` over the images, at least 0; not a number where no image has probabilities."""

    def __init__(self) -> None:
        super().__init__(self._row, lambda rows: rows.mean())

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        row = _wrong_and_loss(item)
        return None if row is None else row[1:]


class SelectionScore(RowMetric):
    """What the best model maximises: fewest validation errors, among equals the lowest validation loss.

    The score is ``-(errors + loss / (1 + loss))``: the number of errors is whole and the squashed loss below 1, so
    that no loss outweighs an error. No pixel label has any part in it. A method that names no class scores 0 at every
    epoch: they tie, and the rule for ties decides between them.

    Args:
        ties: ``"loss"`` (default), or ``"last"`` to leave the loss out: equal scores then go to the later epoch.

    Raises:
        ConfigError: on another word.
    """

    def __init__(self, ties: str = "loss") -> None:
        if ties not in ("loss", "last"):
            raise ConfigError(f"selection ties={ties!r}", "SelectionScore", "choose loss or last")
        self.ties = ties
        super().__init__(_wrong_and_loss, self._score, empty=0.0)

    def _score(self, rows: np.ndarray) -> float:
        errors, loss = rows[:, 0].sum(), rows[:, 1].mean()
        return -float(errors + (loss / (1 + loss) if self.ties == "loss" else 0.0))
