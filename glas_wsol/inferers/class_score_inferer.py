# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Predict with class scores: of M on the whole image, of C on its decidable and on its undecidable region."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from glas_wsol.inferers.whole_tile import WholeTileInferer
from glas_wsol.networks.base import choose
from glas_wsol.networks.ensemble import EnsembleNetwork
from glas_wsol.networks.familiarity import watched
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.results.class_scores import DECIDABLE, FAMILIAR, LOCALIZER, PRESENCE, UNDECIDABLE

__all__ = ["ClassScoreInferer", "predict_with_scores"]


def predict_with_scores(network: Any, image: Tensor, class_scores: str = "all") -> tuple[Tensor, dict[str, Tensor]]:
    """A network's prediction and, in the same forward where possible, the class scores of M and C.

    A refined network that names the class by M has no other scores. Where it names the class by C on the first stage's
    own mask, C also scores the two regions of the refined mask, a kind of mask that it was not trained on.

    Args:
        network: any of :mod:`glas_wsol.networks`, or another callable, of which only the prediction is used.
        image: ``[B, 3, H, W]``, in [0, 1].

    Returns:
        ``network(image)``, or with ``class_scores="localizer"`` the same with M's class; and the class scores by
        :data:`LOCALIZER`, :data:`DECIDABLE` and :data:`UNDECIDABLE`, ``[B, c]`` each; those that the network has.
        ``[B, 0]`` of the decidable region where it names the class, which the prediction holds. An ensemble's are the
        means over its members, where every member has one.
    """
    if isinstance(network, EnsembleNetwork):
        return _scores_of_members(network, image, class_scores)
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


def _scores_of_members(network: EnsembleNetwork, image: Tensor, class_scores: str) -> tuple[Tensor, dict[str, Tensor]]:
    answers = [predict_with_scores(member, image, class_scores) for member in network.members]
    prediction = network.combine([found for found, _ in answers])
    if len({frozenset((key, one.shape) for key, one in said.items()) for _, said in answers}) > 1:
        # members of several kinds, whose C scores other regions
        keys = [LOCALIZER] if all(LOCALIZER in said for _, said in answers) else []
    else:
        keys = list(answers[0][1])
    return prediction, {key: torch.stack([said[key] for _, said in answers]).mean(dim=0) for key in keys}


class ClassScoreInferer(Inferer):
    """Predicts whole tiles and returns the class scores of M and C beside the prediction, at little extra cost.

    The prediction is that of the inferer inside, to the last bit. C on the undecidable region is one more forward of C,
    of its input's resolution; M's scores are a by-product. Of several views the scores are the mean over them.

    Args:
        class_scores: ``"all"`` (default): M's, C's on the decidable region and C's on the undecidable one; ``"class"``
            runs C only to name the class, not on the undecidable region; ``"localizer"`` never runs C: the mask
            is the same, the class is M's of the whole image; ``"none"``: no scores. Each is quicker than the one
            before.

    Raises:
        ConfigError: if ``class_scores`` has another value.
    """

    def __init__(self, inferer: WholeTileInferer, class_scores: str = "all") -> None:
        super().__init__()
        choose("class_scores", class_scores, ("all", "class", "localizer", "none"))
        self.inferer, self.class_scores = inferer, class_scores

    def settings(self) -> dict[str, Any]:
        """What a result depends on besides the network, as JSON values."""
        return {**self.inferer.settings(), "class_scores": self.class_scores}

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Predict.

        Args:
            inputs: ``[B, 3, H, W]``, in [0, 1].
            network: any of :mod:`glas_wsol.networks`.

        Returns:
            ``pred``, ``[B, 1 + c, H, W]``; the class scores that the network has, by :data:`LOCALIZER`,
            :data:`DECIDABLE` and :data:`UNDECIDABLE`, ``[B, c]`` each (see :func:`predict_with_scores`);
            :data:`FAMILIAR`, ``[B]``, the mean over the views at the training resolution, where there are such and
            the network describes its training images; and, where an
            image may have several classes, :data:`PRESENCE`, ``[B, c]``: channels that share one decidable region
            do not hold how probable each class is.
        """
        seen: list[dict[str, Tensor]] = []
        scales, familiar = iter(self.inferer.scales()), []

        def predict(view: Tensor) -> Tensor:
            with watched(network) if next(scales) == 1 else nullcontext([]) as watching:
                if self.class_scores == "none":
                    prediction = network(view)
                else:
                    prediction, scores = predict_with_scores(network, view, self.class_scores)
                    seen.append(scores)
            familiar.extend(watching)
            return prediction

        prediction = self.inferer(inputs, predict, *args, **kwargs)
        found = {key: torch.stack([one[key] for one in seen]).mean(dim=0) for key in (seen[0] if seen else ())}
        if familiar:
            found[FAMILIAR] = torch.stack(familiar).mean(dim=0)
        if getattr(network, "multi_label", False):
            found[PRESENCE] = (
                found[LOCALIZER].to(inputs.dtype)
                if self.class_scores == "localizer"
                else torch.stack([network.presence(view) for view in self.inferer.views(inputs)]).mean(dim=0)
            )
        return {Keys.PRED: prediction, **found}
