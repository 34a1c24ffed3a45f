# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One tissue at five pixel sizes: the same masks, on each image's own grid; what is assumed is said everywhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

import glas_wsol
from glas_wsol.bundle.inference_run import infer, plan_inference
from glas_wsol.data import load_datalist
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.errors import ConfigError, GlasWsolError
from glas_wsol.report import write_report
from glas_wsol.transforms import read_mask
from tests.bundles.conftest import BUNDLES, ROOT, SMALL, config, workflow

GLAS = BUNDLES[0]
SIZES = (0.25, 0.31, 0.62, 1.0, 1.24)
ASSUMED = "pixel size not known: 0.62 um assumed, that of the training images"
DOUBTED = "pixel size not known (its file has a resolution of screens and printers): 0.62 um assumed"
# Nuclei are the teacher: a decoder on a trunk that was never trained learns the stain in seconds.
QUICK: dict[str, Any] = {
    **{name: value for name, value in SMALL.items() if name != "optimizer#lr"},
    "fold": "stratified-0",
    "epochs": 1,
    "passes": 0,
    "refine_epochs": 20,
    "refine_rounds": 1,
    "refine_lr": 0.03,
    "refine_batch_size": 4,
    "decoder_width": 8,
    "fill_holes": 100,
    "drop_specks": 20,
    "teachers": {"components": 0.0, "stage_one": 0.0, "stain": 1.0},
    "bundle_root": str(ROOT / "bundles" / GLAS),
}


def train(data: Path, output: Path, **settings: Any) -> dict[str, Any]:
    """Train both stages quickly; the content of its ``model.json``."""
    more = {**QUICK, "dataset_dir": str(data), "output_dir": str(output), **settings}
    workflow("train", [config(GLAS, "train")], **more).run()
    return json.loads((output / "models" / "model.json").read_text())


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return write_tissue_phantom(
        tmp_path_factory.mktemp("data") / "phantom", train=10, test=2, size=(144, 208), scale=1.0, workers=1
    )


