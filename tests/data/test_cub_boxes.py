# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``bounding_boxes.txt`` of CUB-200-2011: read right, or refused in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from glas_wsol.data import cub_datalist, load_datalist
from glas_wsol.errors import DatalistError

BOXES = {n: (n, 2, 10.5, 7) for n in range(1, 25)}  # left, top, width and height


def write_cub(root: Path, boxes: dict | None = None) -> Path:
    """Two classes with ten training and two test images of 60 x 40 px each, numbered from 1."""
    lines: dict[str, list[str]] = {name: [] for name in ("images", "image_class_labels", "train_test_split")}
    for number in range(1, 25):
        species = 1 + (number > 12)
        file = f"00{species}.Bird_{species}/Bird_{number:04}.png"
        (root / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (number, 90, 30)).save(root / "images" / file)
        lines["images"].append(f"{number} {file}")
        lines["image_class_labels"].append(f"{number} {species}")
        lines["train_test_split"].append(f"{number} {int(number % 12 < 10)}")
    lines["classes"] = ["1 001.Bird_1", "2 002.Bird_2"]
    if boxes is not None:
        lines["bounding_boxes"] = [f"{number} {' '.join(map(str, box))}" for number, box in boxes.items()]
    for name, text in lines.items():
        (root / f"{name}.txt").write_text("\n".join(text) + "\n")
    return root


def test_boxes_are_read_as_edges_and_handed_out_with_masks_only(tmp_path):
    found = load_datalist(write_cub(tmp_path, BOXES), "stratified-0", classes="all")
    items = {item.name: item for split in found.splits.values() for item in split}
    assert items["Bird_0003"].box == (3, 2, 13.5, 9)
    handed_out = found.select("test", masks=True)[0]
    assert handed_out["box"].tolist() == list(items[handed_out["name"]].box)
    assert "mask" not in handed_out
    assert not any("box" in item for split in found.splits for item in found.select(split))
    assert [row[-1] for row in found.rows()] == ["boxes", "yes", "yes", "yes"]


def test_boxes_absent_file_means_no_boxes(tmp_path):
    found = cub_datalist(write_cub(tmp_path), "all", "stratified-0")
    assert {item.box for split in found.splits.values() for item in split} == {None}
    assert found.rows()[0][-1] == "masks"


@pytest.mark.parametrize(
    ("number", "box", "said"),
    [
        (99, (1, 2, 3, 4), "bounding_boxes.txt: there is no image 99 in images.txt"),
        (7, (-1, 2, 3, 4), "image 7: '-1 2 3 4' is no box: left or top negative, or without an area"),
        (7, (1, -2, 3, 4), "negative"),
        (7, (1, 2, -3, 4), "without an area"),
        (7, (1, 2, 3, 0), "without an area"),
        (7, ("nan", 2, 3, 4), "is no box"),
        (7, (1, 2, "inf", 4), "is no box"),
        (7, (1, 2, 3), "image 7: '1 2 3' are not four numbers"),
        (7, (1, 2, "wide", 4), "are not four numbers"),
        (7, (50, 2, 12, 4), "image 7: the box reaches to column 62 and row 6, its image has 60 x 40 px"),
        (7, (5, 38, 12, 4), "reaches to column 17 and row 42"),
        (7, (70, 2, 12, 4), "reaches to column 82"),
    ],
)
def test_boxes_wrong_line_is_refused_with_its_image(number, box, said, tmp_path):
    with pytest.raises(DatalistError) as caught:
        cub_datalist(write_cub(tmp_path, BOXES | {number: box}), "all", "stratified-0")
    assert said in str(caught.value)
    assert len(caught.value.faults) == 1


def test_boxes_missing_or_repeated_line_is_refused(tmp_path):
    with pytest.raises(DatalistError, match=r"bounding_boxes.txt: image 5 has no box"):
        cub_datalist(write_cub(tmp_path, {n: box for n, box in BOXES.items() if n != 5}), "all", "stratified-0")
    with (tmp_path / "bounding_boxes.txt").open("a") as file:
        file.write("5 1 2 3 4\n6 1 2 3 4\n")
    with pytest.raises(DatalistError, match=r"bounding_boxes.txt line 25: '6' comes twice"):
        cub_datalist(tmp_path, "all", "stratified-0")


def test_boxes_one_pixel_over_the_edge_is_cut(tmp_path):
    found = cub_datalist(write_cub(tmp_path, BOXES | {7: (50, 30, 11, 10.5)}), "all", "stratified-0")
    box = next(item.box for split in found.splits.values() for item in split if item.name == "Bird_0007")
    assert box == (50, 30, 60, 40)


def test_boxes_of_an_image_shown_turned_are_not_used(tmp_path):
    write_cub(tmp_path, BOXES)
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "001.Bird_1" / "Bird_0002.png", exif=turned)
    found = cub_datalist(tmp_path, "all", "stratified-0")
    assert [item.name for split in found.splits.values() for item in split if item.box is None] == ["Bird_0002"]
    assert any("image 2" in one and "EXIF" in one for one in found.warnings)
