# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Corrected masks laid on a data set: found by name, checked, and nothing of their patients is evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol.corrections.corrected_data import corrected_datalist, correction_digests
from glas_wsol.data import Datalist, table_datalist
from glas_wsol.errors import DatalistError

EMPTY = '{"type": "FeatureCollection", "features": []}'


def data(folder: Path, patients: bool = True) -> Datalist:
    """Six images in train, two in valid, three in test; patient p0 is in all three."""
    lines = ["image,label,split" + (",patient" if patients else "")]
    for n, split in enumerate(["train"] * 6 + ["valid"] * 4 + ["test"] * 3):
        Image.fromarray(np.full((20, 30, 3), n, np.uint8)).save(folder / f"t{n}.png")
        Image.fromarray(np.full((20, 30), n, np.uint8)).save(folder / f"m{n}.png")
        lines.append(f"t{n}.png,{'ab'[n % 2]},{split}" + (f",{split}{n}" if patients else ""))
    (folder / "datalist.csv").write_text("\n".join(lines))
    (folder / "corrections").mkdir()
    return table_datalist(folder)


def shared(found: Datalist) -> Datalist:
    """The same; the first image of every split is of one patient."""
    from dataclasses import replace

    splits = {split: (replace(items[0], group="P 0"), *items[1:]) for split, items in found.splits.items()}
    return Datalist(found.name, found.classes, splits, found.source)


def test_only_corrected_images_have_masks_and_their_patients_go(tmp_path):
    before = shared(data(tmp_path))
    (tmp_path / "corrections" / "t0.geojson").write_text(EMPTY)
    Image.new("L", (30, 20), 1).save(tmp_path / "corrections" / "t3_mask.png")
    found = corrected_datalist(before, tmp_path / "corrections")
    assert [item.name for item in found.splits["train"] if item.mask] == ["t0", "t3"]
    assert [len(found.splits[split]) for split in ("train", "valid", "test")] == [6, 3, 2]
    assert found.corrected == 2
    assert found.warnings[-1].endswith("images of their patients are not evaluated (1 of valid, 1 of test)")
    assert sorted(correction_digests(found)) == ["t0", "t3"]


def test_unknown_patients_are_said(tmp_path):
    before = data(tmp_path, patients=False)
    (tmp_path / "corrections" / "t0.geojson").write_text(EMPTY)
    assert "their patients are not known" in corrected_datalist(before, tmp_path / "corrections").warnings[-1]


def test_every_fault_of_the_corrections_is_said_at_once(tmp_path):
    before, folder = data(tmp_path), tmp_path / "corrections"
    with pytest.raises(DatalistError, match="no corrected mask is in it"):
        corrected_datalist(before, folder)
    with pytest.raises(DatalistError, match="no such folder"):
        corrected_datalist(before, tmp_path / "nowhere")
    for name in ("t0.geojson", "t0_mask.geojson", "t7.geojson", "strange.geojson"):
        (folder / name).write_text(EMPTY)
    (folder / "t1.geojson").write_text("{")
    Image.new("L", (9, 9), 1).save(folder / "t2.png")
    with pytest.raises(DatalistError) as caught:
        corrected_datalist(before, folder)
    said = " ".join(caught.value.faults)
    for fault in (
        *("are of one image: keep one", "t7.geojson is of an image of valid, which is evaluated"),
        *("strange.geojson is named after no image", "cannot be read as GeoJSON", "9 x 9 px, and its image 30 x 20 px"),
    ):
        assert fault in said
    assert len(caught.value.faults) == 5
