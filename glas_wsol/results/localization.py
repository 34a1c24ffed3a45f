# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Hold the result of one image: mask, class and class scores. Evaluation measures it, every writer writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from glas_wsol.results.boxes import MIN_BOX_AREA, Box, find_boxes
from glas_wsol.results.class_scores import ClassScores
from glas_wsol.results.how_to_read import familiarity_in_words, is_strange
from glas_wsol.results.provenance import NOT_RECORDED, Provenance
from glas_wsol.utils.labels import LEAST_PROBABILITY, SEPARATOR

__all__ = ["THRESHOLD", "Localization"]

THRESHOLD = 0.5
"""Fixed by training (the pseudo-threshold's centre); nothing is tuned on pixel labels."""


@dataclass(frozen=True)
class Localization:
    """Which pixels decided, and for which class.

    Its arrays are read-only: what was derived from them stays true.

    Attributes:
        name: the image's name, unique in its run.
        path: the image's file, empty if it came from memory.
        classes: class names in label order.
        probabilities: of the class that is named, one per class, sum 1 unless ``multi_label``: ``p(class | X+)`` of the
            classifier on the decidable region where the network uses it (the paper's does), else computed from the
            whole image; empty where the method names no class (a U-Net, a stain's threshold).
        decidable: ``[H, W]`` float32, soft decidable region ``R+`` in [0, 1], at the image's own size.
        evidence: False if the image shows nothing to decide on: its mask is empty and its class means nothing.
        threshold: of ``decidable``, for the mask.
        min_box_area: a part of the mask below this share of the image's area gets no box.
        reason: why there is no evidence (see
            :func:`~glas_wsol.results.tissue_presence.missing_evidence`); empty if there is.
        multi_label: whether an image may have several classes: those at least as probable as not are named.
        class_scores: of M for the whole image, and of C for the decidable and the undecidable region, with or without
            evidence; those that the method has. :attr:`remark` says where they mean little.
        familiarity: how much the image looks like those that the model was trained on, in [0, 1], see
            :class:`~glas_wsol.networks.familiarity.Familiarity`; None where not known.
        image: ``[H, W, 3]`` uint8 RGB, the image itself; None where it was not kept.
        mpp: width and height of a pixel in micrometres; None where unknown.
        assumed_mpp: micrometres of a pixel that the network was made to assume, as ``mpp`` is unknown; None where it is
            known, or the model records none. No area is computed from it.
        pixel_size_remark: what to know of ``mpp`` and ``assumed_mpp``; empty where the image was brought to the pixel
            size of the training.
        provenance: what it was made with; None where not given.
    """

    name: str
    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    decidable: np.ndarray = field(repr=False)
    evidence: bool
    threshold: float = THRESHOLD
    min_box_area: float = MIN_BOX_AREA
    reason: str = ""
    multi_label: bool = False
    class_scores: ClassScores = field(default_factory=ClassScores)
    familiarity: float | None = None
    image: np.ndarray | None = field(default=None, repr=False)
    mpp: tuple[float, float] | None = None
    assumed_mpp: float | None = None
    pixel_size_remark: str = ""
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        for name in ("decidable", "image"):
            array = getattr(self, name)
            if array is not None:
                view = np.asarray(array).view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self.decidable.shape
        return height, width

    @property
    def mask(self) -> np.ndarray:
        """``[H, W]`` bool: the decidable region; empty without evidence."""
        return (self.decidable >= self.threshold) & self.evidence

    @property
    def undecidable(self) -> np.ndarray:
        """``[H, W]`` float32, ``R- = 1 - R+``: how little each pixel decided, in [0, 1]."""
        return 1 - self.decidable

    @property
    def undecidable_mask(self) -> np.ndarray:
        """``[H, W]`` bool: the undecidable region, all that is not in the mask; the whole image without evidence."""
        return ~self.mask

    @property
    def label(self) -> int | None:
        """Index of the most probable class, with evidence or without; None where the method names no class."""
        return int(np.argmax(self.probabilities)) if self.probabilities else None

    @property
    def labels(self) -> tuple[int, ...]:
        """Indices of the classes named, with evidence or without; empty where the method names no class.

        Where an image may have several, they are those of at least 0.5, if any.
        """
        if self.multi_label:
            return tuple(k for k, p in enumerate(self.probabilities) if p >= LEAST_PROBABILITY)
        return () if self.label is None else (self.label,)

    @property
    def predicted(self) -> str:
        """Names of :attr:`labels`, joined by ``;``, or ``"no class"``; empty where the method names no class."""
        if self.probabilities and not self.labels:
            return "no class"
        return SEPARATOR.join(self.classes[label] for label in self.labels)

    @property
    def class_name(self) -> str:
        """The result in words: its class or classes as :attr:`predicted`, or ``"no evidence"``."""
        return self.predicted if self.evidence else "no evidence"

    @property
    def named(self) -> dict[str, float]:
        """The classes named, in label order, each with its probability; empty without evidence."""
        return {self.classes[k]: self.probabilities[k] for k in self.labels} if self.evidence else {}

    @property
    def probability(self) -> float | None:
        """Probability of the most probable class; None without evidence and where the method names no class."""
        return None if self.label is None or not self.evidence else self.probabilities[self.label]

    @property
    def remark(self) -> str:
        """What a reader must know of the class scores of the two regions; empty without any, and without evidence."""
        return self.class_scores.remark(self.labels) if self.evidence else ""

    @property
    def unlike_training(self) -> bool | None:
        """Whether the image is unlike the training images; None where not known."""
        return is_strange(self.familiarity)

    @property
    def trained_on(self) -> str:
        """What the model was trained on, in words."""
        return self.provenance.trained_on if self.provenance else NOT_RECORDED

    def __str__(self) -> str:
        """The result in a few lines."""
        said = ", ".join(f"{name} {100 * p:.0f} %" for name, p in self.named.items()) or self.class_name
        alarm = self.provenance.alarm if self.provenance else None
        lines = [
            f"{self.name}: {said or 'no class named'}, decidable {100 * self.decidable_fraction:.0f} % of the image",
            self.reason and f"reason: {self.reason}",
            self.remark,
            self.pixel_size_remark,
            self.trained_on,
            familiarity_in_words(self.familiarity),
            "" if alarm is None else str(alarm),
        ]
        return "\n".join(filter(None, lines))

    @property
    def decidable_fraction(self) -> float:
        """Share of the image in the mask, in [0, 1]."""
        return float(self.mask.mean())

    @property
    def decidable_area(self) -> int:
        """Pixels of the mask."""
        return int(self.mask.sum())

    def square_micrometres(self, pixels: float) -> float | None:
        """An area in square micrometres; None where the size of a pixel is unknown."""
        return None if self.mpp is None else pixels * self.mpp[0] * self.mpp[1]

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes around the mask's connected parts, the largest first."""
        return find_boxes(self.decidable, self.mask, self.min_box_area)
