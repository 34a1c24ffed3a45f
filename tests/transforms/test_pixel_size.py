# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Sizes of pixels that are taken, and those that are refused."""

from __future__ import annotations

import pytest

from glas_wsol.errors import ConfigError
from glas_wsol.transforms.pixel_size import check_mpp


def test_pixels_may_be_square_or_not_or_of_unknown_size():
    assert check_mpp(None) is None
    assert check_mpp(0.5) == (0.5, 0.5)
    assert check_mpp([0.5, 0.25]) == (0.5, 0.25)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf"), [0.5], [0.5, 0.5, 0.5], "half", [0.5, "x"], 1e5])
def test_an_impossible_size_is_refused_in_one_line(mpp):
    with pytest.raises(ConfigError, match=r"mpp=.* is not a valid size of a pixel.*micrometres") as caught:
        check_mpp(mpp)
    assert "\n" not in str(caught.value)
