# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Holes, specks and parts across strips are those of the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glas_wsol.results.polygons import mask_parts
from glas_wsol.slides import strips
from glas_wsol.slides.strips import clean_mask, find_parts
from glas_wsol.transforms.clean_regions import clean_regions


@pytest.fixture
def soft(monkeypatch) -> np.ndarray:
    monkeypatch.setattr(strips, "_STRIP_PIXELS", 11 * 263)
    values = gaussian_filter(np.random.default_rng(1).random((171, 263)), 2.2)
    return ((values - values.min()) / (values.max() - values.min())).astype(np.float32)


@pytest.mark.parametrize(("holes", "specks"), [(40, 0), (0, 30), (60, 45), (500, 500)])
def test_cleaning_in_strips_equals_the_whole(soft, tmp_path, holes, specks):
    np.save(tmp_path / "mask.npy", soft >= 0.5)
    clean_mask(tmp_path / "mask.npy", holes, specks)
    expected = clean_regions(soft, 0.5, holes, specks)
    assert (expected != (soft >= 0.5)).sum() > 50
    assert (np.load(tmp_path / "mask.npy") == expected).all()


def test_parts_in_strips_equal_those_of_the_whole(soft, tmp_path):
    mask, classes = soft >= 0.5, np.random.default_rng(2).random((2, 3, 2))
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "decidable.npy", np.rint(soft * 255).astype(np.uint8))
    found = find_parts(tmp_path / "mask.npy", tmp_path / "decidable.npy", classes, 100)
    expected = list(mask_parts(mask))
    assert len(expected) > 20
    assert [(one.row, one.column, one.area) for one in found] == [(one.row, one.column, one.area) for one in expected]
    for part, whole in zip(found, expected, strict=True):
        rows, columns = np.nonzero(whole.pixels)
        rows, columns = rows + whole.region[0].start, columns + whole.region[1].start
        weights = np.rint(soft[rows, columns] * 255) / 255
        box = (columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)
        assert part.box == box
        assert part.centre == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
        assert part.mean == pytest.approx(weights.mean())
        p = (classes[rows // 100, columns // 100] * weights[:, None]).sum(axis=0) / weights.sum()
        assert part.probabilities == pytest.approx(tuple(p))
