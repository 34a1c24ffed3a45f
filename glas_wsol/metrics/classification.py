# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure classes of images: errors, ranking, cross-entropy, and the score models are selected by.

Where an image may have several classes, its label is a multi-hot vector ``[c]`` and probabilities are one per class,
no distribution. Those of at least 0.5 are named, and an image is right where exactly its classes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.metrics.measures import MULTI_LABEL
from glas_wsol.metrics.metric_base import MeasureMetric, RowMetric
from glas_wsol.utils.labels import LEAST_PROBABILITY

__all__ = ["Answer", "BalancedError", "ClassificationError", "CrossEntropy", "RocAuc", "SelectionScore", "class_of"]

_LEAST = 1e-12  # the logarithm of a probability that float32 rounded to 0 stays finite


class Answer(NamedTuple):
    """An image's label, and a method's prediction of it.

    Attributes:
        label: the class index; or ``[c]`` bool, the classes it has.
        probabilities: ``[c]``.
    """

    label: int | np.ndarray
    probabilities: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """``[1]`` bool; or ``[c]``, which of the classes are wrongly named or wrongly left out."""
        if isinstance(self.label, np.ndarray):
            return (self.probabilities >= LEAST_PROBABILITY) != self.label
        return np.array([self.probabilities.argmax() != self.label])

    @property
    def error(self) -> float:
        """1 unless the class, or every one of the classes, is right."""
        return float(self.wrong.any())

    @property
    def loss(self) -> float:
        """``-log p(label)``; of several classes the mean over them of the binary cross-entropy."""
        of_label = self.probabilities[self.label]
        if isinstance(self.label, np.ndarray):
            of_label = np.where(self.label, self.probabilities, 1 - self.probabilities)
        return -float(np.log(np.maximum(of_label, _LEAST)).mean())

    def row(self, values: np.ndarray) -> list[float]:
        """The label, and values beside it, as :data:`~glas_wsol.metrics.MEASURES` take them."""
        label = [MULTI_LABEL, *self.label] if isinstance(self.label, np.ndarray) else [self.label]
        return [float(value) for value in (*label, *values)]


def class_of(item: Mapping[str, Any], key: str = "probabilities") -> Answer | None:
    """``label`` and class probabilities ``[c]`` of an evaluated item; None from a method that names no class."""
    if item.get(key) is None:
        return None
    label = torch.as_tensor(item["label"]).cpu()
    probabilities = torch.as_tensor(item[key]).detach().cpu().double().numpy()
    return Answer(int(label) if label.numel() == 1 else label.numpy() > 0, probabilities)


class ClassificationError(MeasureMetric):
    """Share of images whose most probable class is not the label, in [0, 1].

    Of several classes, the share of images of which not exactly the classes they have are named ("exact match").

    Images without probabilities are left out; without any, the value is not a number.

    Args:
        key: where the output holds the class probabilities ``[c]``. Defaults to those of C on X+.
    """

    def __init__(self, key: str = "probabilities") -> None:
        self.key = key
        super().__init__("classification_error", self._row)

    def _row(self, item: Mapping[str, Any]) -> list[float] | None:
        answer = class_of(item, self.key)
        return None if answer is None else [answer.error]


class BalancedError(MeasureMetric):
    """1 - the mean recall of the classes that are present, in [0, 1]: a rare class counts as much as a common one.

    Of several classes, the mean over them of the same for "has it" and "has it not".

    Images without probabilities are left out; without any, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("balanced_error", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        answer = class_of(item)
        return None if answer is None else answer.row(answer.wrong)


class RocAuc(MeasureMetric):
    """Area under the receiver operating characteristic, in [0, 1]; ties count half.

    Of two classes, for class 1; of more, each class against all others, the mean over the classes that have both. Where
    an image may have several, each class, of two too.

    Images without probabilities are left out; without any, or with one class only, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("roc_auc", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        answer = class_of(item)
        return None if answer is None else answer.row(answer.probabilities)


def _wrong_and_loss(item: Mapping[str, Any]) -> list[float] | None:
    answer = class_of(item)
    return None if answer is None else [answer.error, answer.loss]


class CrossEntropy(RowMetric):
    """Mean ``-log p(label)`` over the images, at least 0; not a number where no image has probabilities.

    Of several classes, the mean over images and classes of the binary cross-entropy.
    """

    def __init__(self) -> None:
        super().__init__(self._row, lambda rows: rows.mean())

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        row = _wrong_and_loss(item)
        return None if row is None else row[1:]


class SelectionScore(RowMetric):
    """What the best model maximises: fewest validation errors, among equals the lowest validation loss.

    The score is ``-(errors + loss / (1 + loss))``: the number of errors is whole and the squashed loss below 1, so
    that no loss outweighs an error. Errors and loss are those of :class:`ClassificationError` and
    :class:`CrossEntropy`: of several classes, an image is an error unless exactly its classes are named. No pixel label
    has any part in it. A method that names no class scores 0 at every epoch: they tie, and the rule for ties decides
    between them.

    Args:
        ties: ``"loss"`` (default), or ``"last"`` to leave the loss out: equal scores then go to the later epoch.

    Raises:
        ConfigError: if it has another value.
    """

    def __init__(self, ties: str = "loss") -> None:
        if ties not in ("loss", "last"):
            raise ConfigError(f"selection ties={ties!r}", "SelectionScore", "choose loss or last")
        self.ties = ties
        super().__init__(_wrong_and_loss, self._score, empty=0.0)

    def _score(self, rows: np.ndarray) -> float:
        errors, loss = rows[:, 0].sum(), rows[:, 1].mean()
        return -float(errors + (loss / (1 + loss) if self.ties == "loss" else 0.0))
