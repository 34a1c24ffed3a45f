# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""All writers of one result say the same, each read back by a reader that is not the project's own."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import binary_fill_holes

import glas_wsol
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.results.class_scores import ClassProbabilities, ClassScores
from glas_wsol.results.how_to_read import reading_guide
from glas_wsol.results.provenance import Provenance, RunAlarm, provenance_of
from glas_wsol.results.verdict import Verdict
from glas_wsol.writers import drawing
from glas_wsol.writers.formats import FORMATS, check_formats, write_localization
from glas_wsol.writers.overlay import draw_overlay
from tests.dicoms import dicom, rgb, save
from tests.results.test_polygons import filled
from tests.writers.results import H, W, asymmetric_result


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum() if (one | other).any() else 1.0


def holeless(found) -> np.ndarray:
    return binary_fill_holes(found.mask)


def find_rows(sheet: np.ndarray, height: int) -> np.ndarray:
    """The tile in an overlay: between the header and the key, in the middle of the sheet."""
    grey = np.flatnonzero((sheet[:, 0] == (232, 232, 236)).all(axis=-1))
    assert len(grey) == height
    left = (sheet.shape[1] - W) // 2
    return sheet[grey[0] : grey[-1] + 1, left : left + W]


def masks_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    highdicom = pytest.importorskip("highdicom")
    shapes = [one["geometry"] for one in json.loads((folder / f"geojson/{name}.geojson").read_text())["features"]]
    polygons = [p for s in shapes for p in ([s["coordinates"]] if s["type"] == "Polygon" else s["coordinates"])]
    return {
        "png": np.asarray(Image.open(folder / f"masks/{name}.png")) == 255,
        "geojson": filled(polygons, (H, W)) == 1,
        "nifti": np.asarray(nibabel.load(folder / f"masks/{name}.nii.gz").dataobj)[..., 0].T == 1,
        "tiff": tifffile.imread(folder / f"masks/{name}.tif") == 255,
        "dicom": highdicom.seg.segread(folder / f"dicom/{name}_seg.dcm").pixel_array.reshape(H, W) == 1,
    }


@pytest.mark.parametrize("evidence", [True, False])
@pytest.mark.parametrize("of_dicom", [True, False])
def test_all_writers_of_one_result_say_the_same(tmp_path, evidence, of_dicom):
    pytest.importorskip("highdicom")
    path = str(save(tmp_path / "tile.dcm", dicom(rgb(H, W)))) if of_dicom else ""
    found = asymmetric_result(path=path, evidence=evidence, mpp=(0.5, 0.25), min_box_area=0)
    borders = (
        found.mask[0].any(),
        found.mask[:, 0].any(),
        found.mask[:, -1].any(),
        (found.mask & ~holeless(found)).any(),
    )
    assert borders == (evidence, evidence, evidence, False)
    assert (holeless(found) & ~found.mask).any() == evidence, "the mask has a hole"
    written = write_localization(tmp_path, found, FORMATS, overlay=True)
    masks = masks_of(tmp_path, found.name)
    assert set(masks) == set(FORMATS) - {"png_map", "json", "csv"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, found.mask, err_msg=name)
        assert iou(mask, found.mask) >= 0.99
        assert iou(np.roll(mask, 1, axis=1), found.mask) < 0.99 or not evidence, "a shift by a pixel would be seen"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / f"maps/{found.name}.tif"), found.decidable)
    soft = np.asarray(nibabel.load(tmp_path / f"maps/{found.name}.nii.gz").dataobj)[..., 0].T
    np.testing.assert_array_equal(soft, found.decidable)
    grey = np.asarray(Image.open(tmp_path / f"maps/{found.name}.png"))
    assert grey.dtype == np.uint16
    np.testing.assert_allclose(grey / 65535, found.decidable, atol=0.51 / 65535)

    # the figures are those of the mask that was written
    entry = json.loads((tmp_path / f"json/{found.name}.json").read_text(encoding="utf-8"))
    assert entry["decidable_px"] == masks["png"].sum()
    assert entry["decidable_um2"] == masks["tiff"].sum() / 8
    with (tmp_path / f"boxes/{found.name}.csv").open(encoding="utf-8", newline="") as file:
        boxes = list(csv.DictReader(file))
    assert [int(box["area_px"]) for box in boxes] == [box["area"] for box in entry["boxes"]]
    assert sum(int(box["area_px"]) for box in boxes) == found.mask.sum()
    assert sum(float(box["area_um2"]) for box in boxes) == found.mask.sum() / 8
    features = json.loads((tmp_path / f"geojson/{found.name}.geojson").read_text())["features"]
    areas = sorted(feature["properties"]["measurements"]["Area um^2"] for feature in features)
    assert areas == sorted(float(box["area_um2"]) for box in boxes)

    everything = {Path(tmp_path, file.format(found.name)) for one in FORMATS.values() for file in one.files}
    everything.add(tmp_path / f"overlays/{found.name}.png")
    image = tmp_path / f"dicom/{found.name}_image.dcm"
    assert set(written) == everything - ({image} if of_dicom else set())
    assert {path for path in tmp_path.rglob("*/*") if path.is_file()} - {tmp_path / "tile.dcm"} == set(written)


