# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Hold the class scores of an image: of M on the whole image, of C on the decidable and the undecidable region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "DECIDABLE",
    "FAMILIAR",
    "LOCALIZER",
    "MISSED",
    "PRESENCE",
    "UNDECIDABLE",
    "UNKNOWN_MASK",
    "WHOLE_IMAGE",
    "ClassProbabilities",
    "ClassScores",
]

PRESENCE = "presence"
"""Key of an evaluated item: ``[c]``, how probable each class is of an image that may have several."""

FAMILIAR = "familiar"
"""Key of an evaluated item: ``[]``, how much it looks like the training images, in [0, 1]."""

LOCALIZER = "localizer_scores"
"""Key of an evaluated item: ``[c]``, class scores of M on the whole image."""

DECIDABLE = "decidable_scores"
"""Key of an evaluated item: ``[c]``, class scores of C on ``X+``; ``[0]`` where the prediction already holds them."""

UNDECIDABLE = "undecidable_scores"
"""Key of an evaluated item: ``[c]``, class scores of C on ``X-``."""

WHOLE_IMAGE = ("localizer_probabilities", "whole_image_probabilities")
"""Keys of an evaluated item: ``[c]``, class scores of M and of C on the whole image, which evaluation adds."""

MISSED = "the undecidable region alone names {} as surely: the mask does not hold all that decided"
"""Remark on a result whose undecidable region C classifies as surely as the decidable one."""

UNKNOWN_MASK = "class scores of the two regions mean nothing: the classifier was not trained on this kind of mask"
"""Remark on a result with a kind of mask that C was not trained on."""


@dataclass(frozen=True)
class ClassProbabilities:
    """How probable each class is, by one head of the network, on one region of the image.

    Attributes:
        probabilities: one per class, in label order; they sum to 1 unless ``multi_label``.
        multi_label: whether an image may have several classes.
    """

    probabilities: tuple[float, ...]
    multi_label: bool = False

    @property
    def entropy(self) -> float:
        """In nats: 0 where one class is certain, ``log c`` where all are equally probable.

        Of several classes per image the mean over the classes of "has it or not", at most ``log 2``.
        """
        p = np.asarray(self.probabilities, dtype=np.float64)
        parts = np.stack([p, 1 - p]) if self.multi_label else p[None]
        logs = np.log(parts, where=parts > 0, out=np.zeros_like(parts))
        total = -(parts * logs).sum(axis=0)
        return max(0.0, float(total.mean() if self.multi_label else total.sum()))

    @property
    def normalised_entropy(self) -> float:
        """:attr:`entropy` as a share of the largest it can be, in [0, 1]."""
        return min(1.0, self.entropy / math.log(2 if self.multi_label else len(self.probabilities)))


@dataclass(frozen=True)
class ClassScores:
    """All class scores of an image; None of those that a method does not have, or that were not requested.

    Attributes:
        localizer: of M, on the whole image.
        decidable: of the classifier C on ``X+ = X R+``.
        undecidable: of C on ``X- = X (1 - R+)``: uniform, if nothing there decides.
        knows_mask: whether C was trained on masks like this one. If not, as with a second stage's masks, its scores of
            the two regions mean nothing: :attr:`regions` and :meth:`remark` leave them out.
    """

    localizer: ClassProbabilities | None = None
    decidable: ClassProbabilities | None = None
    undecidable: ClassProbabilities | None = None
    knows_mask: bool = True

    @property
    def regions(self) -> tuple[ClassProbabilities | None, ClassProbabilities | None]:
        """Of the decidable and of the undecidable region, where they mean something: what may be shown to a reader."""
        return (self.decidable, self.undecidable) if self.knows_mask else (None, None)

    def remark(self, labels: Sequence[int]) -> str:
        """What a reader must know of the scores of the two regions; empty where there is nothing.

        C is trained to be undecided on the undecidable region. Where it is as sure there as on the decidable region, in
        whole percent, the mask does not hold all that decided.
        """
        if not self.knows_mask and (self.decidable or self.undecidable):
            return UNKNOWN_MASK
        kept, rest = self.regions
        if kept is None or rest is None:
            return ""
        sure = {label: round(kept.probabilities[label], 2) for label in labels}
        if any(round(rest.probabilities[label], 2) >= least for label, least in sure.items()):
            return MISSED.format("the class")
        highest = round(max(rest.probabilities), 2)
        return (
            MISSED.format("another class") if not rest.multi_label and any(highest >= p for p in sure.values()) else ""
        )
