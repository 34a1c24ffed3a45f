# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Seeds of photographs end where the object's colours do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from glas_wsol.pseudo_labels.colour_evidence import correct_by_colour
from glas_wsol.pseudo_labels.seeds import IGNORE

SHAPE = 60, 90
PLUMAGE, LAWN = np.array([0.8, 0.3, 0.2]), np.array([0.3, 0.6, 0.3])


def photograph(colour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An object with a long side before a lawn, seeds with a wide margin around it, and where the object is."""
    bird = np.zeros(SHAPE, dtype=bool)
    bird[20:40, 25:60], bird[25:30, 60:72] = True, True
    rows = np.where(bird[None], colour[:, None, None], LAWN[:, None, None])
    image = (rows + np.random.default_rng(0).normal(0, 0.02, (3, *SHAPE))).clip(0, 1).astype(np.float32)
    distance = ndimage.distance_transform_edt(~bird)
    inside = ndimage.distance_transform_edt(bird)
    seeds = np.full(SHAPE, IGNORE, dtype=np.uint8)
    near = distance < 8
    seeds[near] = IGNORE + 60 + np.minimum(60, 6 * inside[near]).astype(np.uint8)
    seeds[distance > 14] = 20
    return image, seeds, bird


def test_margin_in_colours_of_background_is_undecidable():
    image, seeds, bird = photograph(PLUMAGE)
    found = correct_by_colour(seeds, image)
    rim = ndimage.binary_dilation(bird, iterations=3) ^ ndimage.binary_erosion(bird)  # blurred
    assert found.dtype == np.uint8
    assert found.shape == SHAPE
    assert (found > IGNORE)[bird & ~rim].all()
    assert (found < IGNORE)[~bird & ~rim].all()
    assert np.array_equal(found[seeds < IGNORE], seeds[seeds < IGNORE])


def test_colour_alone_makes_no_object():
    image, seeds, bird = photograph(PLUMAGE)
    image[:, 50:58, 5:20] = PLUMAGE[:, None, None]  # the object's colours elsewhere
    seeds[45:, :24] = IGNORE
    assert (seeds[bird] > IGNORE).all()
    assert not (correct_by_colour(seeds, image) > IGNORE)[50:58, 5:20].any()


@pytest.mark.parametrize("light", [0, 1])
def test_seeds_stay_on_their_side_where_colours_say_nothing(light):
    image, seeds, bird = photograph(LAWN)
    found = correct_by_colour(seeds, light * image)
    assert (found >= IGNORE)[bird].mean() > 0.9
    assert np.array_equal(found[seeds < IGNORE], seeds[seeds < IGNORE])


@pytest.mark.parametrize("value", [IGNORE, 10, 250])
def test_seeds_of_one_side_only_are_accepted(value):
    image = photograph(PLUMAGE)[0]
    found = correct_by_colour(np.full(SHAPE, value, np.uint8), image)
    assert (np.sign(found.astype(int) - IGNORE) * np.sign(value - IGNORE) >= 0).mean() > 0.99
