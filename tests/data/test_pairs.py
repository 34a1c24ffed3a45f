# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A mask beside an image is its mask, and never an image; what else lies there is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from glas_wsol.data import Datalist, folder_datalist, glas_datalist, list_images, load_datalist, table_datalist
from glas_wsol.data.pairs import is_mask_folder, mask_stem
from glas_wsol.errors import DatalistError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def masks(found: Datalist, root: Path) -> dict[str, str | None]:
    items = [item for part in found.splits.values() for item in part]
    return {
        item.image.relative_to(root).as_posix(): item.mask and item.mask.relative_to(root).as_posix() for item in items
    }


@pytest.mark.parametrize("mask", ["x_mask", "x-mask", "x.mask", "x mask", "X_MASK", "x_masks", "x_anno", "mask_x"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_mask_beside_its_image_is_its_mask(tmp_path, mask, suffix):
    touch(tmp_path, *(f"{name}/{n}.jpg" for name in "ab" for n in range(8)), "a/x.jpg", f"a/{mask}{suffix}")
    found = masks(folder_datalist(tmp_path), tmp_path)
    assert len(found) == 17
    assert found["a/x.jpg"] == f"a/{mask}{suffix}"
    assert set(found.values()) == {None, f"a/{mask}{suffix}"}
    images, warnings = list_images(tmp_path / "a")
    assert len(images) == 9
    assert warnings == [f"1 mask, {mask}{suffix}, passed over"]


@pytest.mark.parametrize("mask", ["x.geojson", "x.jpg.geojson", "x_mask.geojson", "masks/x.geojson"])
def test_outlines_of_an_images_name_are_its_mask(tmp_path, mask):
    touch(tmp_path, *(f"{name}/{n}.jpg" for name in "ab" for n in range(8)), "a/x.jpg", f"a/{mask}", "a/y.geojson")
    found = folder_datalist(tmp_path)
    assert {image: one for image, one in masks(found, tmp_path).items() if one} == {"a/x.jpg": f"a/{mask}"}
    assert found.warnings == ("1 mask, a/y.geojson, without an image of that name passed over",)
    touch(tmp_path, "a/x_mask.png")
    with pytest.raises(DatalistError, match=r"a/x\.jpg has 2 masks"):
        folder_datalist(tmp_path)


@pytest.mark.parametrize("word", ["seg", "segmentation", "gt", "ground_truth", "GroundTruth", "annotation", "mask_2"])
def test_more_words_for_a_mask(tmp_path, word):
    touch(tmp_path, *(f"{name}/{n}.png" for name in "ab" for n in range(8)), f"a/3_{word}.png")
    assert masks(folder_datalist(tmp_path), tmp_path)["a/3.png"] == f"a/3_{word}.png"


def test_image_and_mask_may_both_say_what_they_are(tmp_path):
    touch(tmp_path, *(f"{c}/{n}_image.png" for c in "ab" for n in range(8)), *(f"a/{n}_mask.png" for n in range(8)))
    found = masks(folder_datalist(tmp_path), tmp_path)
    assert len(found) == 16
    assert found["a/3_image.png"] == "a/3_mask.png"


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        *[("a_mask", ("a", True)), ("a_seg", ("a", False)), ("mask_a", ("a", True)), ("a_b_anno", ("a_b", True))],
        *((stem, None) for stem in ("mask", "mask2", "damask", "unmasked_a", "a_masked", "segment_a", "tile_1", "")),
    ],
)
def test_names_of_masks(stem, found):
    assert mask_stem(stem) == found


@pytest.mark.parametrize("name", ["masks", "Mask", "annotations", "gt", "ground-truth", "segmentation"])
def test_folders_of_masks(tmp_path, name):
    assert is_mask_folder(name)
    touch(tmp_path, *(f"{c}/{n}.jpg" for c in ("benign", "malignant") for n in range(8)))
    touch(tmp_path, f"{name}/benign/1.png", f"{name}/benign/2_mask.png", f"malignant/{name}/3.png", f"{name}/lost.png")
    found = folder_datalist(tmp_path)
    assert found.classes == ("benign", "malignant")
    said = masks(found, tmp_path)
    assert said["benign/1.jpg"] == f"{name}/benign/1.png"
    assert said["benign/2.jpg"] == f"{name}/benign/2_mask.png"
    assert said["malignant/3.jpg"] == f"malignant/{name}/3.png"
    assert found.warnings == (f"1 mask, {name}/lost.png, of no image passed over",)


def test_folders_of_masks_in_split_folders(tmp_path):
    touch(tmp_path, *(f"{s}/{c}/{n}.png" for s in ("train", "valid") for c in "ab" for n in range(2)))
    touch(tmp_path, "train/masks/a/0.png", "masks/valid/b/1.tif")
    said = masks(folder_datalist(tmp_path), tmp_path)
    assert (said["train/a/0.png"], said["valid/b/1.png"]) == ("train/masks/a/0.png", "masks/valid/b/1.tif")
    assert len(said) == 8


