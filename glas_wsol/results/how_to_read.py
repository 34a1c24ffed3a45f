# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Explain in three lines how to read a result, the same in the overlay and in the report."""

from __future__ import annotations

__all__ = ["NOT_KNOWN", "STRANGE", "UNLIKE", "familiarity_in_words", "is_strange", "reading_guide"]

STRANGE = 0.01
"""An image of a lower familiarity is unlike the training images. Fixed beforehand: one in 100 of their kind is, too."""

UNLIKE = "unlike the training images"
"""What is said of such an image, wherever it is shown."""

NOT_KNOWN = "not known: the model does not describe its training images"
"""What is said of the familiarity of an image where the model has none."""


def is_strange(familiarity: float | None) -> bool | None:
    """Whether an image is unlike the training images.

    Args:
        familiarity: of the image, in [0, 1].

    Returns:
        None where it is not known.
    """
    return None if familiarity is None else familiarity < STRANGE


def familiarity_in_words(familiarity: float | None) -> str:
    """How much an image looks like the training images.

    Args:
        familiarity: of the image, in [0, 1]; None where not known.
    """
    if familiarity is None:
        return f"familiarity {NOT_KNOWN}"
    if familiarity < STRANGE:
        return f"{UNLIKE.upper()} (familiarity below 1 %)"
    return f"familiarity {100 * familiarity:.0f} %"


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
        f"Probabilities may be far too sure on images {UNLIKE}. Familiarity judges this image, the alarm the training.",
        third,
    )
