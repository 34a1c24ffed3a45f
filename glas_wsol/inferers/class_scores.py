# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Class scores of M for a whole image, and of C for its decidable and its undecidable region; what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.base import choose
from glas_wsol.networks.ensemble import EnsembleNetwork
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork

__all__ = [
    "DECIDABLE",
    "LOCALIZER",
    "MISSED",
    "UNDECIDABLE",
    "UNKNOWN_MASK",
    "ClassScoreInferer",
    "Opinion",
    "Opinions",
    "predict_with_scores",
    "presence_of",
]

LOCALIZER = "localizer_opinion"
"""Key of an evaluated item: ``[c]``, what M says of the whole image."""

DECIDABLE = "decidable_opinion"
"""Key of an evaluated item: ``[c]``, what C says of ``X+``; ``[0]`` where that is the class named, said already."""

UNDECIDABLE = "undecidable_opinion"
"""Key of an evaluated item: ``[c]``, what C says of ``X-``."""


MISSED = "the undecidable region alone names {} as surely: the mask does not hold all that decided"
"""Remark on a result of which C says so."""

UNKNOWN_MASK = "class scores of the two regions are no evidence: the classifier has not learnt on this kind of mask"
"""Remark on a result whose mask C has not learnt on."""


@dataclass(frozen=True)
class Opinion:
    """How probable each class is to one part of the network, given some of the image.

    Attributes:
        probabilities: one per class, in label order; they sum to 1 unless ``several``.
        several: whether an image may have several classes.
    """

    probabilities: tuple[float, ...]
    several: bool = False

    @property
    def entropy(self) -> float:
        """In nats: 0 where it is sure, ``log c`` where it knows nothing.

        Of several classes per image the mean over the classes of "has it or not", at most ``log 2``.
        """
        p = np.asarray(self.probabilities, dtype=np.float64)
        parts = np.stack([p, 1 - p]) if self.several else p[None]
        logs = np.log(parts, where=parts > 0, out=np.zeros_like(parts))
        total = -(parts * logs).sum(axis=0)
        return max(0.0, float(total.mean() if self.several else total.sum()))

    @property
    def normalised_entropy(self) -> float:
        """:attr:`entropy` as a share of the largest it can be, in [0, 1]."""
        return min(1.0, self.entropy / math.log(2 if self.several else len(self.probabilities)))


