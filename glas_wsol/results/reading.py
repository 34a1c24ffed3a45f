# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Explain in three lines how to read a result, the same in the overlay and in the report."""

from __future__ import annotations

__all__ = ["reading_guide"]


def reading_guide(regions: bool | None, classes: int, multi_label: bool = False) -> tuple[str, str, str]:
    """Explain what the mask, the probability and the class scores of the regions mean.

    Args:
        regions: whether class scores of the two regions are shown; False where they were requested and mean nothing
            (see :class:`~glas_wsol.results.class_scores.ClassScores`), None where there are none.
        classes: how many there are.
        multi_label: whether an image may have several classes.
    """
    chance = 50 if multi_label else round(100 / max(1, classes))
    third = "Undecidable: what this model did not decide by. It may still matter to you."
    if regions:
        third = (
            f"Undecidable region alone: near {chance} % (chance) nothing there decides; as sure as the class, "
            "the mask misses something."
        )
    elif regions is not None:
        third = "No class scores of the regions: the classifier has not learnt on masks of the second stage."
    return (
        "Decidable: what decided for this model. It is no segmentation and no proof of cause.",
        "Probabilities are the model's own: on images unlike its training data they may be far too sure.",
        third,
    )
