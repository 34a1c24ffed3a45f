# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The guide says of the scores of the regions what is shown of them, and names chance."""

from __future__ import annotations

import pytest

from glas_wsol.results.how_to_read import familiarity_in_words, is_strange, reading_guide


@pytest.mark.parametrize(
    ("regions", "classes", "multi_label", "third"),
    [
        (True, 2, False, "near 50 % (chance)"),
        (True, 5, False, "near 20 % (chance)"),
        (True, 5, True, "near 50 % (chance)"),
        (False, 2, False, "No class scores of the regions"),
        (None, 2, False, "did not decide by"),
        (None, 0, False, "did not decide by"),
    ],
)
def test_guide_has_three_lines_and_the_third_fits(regions, classes, multi_label, third):
    guide = reading_guide(regions, classes, multi_label)
    assert len(guide) == 3
    assert third in guide[2]
    assert "no segmentation" in guide[0]
    assert "Familiarity judges this image, the alarm the training." in guide[1]


@pytest.mark.parametrize(
    ("familiarity", "strange", "words"),
    [
        (None, None, "familiarity not known: the model does not describe its training images"),
        (0.009999, True, "UNLIKE THE TRAINING IMAGES (familiarity below 1 %)"),
        (0.01, False, "familiarity 1 %"),
        (0.436, False, "familiarity 44 %"),
    ],
)
def test_familiarity_below_one_in_a_hundred_is_strange(familiarity, strange, words):
    assert is_strange(familiarity) is strange
    assert familiarity_in_words(familiarity) == words