@pytest.fixture(scope="module")
def model(phantom, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    card = train(phantom, output)
    assert card["mpp"] == pytest.approx(1.24, rel=1e-5), "the phantom's 0.62 um at half resolution"
    assert card["training_data"]["mpp"] == pytest.approx([0.62, 0.62], rel=1e-5)
    return output


@pytest.fixture(scope="module")
def tiles(phantom, tmp_path_factory) -> Path:
    """A tile at every size, by a resampling that is not ours; the last two without a size, and with a screen's."""
    folder = tmp_path_factory.mktemp("tiles")
    tile = Image.open(phantom / "testA_1.bmp")
    for size in SIZES:
        shape = [round(side * 0.62 / size) for side in tile.size]
        tile.resize(shape, Image.Resampling.BICUBIC).save(folder / f"{size}.png", dpi=(25400 / size,) * 2)
    tile.save(folder / "bare.png")
    tile.save(folder / "screen.tif", dpi=(72, 72))
    return folder


def predict(model: Path, images: Path, output: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    infer(plan_inference([images], [model], output, settings={"device": "cpu", **settings}))
    return {one["name"]: one for one in json.loads((output / "predictions.json").read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def results(model, tiles, tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    output = tmp_path_factory.mktemp("results")
    return output, predict(model, tiles, output, formats=["png", "tiff", "nifti", "geojson", "dicom"])


def same_grid(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(shape[::-1], Image.Resampling.BOX)) >= 128


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_masks_agree_whatever_the_pixel_size(results, tiles):
    output, entries = results
    masks = {name: read_mask(output / "masks" / f"{name}.png") > 0 for name in entries}
    native = masks["0.62"]
    assert 0.1 < native.mean() < 0.9
    for size in map(str, SIZES):
        assert masks[size].shape[::-1] == Image.open(tiles / f"{size}.png").size, "on the image's own grid"
        assert iou(same_grid(masks[size], native.shape), native) >= 0.9, size
        assert entries[size]["probabilities"] == pytest.approx(entries["0.62"]["probabilities"], abs=0.05)
    np.testing.assert_array_equal(masks["bare"], native)
    np.testing.assert_array_equal(masks["screen"], native)
    areas = [entries[str(size)]["decidable_um2"] for size in SIZES]
    assert areas == pytest.approx([areas[2]] * 5, rel=0.06)


def test_what_is_assumed_is_said_in_every_result(results):
    output, entries = results
    for size in SIZES:
        entry = entries[str(size)]
        assert entry["mpp"] == pytest.approx([size] * 2, rel=1e-5)
        assert (entry["assumed_mpp"], entry["pixel_size"]) == (None, "")
    for name, said in (("bare", ASSUMED), ("screen", DOUBTED)):
        entry = entries[name]
        assert (entry["mpp"], entry["decidable_um2"], entry["network_mpp"]) == (None, None, pytest.approx(1.24, 1e-5))
        assert entry["assumed_mpp"] == pytest.approx(0.62, rel=1e-5)
        assert entry["pixel_size"].startswith(said)
        geojson = json.loads((output / "geojson" / f"{name}.geojson").read_text())
        assert geojson["metadata"]["Pixel size"].startswith(said)
        (segment,) = pydicom.dcmread(output / "dicom" / f"{name}_seg.dcm").SegmentSequence
        assert said in segment.SegmentDescription
    with (output / "predictions.csv").open(newline="") as file:
        table = {row["name"]: row["pixel_size"] for row in csv.DictReader(file)}
    assert [name for name, said in table.items() if said] == ["bare", "screen"]
    page = write_report(output).read_text(encoding="utf-8")
    assert f"1 of 7 images: {ASSUMED}" in page
    assert "1.24 um" in page


def test_every_format_has_the_images_own_pixel_size(results):
    output, entries = results
    for size in SIZES:
        expected = pytest.approx((size, size), rel=1e-4)
        assert tuple(25400 / dots for dots in Image.open(output / "masks" / f"{size}.png").info["dpi"]) == expected
        with tifffile.TiffFile(output / "masks" / f"{size}.tif") as file:
            (above, below), unit = file.pages.first.tags["XResolution"].value, file.pages.first.tags["ResolutionUnit"]
        assert (int(unit.value), 1e4 * below / above) == (3, pytest.approx(size, rel=1e-4))
        header = nibabel.load(output / "masks" / f"{size}.nii.gz").header
        assert tuple(1000 * side for side in header.get_zooms()[:2]) == expected
        image = pydicom.dcmread(output / "dicom" / f"{size}_image.dcm")
        assert tuple(1000 * side for side in image.NominalScannedPixelSpacing) == expected
        features = json.loads((output / "geojson" / f"{size}.geojson").read_text())["features"]
        total = sum(one["properties"]["measurements"]["Area um^2"] for one in features)
        assert total == pytest.approx(entries[str(size)]["decidable_um2"], rel=1e-5)


def test_given_pixel_size_counts_in_python_and_in_a_table(model, tiles, results, tmp_path):
    output, _ = results
    pixels = np.asarray(Image.open(tiles / "0.31.png"))
    expected = read_mask(output / "masks" / "0.31.png") > 0
    localize = glas_wsol.load(model, device="cpu")
    for found in (localize(pixels, mpp=0.31), glas_wsol.load(model, device="cpu", mpp=0.31)(pixels)):
        np.testing.assert_array_equal(found.mask, expected)
        assert (found.mpp, found.assumed_mpp, found.pixel_size_remark) == ((0.31, 0.31), None, "")
    unknown = localize(pixels)
    assert (unknown.mpp, unknown.pixel_size_remark) == (None, ASSUMED)
    assert (unknown.mask != expected).mean() > 0.01, "at twice the size it is another tissue"
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for text, same in (("0.31", True), ("0,62", False), ("0.31", True)):  # a changed table is not a finished image
        (tmp_path / "list.csv").write_text(f"image;mpp\na.png;{text}\n")
        predict(model, tmp_path / "list.csv", tmp_path / "out")
        found = read_mask(tmp_path / "out" / "masks" / "a.png") > 0
        assert np.array_equal(found, expected) == same
    with pytest.raises(ConfigError, match="mpp=96"):
        localize(pixels, mpp=96)


def test_pixels_that_are_not_square_are_brought_there_too(model, tiles):
    localize = glas_wsol.load(model, device="cpu", rotations=True)
    native = localize(tiles / "0.62.png").mask
    tile = Image.open(tiles / "0.62.png")
    wide = np.asarray(tile.resize((tile.width * 2, tile.height), Image.Resampling.BICUBIC))
    found = localize(wide, mpp=[0.31, 0.62])
    assert found.mask.shape == wide.shape[:2]
    assert iou(same_grid(found.mask, native.shape), native) >= 0.9


def test_evaluation_brings_every_image_to_the_network(model, phantom, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for source in (*phantom.glob("*.bmp"), phantom / "Grade.csv"):
        (data / source.name).write_bytes(source.read_bytes())
    for name in ("testA_1", "testA_2"):  # the same tissue at another size
        for file, how in ((f"{name}.bmp", Image.Resampling.BICUBIC), (f"{name}_anno.bmp", Image.Resampling.NEAREST)):
            image = Image.open(data / file).copy()
            image.resize((image.width * 2, image.height * 2), how).save(data / file, dpi=(25400 / 0.31,) * 2)
    files = [config(GLAS, "train"), config(GLAS, "evaluate")]
    scores, entries = [], []
    for where, more in ((phantom, {}), (data, {}), (data, {"images_mpp": 0.62})):
        output = tmp_path / f"out{len(scores)}"
        more = {**QUICK, **more, "dataset_dir": str(where), "output_dir": str(output), "split": "test"}
        workflow("train", files, checkpoint=str(model / "models" / "model.pt"), **more).run()
        report = json.loads((output / "evaluation.json").read_text())
        assert (report["network_mpp"], report["pixel_sizes"]) == (pytest.approx(1.24, rel=1e-5), {})
        scores.append(report["measures"]["f1_foreground"]["value"])
        entries.append(json.loads((output / "test" / "predictions.json").read_text())[0])
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    assert entries[1]["decidable_fraction"] == pytest.approx(entries[0]["decidable_fraction"], abs=0.02)
    assert [entry["width"] for entry in entries] == [208, 416, 416], "on the image's own grid"
    sizes = [entry["mpp"][0] for entry in entries]
    assert sizes == pytest.approx([0.62, 0.31, 0.62], rel=1e-5), "--mpp of an evaluation is the images' own"


def test_training_brings_images_of_two_sizes_to_one(phantom, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for source in (*phantom.glob("*.bmp"), phantom / "Grade.csv"):
        (data / source.name).write_bytes(source.read_bytes())
    first, second = (item["image"] for item in load_datalist(data, fold="stratified-0").select("train")[:2])
    for file in (first, second):
        image = Image.open(file).copy()
        image.resize((image.width // 2, image.height // 2)).save(file, dpi=(25400 / 1.24,) * 2)
    assert train(data, tmp_path / "one", mpp=0.62, refine_epochs=1)["mpp"] == 1.24
    assert train(data, tmp_path / "none", refine_epochs=1)["mpp"] is None, "two sizes, as they are"
    Image.open(first).copy().save(first, dpi=(72, 72))
    with pytest.raises(Exception, match="mpp") as caught:
        train(data, tmp_path / "refused", mpp=0.62)
    said = f"1 of 8 training images have no known pixel size, such as {Path(first).stem}"
    assert said in str(GlasWsolError.behind(caught.value))


def test_model_without_mpp_reads_at_its_scale_and_says_so(model, tiles, results, tmp_path):
    for name in ("model.pt", "model.json"):
        (tmp_path / name).write_bytes((model / "models" / name).read_bytes())
    card = json.loads((tmp_path / "model.json").read_text())
    del card["mpp"]
    (tmp_path / "model.json").write_text(json.dumps(card))
    localize = glas_wsol.load(tmp_path, device="cpu")
    fine = localize(tiles / "0.31.png")
    assert "the model records no pixel size" in fine.pixel_size_remark
    assert fine.mpp == pytest.approx((0.31, 0.31), rel=1e-5)
    native = read_mask(results[0] / "masks" / "0.62.png") > 0
    np.testing.assert_array_equal(localize(tiles / "0.62.png").mask, native)
    np.testing.assert_array_equal(fine.mask, localize(np.asarray(Image.open(tiles / "0.31.png"))).mask)
