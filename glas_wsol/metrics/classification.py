# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Image-level metrics: classification error, cross-entropy, and the score models are selected by."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from glas_wsol.errors import ConfigError

__all__ = ["ClassificationError", "CrossEntropy", "SelectionScore"]

_LEAST_PROBABILITY = 1e-12  # the logarithm of a probability that float32 rounded to 0 stays finite


def _is_wrong(probabilities: Tensor, label: Tensor) -> Tensor:
    return (probabilities.argmax(dim=1) != label.flatten()).float().unsqueeze(1)


def _cross_entropy(probabilities: Tensor, label: Tensor) -> Tensor:
    return -probabilities.gather(1, label.view(-1, 1)).clamp(min=_LEAST_PROBABILITY).log()


class _Classified(CumulativeIterationMetric):
    """Per-image values of class probabilities ``[B, c]`` and labels ``[B]``, and their mean."""

    def __init__(self, compute: Any) -> None:
        super().__init__()
        self._compute = compute

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        return self._compute(y_pred, y)

    def aggregate(self) -> Tensor:
        return self.get_buffer().mean()


class _ClassifiedHandler(IgniteMetricHandler):
    def __init__(self, metric: CumulativeIterationMetric, key: str = "probabilities") -> None:
        self.key = key
        super().__init__(metric_fn=metric, output_transform=self._probabilities_and_labels)

    def _probabilities_and_labels(self, output: Any) -> tuple[Tensor, Tensor]:
        probabilities, labels = from_engine([self.key, "label"])(output)
        return torch.stack(probabilities).cpu(), torch.as_tensor([int(label) for label in labels])


class ClassificationError(_ClassifiedHandler):
    """Share of images whose most probable class is not the label, in [0, 1].

    Args:
        key: where the output holds the class probabilities ``[c]``. Defaults to those of C on X+.
    """

    def __init__(self, key: str = "probabilities") -> None:
        super().__init__(_Classified(_is_wrong), key)


class CrossEntropy(_ClassifiedHandler):
    """Mean ``-log p(label)`` over the images, at least 0."""

    def __init__(self) -> None:
        super().__init__(_Classified(_cross_entropy))


class _Selection(CumulativeIterationMetric):
    def __init__(self, ties: str) -> None:
        super().__init__()
        self.ties = ties

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        return torch.cat([_is_wrong(y_pred, y), _cross_entropy(y_pred, y)], dim=1)

    def aggregate(self) -> Tensor:
        values = self.get_buffer().double()
        errors, loss = values[:, 0].sum(), values[:, 1].mean()
        return -(errors + (loss / (1 + loss) if self.ties == "loss" else 0.0))


class SelectionScore(_ClassifiedHandler):
    """What the best model maximises: fewest validation errors, among equals the lowest validation loss.

    The score is ``-(errors + loss / (1 + loss))``: the number of errors is whole and the squashed loss below 1, so
    that no loss outweighs an error. No pixel label has any part in it.

    Args:
        ties: ``"loss"`` (default), or ``"last"`` to leave the loss out: equal scores then go to the later epoch.

    Raises:
        ConfigError: on another word.
    """

    def __init__(self, ties: str = "loss") -> None:
        if ties not in ("loss", "last"):
            raise ConfigError(f"selection ties={ties!r}", "SelectionScore", "choose loss or last")
        super().__init__(_Selection(ties))