@dataclass(frozen=True)
class Opinions:
    """All class scores of an image; None of those that a method does not have, or nobody asked for.

    Attributes:
        localizer: of M, on the whole image.
        decidable: of the classifier C on ``X+ = X R+``.
        undecidable: of C on ``X- = X (1 - R+)``: even, if nothing there decides.
        knows_mask: whether C has learnt on masks like this one. If not, as of a second stage's masks, what it says of
            the two regions is no evidence about them: :attr:`regions` and :meth:`remark` pass it over.
    """

    localizer: Opinion | None = None
    decidable: Opinion | None = None
    undecidable: Opinion | None = None
    knows_mask: bool = True

    @property
    def regions(self) -> tuple[Opinion | None, Opinion | None]:
        """Of the decidable and of the undecidable region, where they are evidence: what may be shown to a reader."""
        return (self.decidable, self.undecidable) if self.knows_mask else (None, None)

    def remark(self, labels: Sequence[int]) -> str:
        """What a reader must know of the scores of the two regions; empty where there is nothing.

        C is trained to know nothing of the undecidable region. Where it knows as much of it as of the decidable one, in
        whole percent, the mask does not hold all that decided.

        Args:
            labels: the classes named.
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
        return MISSED.format("another class") if not rest.several and any(highest >= p for p in sure.values()) else ""


def predict_with_scores(network: Any, image: Tensor, class_scores: str = "all") -> tuple[Tensor, dict[str, Tensor]]:
    """A network's prediction and, in the same forward where it can be, what M and C say besides.

    A refined network that names the class by M has no more to say. One that names it by C on the first stage's own mask
    is asked what C makes of the two regions of the refined mask: of masks that it has not learnt on, see
    :attr:`Opinions.knows_mask`.

    Args:
        network: any of :mod:`glas_wsol.networks`, or another callable, which is asked for no more than its prediction.
        image: ``[B, 3, H, W]``, in [0, 1].
        class_scores: see :class:`ClassScoreInferer`.

    Returns:
        ``network(image)``, or with ``class_scores="localizer"`` the same with M's class; and the class_scores by
        :data:`LOCALIZER`, :data:`DECIDABLE` and :data:`UNDECIDABLE`, ``[B, c]`` each; those that the network has.
        ``[B, 0]`` of the decidable part where it is the class named, which the prediction holds. An ensemble's are the
        means over its members, where every member has one.
    """
    if isinstance(network, EnsembleNetwork):
        return _consult_members(network, image, class_scores)
    refined = isinstance(network, RefinedNetwork) and network.has_classifier
    if not refined and not isinstance(network, MinMaxEntropyNetwork):
        return network(image), {}
    prediction, logits = network.answer(image) if class_scores != "localizer" else network.localizer_answer(image)
    said = {LOCALIZER: logits}
    c_names = class_scores != "localizer" and (not refined or network.asks_classifier)
    if c_names:
        said[DECIDABLE] = logits[:, :0]
    if class_scores == "all" and not (refined and network.asks_localizer):
        x, rest = network.normalise(image), prediction[:, :1]
        said[UNDECIDABLE] = network.classify(x * rest)
        if not c_names:
            said[DECIDABLE] = network.classify(x * (1 - rest))
    return prediction, {key: network.probabilities(scores.double()) for key, scores in said.items()}


def _consult_members(network: EnsembleNetwork, image: Tensor, class_scores: str) -> tuple[Tensor, dict[str, Tensor]]:
    answers = [predict_with_scores(member, image, class_scores) for member in network.members]
    prediction = network.combine([found for found, _ in answers])
    if len({frozenset((key, one.shape) for key, one in said.items()) for _, said in answers}) > 1:
        # members of several kinds, whose C is asked of other things
        keys = [LOCALIZER] if all(LOCALIZER in said for _, said in answers) else []
    else:
        keys = list(answers[0][1])
    return prediction, {key: torch.stack([said[key] for _, said in answers]).mean(dim=0) for key in keys}


class ClassScoreInferer(WholeTileInferer):
    """A :class:`~glas_wsol.inferers.WholeTileInferer` that also keeps what M and C say, in nearly the same work.

    The prediction is the same to the last bit. C on the rest is one more forward of C, of its input's resolution; M has
    spoken already. Of several views it is the mean of what is said of each.

    Args:
        args: of :class:`~glas_wsol.inferers.WholeTileInferer`.
        class_scores: ``"all"`` (default) asks M, and C on the decidable and on the undecidable region; ``"class"`` runs
            C only to name the class; ``"localizer"`` does not run C at all: the mask is the same, the class is M's of
            the whole image. Each is quicker than the one before.
        kwargs: of :class:`~glas_wsol.inferers.WholeTileInferer`.

    Attributes:
        asked: the argument ``class_scores``.
        class_scores: of the last call, as :func:`predict_with_scores` gives them.

    Raises:
        ConfigError: if a value is out of range.
    """

    def __init__(self, *args: Any, class_scores: str = "all", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choose("class_scores", class_scores, ("all", "class", "localizer"))
        self.asked = class_scores
        self.class_scores: dict[str, Tensor] = {}

    def settings(self) -> dict[str, Any]:
        """What a result depends on besides the network, as JSON values."""
        return {**super().settings(), "class_scores": self.asked}

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Predict, and ask.

        Args:
            inputs: ``[B, 3, H, W]``, in [0, 1].
            network: any of :mod:`glas_wsol.networks`.
            args: must be none.
            kwargs: must be none.

        Returns:
            ``[B, 1 + c, H, W]``.
        """
        said: list[dict[str, Tensor]] = []

        def ask(view: Tensor) -> Tensor:
            prediction, class_scores = predict_with_scores(network, view, self.asked)
            said.append(class_scores)
            return prediction

        prediction = super().__call__(inputs, ask, *args, **kwargs)
        self.class_scores = {key: torch.stack([one[key] for one in said]).mean(dim=0) for key in said[0]}
        return prediction


def presence_of(network: Any, inferer: WholeTileInferer, image: Tensor) -> Tensor:
    """How probable each class is of an image that may have several, after the inferer has predicted it.

    Args:
        network: has ``presence``.
        inferer: that predicted; where it asks M only, M has said it already.
        image: ``[B, 3, H, W]``, in [0, 1].

    Returns:
        ``[B, c]``, in [0, 1], the mean over the inferer's views.
    """
    if isinstance(inferer, ClassScoreInferer) and inferer.asked == "localizer":
        return inferer.class_scores[LOCALIZER].to(image.dtype)
    return torch.stack([network.presence(view) for view in inferer.views(image)]).mean(dim=0)
