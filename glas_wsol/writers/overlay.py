# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A result as the overlay a pathologist opens: the class and what is said of it above, the key below."""

from __future__ import annotations

from os import PathLike

import numpy as np

from glas_wsol.errors import OutputError
from glas_wsol.results.class_scores import Opinion
from glas_wsol.results.localization import Localization
from glas_wsol.writers.images import overlay, write_png

__all__ = ["draw_overlay", "write_overlay"]


def draw_overlay(found: Localization) -> np.ndarray:
    """Draw a result onto its image, see :func:`~glas_wsol.writers.images.overlay`.

    The header says the class, what the classifier makes of the rest, the alarm of the run, and the image's name.

    Args:
        found: the result, with its image.

    Returns:
        ``[h, w, 3]`` uint8.

    Raises:
        OutputError: if the image was not kept.
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
    )


def write_overlay(path: str | PathLike[str], found: Localization) -> None:
    """Write :func:`draw_overlay` as PNG.

    Args:
        path: the file, whose folder exists.
        found: the result, with its image.

    Raises:
        OutputError: where the file cannot be written, or the image was not kept.
    """
    write_png(path, draw_overlay(found), found.mpp)


def _notes(found: Localization) -> list[str]:
    notes = []
    if found.reason and not found.evidence:
        notes.append(f"reason: {found.reason}")
    if found.evidence and found.opinions.undecidable is not None:
        notes.append(f"the rest alone: {_said(found, found.opinions.undecidable)}")
    alarm = found.provenance.alarm if found.provenance else None
    if alarm is not None:
        notes.append(f"trained run: {alarm.verdict} (probability of failure {alarm.score:.2f})")
    return notes


def _said(found: Localization, opinion: Opinion) -> str:
    likeliest = int(np.argmax(opinion.probabilities))
    shares = f"{found.classes[likeliest]} {100 * opinion.probabilities[likeliest]:.0f} %"
    return f"{shares}, entropy {opinion.normalised_entropy:.2f} of 1"