def test_two_masks_of_one_image_are_refused(tmp_path):
    touch(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(8)), "a/1_mask.png", "masks/a/1.png", "b/2_mask.png")
    with pytest.raises(DatalistError, match=r"a/1\.png has 2 masks, a/1_mask\.png and masks/a/1\.png: keep one"):
        folder_datalist(tmp_path)


def test_masks_without_an_image_are_no_images(tmp_path):
    touch(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(8)), "a/lost_mask.png", "a/odd_seg.png", "b/2.tif")
    found = folder_datalist(tmp_path)
    assert set(masks(found, tmp_path)) == {
        *(f"{c}/{n}.png" for c in "ab" for n in range(8)),
        "a/odd_seg.png",
        "b/2.tif",
    }
    assert found.warnings == (
        "1 mask, a/lost_mask.png, without an image of that name passed over",
        "1 file, a/odd_seg.png, named like a mask and taken as an image: if it is a mask, move it to another folder",
        "b/2.png and b/2.tif are taken as two images: if one is a mask, move it to another folder",
    )
    images, warnings = list_images(tmp_path / "a")
    assert len(images) == 9
    assert warnings[0] == "1 mask, lost_mask.png, without an image of that name passed over"


def test_masks_among_the_images_of_a_table_are_refused(tmp_path):
    touch(tmp_path, *(f"{n}{what}.png" for n in range(8) for what in ("", "_mask")))
    rows = [f"{n}{what}.png,{'ab'[n % 2]}" for n in range(8) for what in ("", "_mask")]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    with pytest.raises(DatalistError) as caught:
        table_datalist(tmp_path / "t.csv")
    assert len(caught.value.faults) == 8
    assert caught.value.faults[0].startswith(
        "line 3: image '0_mask.png' is named like the mask of '0.png' on line 2: leave this row out"
    )
    _, warnings = list_images(tmp_path / "t.csv")
    assert warnings == ["8 images, such as 0_mask.png, named like the mask of another image"]


def test_masks_of_a_glas_folder(tmp_path):
    touch(tmp_path, *(f"train_{n}.bmp" for n in range(1, 21)), "train_1_anno.bmp", "train_2_mask.png", "slide.svs")
    rows = [f"train_{n},{n},{('benign', 'malignant')[n % 2]}" for n in range(1, 21)]
    (tmp_path / "Grade.csv").write_text("\n".join(["name,patient ID,grade (GlaS)", *rows]))
    found = glas_datalist(tmp_path, "patient-0")
    said = masks(found, tmp_path)
    assert (said["train_1.bmp"], said["train_2.bmp"]) == ("train_1_anno.bmp", "train_2_mask.png")
    assert found.warnings == ("1 other file passed over (.svs)",)
    images, warnings = list_images(tmp_path)
    assert len(images) == 20
    assert warnings[0] == "2 masks, such as train_1_anno.bmp, passed over"
    touch(tmp_path, "train_1_mask.png")
    with pytest.raises(DatalistError, match=r"train_1_anno\.bmp and train_1_mask\.png are two masks of one image"):
        glas_datalist(tmp_path, "patient-0")


def test_what_is_passed_over_is_counted(tmp_path):
    touch(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(8)))
    touch(tmp_path, "a/x.svs", "b/y.SVS", "a/z.webp", "README", "a/deep/k.png", "top.png", ".hidden.svs", "a/Thumbs.db")
    touch(tmp_path, "OUT/evaluation.json", "OUT/overview.png", "a/.ipynb_checkpoints/1.png")
    found = load_datalist(tmp_path)
    assert found.classes == ("a", "b")
    assert found.warnings == (
        "3 images, such as OUT/overview.png, not directly in a class folder passed over",
        "5 other files passed over (.svs, .json, no suffix, .webp)",
    )
    assert found.summary().splitlines()[-1] == f"warning: {found.warnings[-1]}"
    images, warnings = list_images(tmp_path / "a")
    assert len(images) == 8
    assert warnings == [
        "2 other files passed over (.svs, .webp)",
        "1 folder, deep, not looked into: give --recursive to do so",
    ]


def test_all_readers_say_the_same(tmp_path, caplog, capsys):
    from glas_wsol import doctor
    from glas_wsol.__main__ import main

    touch(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(8)), "a/lost_mask.png", "slide.svs")
    warnings = load_datalist(tmp_path).warnings
    assert len(warnings) == 2
    assert [record.message for record in caplog.records] == [f"{tmp_path}: {one}" for one in warnings]
    caplog.clear()
    assert main(["data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [f"warning: {one}" for one in warnings]
    found = doctor.check_data(tmp_path, pixels=False)
    assert [one.what for one in found if one.status == "warning"] == list(warnings)
    assert not caplog.records, "said once"
