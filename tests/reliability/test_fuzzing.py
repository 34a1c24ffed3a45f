# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Files changed at random end in success or a typed error; what must hold for every input is tried on many.

benchmarks/reliability.py does 200 of each kind.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glas_wsol.data.csv_table import table_datalist
from glas_wsol.data.files import distinct_names, folded, natural_key
from glas_wsol.data.outlines import read_outlines
from glas_wsol.errors import GlasWsolError
from glas_wsol.metrics.bootstrap import interval
from glas_wsol.metrics.objects import Correspondence, dice_row, f1_row, hausdorff_row
from glas_wsol.metrics.region_scores import OracleRegionF1, PixelAveragePrecision, RegionF1
from glas_wsol.results.boxes import find_boxes
from glas_wsol.results.localization import Localization
from glas_wsol.results.polygons import mask_parts, trace_polygons
from glas_wsol.transforms import read_mask
from glas_wsol.transforms.geometry import crop_back, pad_to_multiple, reflect_pad
from glas_wsol.transforms.rescaling import Rescale
from glas_wsol.utils.csv_files import escape_cell, read_table, unescape_cell, write_csv
from glas_wsol.writers.drawing import write_png
from glas_wsol.writers.geojson import write_geojson
from glas_wsol.writers.tiff_mask import write_tiff
from tests.reliability.conftest import tell
from tests.reliability.mutations import fuzz

many = settings(derandomize=True, max_examples=40, deadline=None, database=None)
sizes = st.tuples(st.integers(1, 17), st.integers(1, 23))
masks = arrays.arrays(bool, sizes)
maps = arrays.arrays(np.float32, sizes, elements=st.floats(0, 1, width=32))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return fuzz(tmp_path_factory.mktemp("fuzz"), 30)


@pytest.mark.parametrize("kind", ["image", "CSV", "GeoJSON", "weights"])
def test_a_changed_file_ends_in_success_or_a_typed_error(fuzzed, kind):
    ends = fuzzed[kind]
    assert ends.faults == []
    assert ends.counts.total() == 30
    assert ends.counts["success"] < 30, "some changes must do harm"
    tell(kind, ", ".join(f"{count} {end}" for end, count in ends.counts.most_common()))


# Geometry


@many
@given(masks)
def test_outlines_have_the_masks_area_and_rings_are_closed(mask):
    def area(ring):
        return sum(x * w - z * y for (x, y), (z, w) in pairwise(ring)) / 2

    polygons = trace_polygons(mask)
    assert sum(area(ring) for polygon in polygons for ring in polygon) == mask.sum()
    assert all(ring[0] == ring[-1] and len(set(ring)) == len(ring) - 1 for polygon in polygons for ring in polygon)
    assert all(area(polygon[0]) > 0 and all(area(hole) < 0 for hole in polygon[1:]) for polygon in polygons)
    assert sum(part.area for part in mask_parts(mask)) == mask.sum()


@many
@given(maps)
def test_boxes_hold_every_pixel_and_are_tight(decidable):
    mask = decidable >= 0.5
    boxes = find_boxes(decidable, mask, min_area=0)
    assert sum(box.area for box in boxes) == mask.sum()
    covered = np.zeros_like(mask)
    for box in boxes:
        part = mask[box.y : box.y + box.height, box.x : box.x + box.width]
        assert part.shape == (box.height, box.width)
        assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
        assert 0.5 <= box.score <= 1
        covered[box.y : box.y + box.height, box.x : box.x + box.width] = True
    assert not (mask & ~covered).any()


@many
@given(sizes, st.integers(1, 40))
def test_what_is_padded_is_cropped_back(size, divisor):
    image = torch.arange(size[0] * size[1]).reshape(1, *size)
    padded, window = pad_to_multiple(image, divisor)
    assert [side % divisor for side in padded.shape[-2:]] == [0, 0]
    assert all(new - old < divisor for new, old in zip(padded.shape[-2:], size, strict=True))
    assert torch.equal(crop_back(padded, window), image)


@many
@given(sizes, st.tuples(*[st.integers(0, 30)] * 4))
def test_reflection_of_any_size_equals_two_mirrors(size, pads):
    def shown(length, before, after):
        place = np.arange(-before, length + after) % max(1, 2 * (length - 1))
        return np.where(place < length, place, 2 * (length - 1) - place)

    image = np.arange(size[0] * size[1]).reshape(size)
    top, bottom, left, right = pads
    found = reflect_pad(torch.from_numpy(image), *pads).numpy()
    np.testing.assert_array_equal(found, image[np.ix_(shown(size[0], top, bottom), shown(size[1], left, right))])
    if max(pads) < min(size):  # numpy below 2 shows more than one reflection wrongly
        np.testing.assert_array_equal(found, np.pad(image, ((top, bottom), (left, right)), "reflect"))


@many
@given(maps, st.floats(0.05, 3))
def test_rescaling_keeps_the_range_and_never_ends_in_nothing(soft, factor):
    height, width = soft.shape
    found = Rescale(factor)(torch.from_numpy(soft)[None])
    assert found.shape[-2:] == Rescale(factor).output_size(height, width)
    assert min(found.shape) >= 1
    assert soft.min() - 1e-5 <= found.min() <= found.max() <= soft.max() + 1e-5


# Datalists


