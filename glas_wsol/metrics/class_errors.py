# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Count, class by class, which images are named wrongly, and what they are taken for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from glas_wsol.metrics.bootstrap import share_interval

__all__ = ["class_errors", "confusions"]

Named = tuple[Sequence[int], Sequence[int]]
"""Of an image: the classes that it has, and those that are named."""


def class_errors(classes: Sequence[str], images: Sequence[Named]) -> list[dict[str, Any]]:
    """For each class, in label order, how many of its images are not named so.

    Returns:
        For each class ``class``; ``images`` that have it; ``named``: images that are named so, rightly or not;
        ``errors`` among those that have it; ``error``, their share in [0, 1], and its 95 % interval ``low`` and
        ``high`` (Wilson's). The last three are None for a class without images.
    """
    present = Counter(label for labels, _ in images for label in labels)
    named = Counter(label for _, found in images for label in found)
    missed = Counter(label for labels, found in images for label in set(labels) - set(found))
    table = []
    for label, name in enumerate(classes):
        n, errors = present[label], missed[label]
        low, high = share_interval([1] * errors + [0] * (n - errors)) if n else (None, None)
        counts = {"class": name, "images": n, "named": named[label], "errors": errors}
        table.append(counts | {"error": errors / n if n else None, "low": low, "high": high})
    return table


def confusions(classes: Sequence[str], images: Sequence[Named]) -> list[dict[str, Any]]:
    """How many images of one class are named as another, or rightly; pairs without an image are left out.

    Args:
        images: of one class each.

    Returns:
        ``class``, ``named`` and ``images`` of every pair, in label order.
    """
    pairs = Counter((labels[0], found[0]) for labels, found in images)
    return [{"class": classes[k], "named": classes[j], "images": n} for (k, j), n in sorted(pairs.items())]
