# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draws a result for a pathologist: the image with its mask, class and remarks above, key below."""

from __future__ import annotations

from os import PathLike

import numpy as np

from glas_wsol.errors import OutputError
from glas_wsol.results.class_scores import ClassProbabilities
from glas_wsol.results.how_to_read import familiarity_in_words, reading_guide
from glas_wsol.results.localization import Localization
from glas_wsol.writers.drawing import overlay, write_png

__all__ = ["draw_overlay", "write_overlay"]


def draw_overlay(found: Localization) -> np.ndarray:
    """Draw a result onto its image, see :func:`~glas_wsol.writers.drawing.overlay`.

    The header says the class, what the model was trained on, how familiar the image is, the alarm of its training run,
    what the classifier makes of the undecidable region where that means anything, and the image's name; below the key
    is how to read it all.

    Raises:
        OutputError: if it has no image.
    """
    if found.image is None:
        fix = "keep the image in the result, or leave the overlay out"
        raise OutputError("there is no image to draw on", found.path or found.name, fix)
    title = ", ".join(f"{name} {100 * p:.0f} %" for name, p in found.named.items())
    return overlay(
        found.image,
        found.decidable,
        found.mask,
        title or found.class_name or "no class named",
        found.name,
        evidence=found.evidence,
        threshold=found.threshold,
        notes=_notes(found),
        guide=_guide(found) if found.evidence else (),
    )


def write_overlay(path: str | PathLike[str], found: Localization) -> None:
    """Write :func:`draw_overlay` as PNG.

    Raises:
        OutputError: where the file cannot be written, or the image was not kept.
    """
    write_png(path, draw_overlay(found), found.mpp)


def _notes(found: Localization) -> list[str]:
    """What is said between the class and the image's name, the most important first."""
    notes = [found.trained_on]
    if found.unlike_training:
        notes.insert(0, familiarity_in_words(found.familiarity))
    elif found.familiarity is not None:
        notes = [f"{found.trained_on}; {familiarity_in_words(found.familiarity)}"]
    alarm = found.provenance.alarm if found.provenance else None
    if alarm is not None:
        notes.append(str(alarm))
    if found.pixel_size_remark:
        notes.append(f"NOTE: {found.pixel_size_remark}")
    if not found.evidence:
        return [f"reason: {found.reason}", *notes] if found.reason else notes
    undecidable = found.class_scores.regions[1]
    if undecidable is not None:
        notes.append(f"undecidable region alone: {_likeliest(found, undecidable)}")
        if found.remark:
            notes.append(f"NOTE: {found.remark}")
    return notes


def _likeliest(found: Localization, scores: ClassProbabilities) -> str:
    best = int(np.argmax(scores.probabilities))
    chance = 50 if found.multi_label else round(100 / len(found.classes))
    return f"{found.classes[best]} {100 * scores.probabilities[best]:.0f} % (chance {chance} %)"


def _guide(found: Localization) -> tuple[str, ...]:
    scores = found.class_scores
    scored = scores.undecidable is not None
    return reading_guide(scores.knows_mask if scored else None, len(found.classes), found.multi_label)
