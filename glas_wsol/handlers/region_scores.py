# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What M and C said while they predicted, for the postprocessing."""

from __future__ import annotations

from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from glas_wsol.inferers.class_scores import ClassScoreInferer

__all__ = ["RegionScores"]


class RegionScores:
    """Adds what an :class:`~glas_wsol.inferers.class_scores.ClassScoreInferer` was told, ``[B, c]`` each, to an evaluator's output.

    Args:
        inferer: the evaluator's own.
    """

    def __init__(self, inferer: ClassScoreInferer) -> None:
        self.inferer = inferer

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Hand over."""
        engine.state.output.update(self.inferer.class_scores)