@many
@given(st.lists(st.lists(texts.filter(lambda t: "/" not in t and "\0" not in t), min_size=1, max_size=4), max_size=12))
def test_names_of_results_are_different_and_are_names(parts):
    root = Path("/images")
    images = list(dict.fromkeys(root.joinpath(*(part or "x" for part in one)) for one in parts))
    images = [image for image in images if ".." not in image.parts and image.name]
    names = distinct_names(images, root)
    assert len(set(map(folded, names))) == len(names)
    assert all(name == Path(name).name and len(name.encode()) <= 240 for name in names)


@many
@given(st.lists(texts, min_size=1))
def test_natural_order_is_an_order(names):
    ordered = sorted(names, key=natural_key)
    turned = names[::-1]
    assert sorted(turned, key=natural_key) == ordered
    assert sorted(ordered) == sorted(names)


@many
@given(st.lists(st.lists(texts, min_size=1, max_size=6), max_size=8), st.sampled_from(",;\t"))
def test_a_table_of_anything_is_read_or_refused(rows, delimiter):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerows([["image", "label"], *rows])
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "list.csv"
        table.write_text(buffer.getvalue(), encoding="utf-8", newline="")
        with pytest.raises(GlasWsolError) as caught:  # no such images
            table_datalist(table)
    assert len(str(caught.value).split("\n")) == 1


# Metrics


@many
@given(
    sizes.flatmap(
        lambda size: st.tuples(
            arrays.arrays(np.float32, size, elements=st.floats(0, 1, width=32)), arrays.arrays(bool, size)
        )
    )
)
def test_overlap_is_a_share_and_is_turned_with_the_image(pair):
    soft, truth = pair

    def rows(soft, truth):
        found = Localization("a", "", ("x", "y"), (0.5, 0.5), soft, True)
        item = {"localization": found, "truth": torch.from_numpy(truth.copy())[None]}
        metrics = RegionF1("foreground"), RegionF1("background"), PixelAveragePrecision(), OracleRegionF1()
        return [np.asarray(metric._row(item)) for metric in metrics]

    fore, back, histogram, oracle = rows(soft, truth)
    assert 0 <= fore.item() <= 1
    assert 0 <= back.item() <= 1
    assert histogram.sum() == truth.size
    assert ((oracle >= 0) & (oracle <= 1)).all()
    for one, other in zip((fore, back, histogram, oracle), rows(soft.T[::-1].copy(), truth.T[::-1]), strict=True):
        np.testing.assert_array_equal(one, other)
    exact = rows(truth.astype(np.float32), truth)
    assert [exact[0].item(), exact[1].item()] == [1, 1]


@many
@given(sizes.flatmap(lambda size: st.tuples(*[arrays.arrays(np.int32, size, elements=st.integers(0, 3))] * 2)))
def test_objects_in_any_numbering_are_counted_once(pair):
    truth, found = pair
    true, false, missed = f1_row(Correspondence(truth, found))
    assert true + missed == len(set(truth.ravel()) - {0})
    assert true + false == len(set(found.ravel()) - {0})
    assert all(map(math.isfinite, dice_row(Correspondence(truth, found)) + hausdorff_row(Correspondence(truth, found))))
    own = dice_row(Correspondence(truth, truth))
    assert own[0] == pytest.approx(own[1])
    assert hausdorff_row(Correspondence(truth, truth))[::2] == [0, 0]
    swapped = dice_row(Correspondence(found, truth))
    assert swapped == pytest.approx(
        dice_row(Correspondence(truth, found))[2:] + dice_row(Correspondence(truth, found))[:2]
    )


@many
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30))
def test_an_interval_holds_its_value(hits):
    rows = np.array(hits)[:, None]
    low, high = interval("classification_error", rows)
    assert 0 <= low <= rows.mean() <= high <= 1
    low, high = interval("f1_foreground", rows)
    assert 0 <= low <= high <= 1


# Writers


@many
@given(maps, texts)
def test_what_is_written_is_read_back(soft, name):
    found = Localization(name, "", ("x", "y"), (0.25, 0.75), soft, True)
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        write_png(there / "a.png", found.mask.astype(np.uint8) * 255)
        write_geojson(there / "a.geojson", found, undecidable=True)
        write_tiff(there / "m.tif", there / "s.tif", found)
        np.testing.assert_array_equal(read_mask(there / "a.png") == 255, found.mask)
        np.testing.assert_array_equal(read_outlines(there / "a.geojson", *soft.shape), found.mask)
        np.testing.assert_array_equal(tifffile.imread(there / "s.tif").reshape(soft.shape), soft)
        areas = [
            f["properties"]["measurements"]["Area px"]
            for f in json.loads((there / "a.geojson").read_text("utf-8"))["features"]
        ]
        assert sum(areas) == soft.size


@many
@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_tables_give_every_text_back_and_no_formula(rows):
    assert all(unescape_cell(escape_cell(text)) == text for row in rows for text in row)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "a.csv"
        write_csv(table, [{"path": one, "=b": other} for one, other in rows])
        _, found = read_table(table)
        with table.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
    assert [(row["path"], row["=b"]) for row in found] == rows
    for cell in cells:
        executed = cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
        assert not executed or cell.strip().lstrip("+-").replace(".", "", 1).isdigit() or _is_number(cell), cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