def test_all_that_knows_a_resolution_has_that_of_the_result(tmp_path):
    found = asymmetric_result(mpp=(0.5, 0.25))
    write_localization(tmp_path, found, ["png", "png_map", "tiff", "nifti"], overlay=True)
    for folder in ("masks", "maps", "overlays"):  # pHYs holds whole pixels per metre; Pillow gives dots per inch
        across, down = Image.open(tmp_path / folder / f"{found.name}.png").info["dpi"]
        assert (across / 0.0254, down / 0.0254) == (pytest.approx(2e6), pytest.approx(4e6))
    for folder in ("masks", "maps"):
        tags = Image.open(tmp_path / folder / f"{found.name}.tif").tag_v2
        assert (tags[296], tags[282], tags[283]) == (3, 20_000, 40_000)
        assert nibabel.load(tmp_path / folder / f"{found.name}.nii.gz").header.get_zooms()[:2] == (
            pytest.approx(0.0005),
            pytest.approx(0.00025),
        )
    write_localization(tmp_path, asymmetric_result(), ["png", "png_map"])
    assert "dpi" not in Image.open(tmp_path / "masks" / f"{found.name}.png").info


def test_a_result_saves_itself_with_the_same_writers(tmp_path):
    found = asymmetric_result(name="ä 1")
    assert [path.name for path in glas_wsol.save(found, tmp_path / "a" / "b")] == ["ä 1.png", "ä 1.png"]
    files = glas_wsol.save(found, tmp_path / "a" / "b", ["geojson", "json"], overlay=False, undecidable=True)
    assert [path.relative_to(tmp_path / "a" / "b").as_posix() for path in files] == [
        "geojson/ä 1.geojson",
        "json/ä 1.json",
    ]
    kinds = [one["properties"]["classification"]["name"] for one in json.loads(files[0].read_text())["features"]]
    assert set(kinds) == {"malignant", "Undecidable"}
    write_localization(tmp_path / "c", found, overlay=True)
    for name in ("masks/ä 1.png", "overlays/ä 1.png"):
        assert (tmp_path / "a" / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    assert [path.name for path in glas_wsol.save(asymmetric_result(image=None), tmp_path / "d")] == ["ä 1.png"], (
        "no overlay"
    )


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", "a\\b"])
def test_a_result_of_a_name_that_leads_elsewhere_is_not_saved(tmp_path, name):
    with pytest.raises(OutputError, match="no name of a file"):
        glas_wsol.save(asymmetric_result(name=name), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_or_format_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        glas_wsol.save(asymmetric_result(), tmp_path / "file")
    with pytest.raises(ConfigError, match="did you mean 'geojson'"):
        glas_wsol.save(asymmetric_result(), tmp_path / "out", "geojsn")
    assert not (tmp_path / "out").exists()


def test_the_overlay_says_what_is_known(tmp_path):
    found = asymmetric_result()
    plain = draw_overlay(found)
    asked = replace(found, class_scores=ClassScores(undecidable=ClassProbabilities((0.5, 0.5))))
    rang = replace(found, provenance=Provenance(alarm=RunAlarm(0.9, Verdict.ALARM)))
    higher = replace(found, threshold=0.75, min_box_area=0.0)
    heights = [draw_overlay(one).shape[0] for one in (asked, rang, higher)]
    assert heights[0] > plain.shape[0] < heights[1]
    assert heights[2] == plain.shape[0], "the bar has its place whatever the threshold"
    assert (find_rows(plain, H)[found.mask] == found.image[found.mask]).all(), "the mask keeps its colours"
    with pytest.raises(OutputError, match="no image to draw on"):
        draw_overlay(replace(found, image=None))


def test_formats_unusual_names_name_their_files(tmp_path):
    found = asymmetric_result(name="a{0}.b 悪性")
    written = write_localization(tmp_path, found, ["png", "geojson"])
    assert [path.name for path in written] == ["a{0}.b 悪性.png", "a{0}.b 悪性.geojson"]
    assert all(path.is_file() for path in written)


def test_no_two_formats_and_no_two_images_share_a_file():
    names = ("a", "a_seg", "a_image", "a_map", "a.nii")
    files = [file.format(name) for one in FORMATS.values() for file in one.files for name in names]
    assert len(set(files)) == len(files)


def test_formats_are_checked_each_once():
    assert check_formats("geojson") == ("geojson",)
    assert check_formats(["tiff", "png", "tiff"]) == ("tiff", "png")
    assert check_formats([]) == ()


def _lines(found, monkeypatch) -> str:
    """What the overlay of a result says, line by line."""
    drawn = []
    write = drawing._write_lines
    monkeypatch.setattr(drawing, "_write_lines", lambda lines, *a: drawn.extend(lines) or write(lines, *a))
    draw_overlay(found)
    return " ".join(text for text, _, _ in drawn)


def test_overlay_says_origin_scope_of_alarm_and_how_to_read(monkeypatch):
    drawn = {"name": "phantom (synthetic tissue)", "synthetic": "tissue", "images": 24}
    made = provenance_of({"training_data": drawn, "alarm": {"score": 0.04, "verdict": "no alarm"}})
    text = _lines(asymmetric_result(provenance=made), monkeypatch)
    assert "trained on synthetic tissue (phantom, 24 images)" in text
    assert "training run: no alarm (estimated failure probability 0.04)" in text
    assert "judges the training run, not this image" in text
    assert all(line in text for line in reading_guide(None, 2))
    blank = asymmetric_result(provenance=made, evidence=False, reason="blurred")
    assert "trained on synthetic tissue" in _lines(blank, monkeypatch)


@pytest.mark.parametrize(
    ("familiarity", "said"), [(0.004, "UNLIKE THE TRAINING IMAGES"), (0.5, "familiarity 50 %"), (None, "")]
)
def test_overlay_says_how_familiar_the_image_is(familiarity, said, monkeypatch):
    text = _lines(asymmetric_result(familiarity=familiarity), monkeypatch)
    assert said in text
    assert ("familiarity " in text) == (familiarity is not None)


@pytest.mark.parametrize(
    ("rest", "knows_mask", "shown", "flagged"),
    [
        ((0.4, 0.6), True, "undecidable region alone: malignant 60 % (chance 50 %)", False),
        ((0.246, 0.754), True, "undecidable region alone: malignant 75 %", True),
        ((0.25, 0.75), False, "", False),
    ],
)
def test_overlay_shows_region_scores_only_as_evidence(rest, knows_mask, shown, flagged, monkeypatch):
    scores = ClassScores(
        ClassProbabilities((0.25, 0.75)), ClassProbabilities((0.25, 0.75)), ClassProbabilities(rest), knows_mask
    )
    text = _lines(asymmetric_result(class_scores=scores), monkeypatch)
    assert shown in text
    assert ("undecidable region alone: m" in text) == knows_mask
    assert ("NOTE: the undecidable region alone names the class as surely" in text) == flagged
    assert reading_guide(knows_mask, 2)[2] in text


def test_overlay_text_fits_a_small_image():
    made = provenance_of({"alarm": {"score": 0.9, "verdict": "ALARM: these masks should not be trusted"}})
    scores = ClassScores(None, ClassProbabilities((0.25, 0.75)), ClassProbabilities((0.2, 0.8)))
    found = asymmetric_result(provenance=made, class_scores=scores, name="a_name_of_a_file_" * 8)
    sheet = draw_overlay(found)
    assert (sheet[:, -3:][[0, -1]] >= 232).all(), "text keeps off the right border"
    assert (sheet[:, -4:] >= 232).all()
