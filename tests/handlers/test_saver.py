# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What an evaluation's localizations leave on disk: masks, overlays and their table."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ignite.engine import Events

from glas_wsol.errors import ConfigError, ImageFileError, OutputError
from glas_wsol.handlers import LocalizationSaver, saver
from glas_wsol.metrics import ClassificationError, RegionF1
from glas_wsol.results.class_scores import ClassProbabilities, ClassScores
from glas_wsol.results.provenance import ALARM_SCOPE, Provenance, RunAlarm
from glas_wsol.results.verdict import Verdict
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.writers import dicom_seg
from glas_wsol.writers.formats import FORMATS
from tests.dicoms import dicom, rgb, save
from tests.handlers.conftest import broken_off, item, left, rows
from tests.metrics.conftest import evaluate

TABLES = ("predictions.csv", "predictions_boxes.csv", "predictions.json")

NO_SCORES = {"localizer": None, "decidable": None, "undecidable": None, "regions_are_evidence": None, "note": ""}


def details(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_masks_and_overlays_have_the_items_names_and_sizes(tmp_path):
    saver = LocalizationSaver(tmp_path / "out")
    batches = [[item("b_2", 0.75, 1), item("a", 0.125, 1, size=(33, 90))], [item("none", 0.9, 1, evidence=False)]]
    evaluate({"e": ClassificationError()}, batches, [saver])
    assert sorted(p.name for p in (tmp_path / "out" / "masks").iterdir()) == ["a.png", "b_2.png", "none.png"]
    assert sorted(p.name for p in (tmp_path / "out" / "overlays").iterdir()) == ["a.png", "b_2.png", "none.png"]
    for one in [*batches[0], *batches[1]]:
        found = one["localization"]
        assert np.array_equal(read_mask(tmp_path / "out" / "masks" / f"{found.name}.png") == 255, found.mask)
        height, width = found.mask.shape
        drawn = read_rgb(tmp_path / "out" / "overlays" / f"{found.name}.png")
        assert drawn.shape[0] > height
        assert drawn.shape[1] >= width


def test_a_users_own_file_is_never_overwritten(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "b.png").write_bytes(b"an annotation made by hand")
    batches = [[item("a", 0.75, 1)], [item("b", 0.75, 1)]]
    with pytest.raises(OutputError, match="not one of earlier results"):
        evaluate({"e": ClassificationError()}, batches, [LocalizationSaver(tmp_path)])
    assert (tmp_path / "masks" / "b.png").read_bytes() == b"an annotation made by hand"
    # what the broken run did write is known to be its own, and is replaced
    evaluate({"e": ClassificationError()}, [[item("c", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["b.png", "c.png"]
    assert [row["name"] for row in rows(tmp_path / "predictions.csv")] == ["c"]
    assert not list(tmp_path.glob(".*")), "no journal is left"


def test_an_edited_table_does_not_reach_out_of_its_folder(tmp_path):
    (tmp_path / "precious.png").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("path,name\nx,../../precious\n")
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path / "out")])
    assert (tmp_path / "precious.png").read_bytes() == b"precious"


def test_the_table_has_one_row_per_image_in_order(tmp_path):
    batches = [[item("b", 0.75, 1), item("a", 0.125, 1)], [item("none", 0.9, 1, evidence=False)]]
    evaluate({"e": ClassificationError()}, batches, [LocalizationSaver(tmp_path, table="table.csv", overlays=False)])
    got = [
        {key: row[key] for key in ("path", "class", "probability", "decidable_fraction")}
        for row in rows(tmp_path / "table.csv")
    ]
    assert got == [
        {"path": "tiles/b.bmp", "class": "malignant", "probability": "0.750000", "decidable_fraction": "0.250000"},
        {"path": "tiles/a.bmp", "class": "benign", "probability": "0.875000", "decidable_fraction": "0.250000"},
        {"path": "tiles/none.bmp", "class": "no evidence", "probability": "", "decidable_fraction": "0.000000"},
    ]
    assert not (tmp_path / "overlays").exists()


def test_the_table_is_read_by_pandas_whatever_the_names(tmp_path):
    pandas = pytest.importorskip("pandas")
    classes = ('benign, "grade 0"', "bösartig\tIII")
    batches = [[item("ä b,c", 0.75, 1, classes=classes), item("d", 0.25, 0, classes=classes)]]
    evaluate({"e": ClassificationError()}, batches, [LocalizationSaver(tmp_path)])
    table = pandas.read_csv(tmp_path / "predictions.csv")
    assert table["path"].tolist() == ["tiles/ä b,c.bmp", "tiles/d.bmp"]
    assert table["class"].tolist() == [classes[1], classes[0]]
    assert table["probability"].tolist() == [0.75, 0.75]
    assert (tmp_path / "masks" / "ä b,c.png").is_file()


def test_a_second_run_starts_the_tables_anew(tmp_path):
    saver = LocalizationSaver(tmp_path, overlays=False)
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1), item("b", 0.75, 1)]], [saver])
    evaluate({"e": ClassificationError()}, [[item("c", 0.75, 1)]], [saver])
    assert [row["path"] for row in rows(tmp_path / "predictions.csv")] == ["tiles/c.bmp"]


def test_the_names_of_the_files_are_the_last_column(tmp_path):
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path, overlays=False)])
    table = rows(tmp_path / "predictions.csv")
    assert list(table[0]) == [
        *("path", "class", "probability", "decidable_fraction", "decidable_px", "decidable_um2", "boxes"),
        *("decidable_entropy", "undecidable_probability", "undecidable_entropy", "remark", "pixel_size"),
        *("trained_on", "training_run_alarm", "familiarity", "reason", "name"),
    ]
    assert table[0]["name"] == "a"


@pytest.mark.parametrize("overlays_again", [True, False])
def test_saver_second_run_in_folder_replaces_all_files(tmp_path, overlays_again):
    first = [[item("a", 0.75, 1), item("b", 0.75, 1)], [item("ä, 1", 0.75, 1)]]
    evaluate({"e": ClassificationError()}, first, [LocalizationSaver(tmp_path)])
    assert len(left(tmp_path)) == 9
    (tmp_path / "masks" / "own.png").write_bytes(b"the user's")
    saver = LocalizationSaver(tmp_path, overlays=overlays_again)
    evaluate({"e": ClassificationError()}, [[item("c", 0.75, 1)]], [saver])
    expected = {*TABLES, "masks/c.png", "masks/own.png"}
    assert left(tmp_path) == expected | ({"overlays/c.png"} if overlays_again else set())


def test_saver_failed_second_run_leaves_nothing_of_the_first(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert {*TABLES, "masks/a.png"} < left(tmp_path)
    broken_off(tmp_path, LocalizationSaver(tmp_path))
    assert left(tmp_path) == {"model.pt"}


@pytest.mark.parametrize(("times", "again"), [(1, "another"), (2, "another"), (2, "the same")])
def test_saver_next_run_waits_for_pending_writes(tmp_path, monkeypatch, times, again):
    cleared, done, write, clear = threading.Event(), [], saver.write_localization, LocalizationSaver._make_room

    def writing(output, found, *args, **kwargs):
        if found.name == "a":
            cleared.wait(0.5)
        done.append(found.name)
        return write(output, found, *args, **kwargs)

    def clearing(self):
        done.append("cleared")
        clear(self)
        cleared.set()

    def interrupt(*_):
        raise KeyboardInterrupt

    class Interrupts:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_STARTED(once=2), interrupt)

    monkeypatch.setattr(saver, "write_localization", writing)
    first = LocalizationSaver(tmp_path, waiting=1)
    batches = [[item("a", 0.75, 1)], [item("b", 0.75, 1)]]
    with monkeypatch.context() as patched:
        if times == 2:  # the second comes while the first waits for the thread
            patched.setattr(ThreadPoolExecutor, "shutdown", interrupt)
        with pytest.raises(KeyboardInterrupt):
            evaluate({"e": ClassificationError()}, batches, [first, Interrupts()])
    monkeypatch.setattr(LocalizationSaver, "_make_room", clearing)
    second = first if again == "the same" else LocalizationSaver(tmp_path / "masks" / "..", waiting=1)
    evaluate({"e": ClassificationError()}, [[item("c", 0.75, 1)]], [second])
    assert done == ["a", "cleared", "c"]
    assert left(tmp_path) == {*TABLES, "masks/c.png", "overlays/c.png"}
    assert not [t for t in threading.enumerate() if t.name.startswith("writing")]


def test_a_table_without_images_still_has_a_header(tmp_path):
    evaluate({"e": RegionF1()}, [[]], [LocalizationSaver(tmp_path)])
    assert (tmp_path / "predictions.csv").read_text().startswith("path")
    assert details(tmp_path / "predictions.json") == []
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert len(rows(tmp_path / "predictions.csv")) == len(details(tmp_path / "predictions.json")) == 1


def two_parts(name: str, **changes: Any) -> dict:
    """An item with two decidable parts: 0.75 in columns 3 to 12 of rows 5 to 8, 0.625 in column 60 of rows 0 and 1."""
    one = item(name, 0.25, 0)
    decidable = np.full((40, 70), 0.125, np.float32)
    decidable[5:9, 3:13], decidable[:2, 60] = 0.75, 0.625
    one["localization"] = replace(one["localization"], decidable=decidable, min_box_area=0.0, **changes)
    return one


def test_saver_json_is_complete_and_table_counts_boxes(tmp_path):
    blurred = item("none", 0.9, 1, evidence=False, size=(33, 90))
    blurred["localization"] = replace(blurred["localization"], reason="blurred")
    evaluate({"e": ClassificationError()}, [[two_parts("ä b")], [blurred]], [LocalizationSaver(tmp_path)])
    table = rows(tmp_path / "predictions.csv")
    assert [row["boxes"] for row in table] == ["2", "0"]
    assert [row["reason"] for row in table] == ["", "blurred"]
    assert details(tmp_path / "predictions.json") == [
        {
            "path": "tiles/ä b.bmp",
            "name": "ä b",
            "class": "benign",
            "probabilities": {"benign": 0.75, "malignant": 0.25},
            "class_scores": NO_SCORES,
            "decidable_fraction": 0.015,  # 42 of 2800 px
            "decidable_px": 42,
            "decidable_um2": None,
            "evidence": True,
            "reason": "",
            "threshold": 0.5,
            "min_box_area": 0.0,
            "width": 70,
            "height": 40,
            "boxes": [
                {"x": 3, "y": 5, "width": 10, "height": 4, "area": 40, "score": 0.75, "area_um2": None},
                {"x": 60, "y": 0, "width": 1, "height": 2, "area": 2, "score": 0.625, "area_um2": None},
            ],
            "mpp": None,
            "assumed_mpp": None,
            "pixel_size": "",
            "familiarity": None,
            "unlike_training": None,
            "trained_on": "training data not recorded",
            "files": ["masks/ä b.png", "overlays/ä b.png"],
        },
        {
            "path": "tiles/none.bmp",
            "name": "none",
            "class": "no evidence",
            "probabilities": {},
            "class_scores": NO_SCORES,
            "decidable_fraction": 0.0,
            "decidable_px": 0,
            "decidable_um2": None,
            "evidence": False,
            "reason": "blurred",
            "threshold": 0.5,
            "min_box_area": 0.001,
            "width": 90,
            "height": 33,
            "boxes": [],
            "mpp": None,
            "assumed_mpp": None,
            "pixel_size": "",
            "familiarity": None,
            "unlike_training": None,
            "trained_on": "training data not recorded",
            "files": ["masks/none.png", "overlays/none.png"],
        },
    ]


def test_saver_every_box_encloses_a_part_of_the_mask(tmp_path):
    evaluate({"e": ClassificationError()}, [[two_parts("a")]], [LocalizationSaver(tmp_path)])
    mask = read_mask(tmp_path / "masks" / "a.png") > 0
    (entry,) = details(tmp_path / "predictions.json")
    assert mask.shape == (entry["height"], entry["width"])
    for box in entry["boxes"]:
        inside = (slice(box["y"], box["y"] + box["height"]), slice(box["x"], box["x"] + box["width"]))
        assert mask[inside].sum() == box["area"]
        mask[inside] = False
    assert not mask.any()


def test_saver_method_without_class_leaves_class_empty(tmp_path):
    one = two_parts("a", probabilities=())
    del one["probabilities"]
    evaluate({"e": RegionF1()}, [[one]], [LocalizationSaver(tmp_path)])
    (row,), (entry,) = rows(tmp_path / "predictions.csv"), details(tmp_path / "predictions.json")
    assert (row["class"], row["probability"], row["boxes"]) == ("", "", "2")
    assert (entry["class"], entry["probabilities"]) == ("", {})
    assert (tmp_path / "overlays" / "a.png").is_file()


def test_the_json_has_the_table_s_name(tmp_path):
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path, table="v1.2.csv")])
    assert {"v1.2.csv", "v1.2.json"} < left(tmp_path)
    with pytest.raises(ConfigError, match=r"table='predictions'.*ends in \.csv"):
        LocalizationSaver(tmp_path, table="predictions")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("predictions.json", b'{"mine": 1}'),
        ("predictions.csv", b"image,reader\na,me\n"),
        ("predictions.csv", b""),
        ("predictions_boxes.csv", b""),
    ],
)
def test_a_users_own_table_is_neither_overwritten_nor_removed(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(OutputError, match=rf"not one of earlier results.*{file}"):
        evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {file: content}


def test_saver_failed_tables_leave_a_replaceable_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OutputError("no room", tmp_path, "make room")

    with monkeypatch.context() as patched:
        patched.setattr("glas_wsol.handlers.saver.write_csv", full)
        with pytest.raises(OutputError, match="no room"):
            evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert "predictions.csv" not in left(tmp_path)
    evaluate({"e": ClassificationError()}, [[item("c", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert left(tmp_path) == {*TABLES, "masks/c.png", "overlays/c.png"}
    assert [entry["name"] for entry in details(tmp_path / "predictions.json")] == ["c"]


def test_saver_multi_label_table_has_all_probabilities(tmp_path):
    batch = [item(name, 0.75, 1) for name in "abc"]
    for one, p, evidence in zip(batch, [(0.5, 0.75), (0.25, 0.125), (0.75, 0.75)], [True, True, False], strict=True):
        one["localization"] = replace(one["localization"], probabilities=p, multi_label=True, evidence=evidence)
    evaluate({"f": RegionF1()}, [batch], [LocalizationSaver(tmp_path)])
    table = rows(tmp_path / "predictions.csv")
    assert [row["class"] for row in table] == ["benign;malignant", "no class", "no evidence"]
    assert [row["probability"] for row in table] == ["0.500000;0.750000", "", ""]
    kept = details(tmp_path / "predictions.json")
    assert [one["probabilities"] for one in kept] == [
        {"benign": 0.5, "malignant": 0.75},
        {"benign": 0.25, "malignant": 0.125},
        {},
    ]


def test_the_formats_wanted_are_written_and_listed(tmp_path):
    pytest.importorskip("highdicom")
    saver, one = LocalizationSaver(tmp_path, formats=[*FORMATS]), item("ä.1", 0.75, 1)
    one["localization"] = replace(one["localization"], mpp=(0.5, 0.25))
    evaluate({"e": ClassificationError()}, [[one]], [saver])
    (entry,) = details(tmp_path / "predictions.json")
    assert entry["mpp"] == [0.5, 0.25]
    assert entry["files"] == [
        *("masks/ä.1.png", "maps/ä.1.png", "geojson/ä.1.geojson", "masks/ä.1.nii.gz", "maps/ä.1.nii.gz"),
        *("masks/ä.1.tif", "maps/ä.1.tif", "dicom/ä.1_seg.dcm", "dicom/ä.1_image.dcm"),
        *("json/ä.1.json", "boxes/ä.1.csv", "overlays/ä.1.png"),
    ]
    assert left(tmp_path) == {*TABLES, *entry["files"]}
    # the next run replaces them all, whatever it writes itself
    evaluate({"e": ClassificationError()}, [[item("b", 0.75, 1)]], [LocalizationSaver(tmp_path, formats="geojson")])
    assert left(tmp_path) == {*TABLES, "geojson/b.geojson", "overlays/b.png"}


def test_a_users_own_file_of_any_format_is_left_alone(tmp_path):
    (tmp_path / "geojson").mkdir()
    (tmp_path / "geojson" / "a.geojson").write_text("corrected by hand")
    with pytest.raises(OutputError, match=r"not one of earlier results.*a\.geojson"):
        evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    assert (tmp_path / "geojson" / "a.geojson").read_text() == "corrected by hand"


def test_saver_both_tables_have_familiarity(tmp_path):
    known, strange = item("a", 0.75, 1), item("b", 0.75, 1)
    for one, value in ((known, 0.4321098), (strange, 0.00012345)):
        one["localization"] = replace(one["localization"], familiarity=value)
    evaluate({"e": ClassificationError()}, [[known, strange]], [LocalizationSaver(tmp_path, overlays=False)])
    assert [row["familiarity"] for row in rows(tmp_path / "predictions.csv")] == ["0.4321", "0.0001234"]
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert [(one["familiarity"], one["unlike_training"]) for one in entries] == [(0.4321, False), (0.0001234, True)]


def test_saver_both_tables_have_region_scores_and_alarm(tmp_path):
    asked, blank, plain = item("a", 0.75, 1), item("b", 0.75, 1, evidence=False), item("c", 0.75, 1)
    said = ClassScores(ClassProbabilities((0.5, 0.5)), ClassProbabilities((0.25, 0.75)), ClassProbabilities((0.5, 0.5)))
    alarm = RunAlarm(0.25, Verdict.DOUBTFUL)
    made = Provenance(("12ab",), "minmax", "resnet18", {"epochs": 3}, {"flips": True}, "7.8", alarm)
    for one in (asked, blank):
        one["localization"] = replace(one["localization"], class_scores=said, provenance=made, mpp=(0.5, 0.25))
    evaluate({"e": ClassificationError()}, [[asked, blank], [plain]], [LocalizationSaver(tmp_path, overlays=False)])
    columns = (
        "undecidable_probability",
        "undecidable_entropy",
        "decidable_entropy",
        "training_run_alarm",
        "decidable_um2",
    )
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert [[row[key] for key in columns] for row in rows(tmp_path / "predictions.csv")] == [
        ["0.500000", "1.000000", f"{entropy / np.log(2):.6f}", "0.250000", "87.5"],
        ["", "", "", "0.250000", "0"],
        ["", "", "", "", ""],
    ]
    first, second, third = details(tmp_path / "predictions.json")
    assert first["class_scores"]["localizer"]["probabilities"] == {"benign": 0.5, "malignant": 0.5}
    assert first["class_scores"]["undecidable"]["entropy"] == round(float(np.log(2)), 6)
    assert first["class_scores"]["decidable"] == {
        "probabilities": {"benign": 0.25, "malignant": 0.75},
        "entropy": round(entropy, 6),
        "normalised_entropy": round(entropy / np.log(2), 6),
    }
    assert second["class_scores"] == third["class_scores"] == NO_SCORES
    assert (first["decidable_px"], first["decidable_um2"], first["boxes"][0]["area_um2"]) == (700, 87.5, 87.5)
    kept = {"models": ["12ab"], "method": "minmax", "trunk": "resnet18", "views": {"flips": True}, "version": "7.8"}
    assert {key: first[key] for key in kept} == kept
    assert first["alarm"] == second["alarm"] == {"score": 0.25, "verdict": "doubtful", "scope": ALARM_SCOPE}
    assert "recipe" not in first
    assert "alarm" not in third, "nobody said what it was made with"


def test_every_box_has_a_line_in_a_table_of_its_own(tmp_path):
    evaluate({"e": ClassificationError()}, [[two_parts("ä b")], [item("a", 0.75, 1)]], [LocalizationSaver(tmp_path)])
    table = rows(tmp_path / "predictions_boxes.csv")
    assert [(row["name"], row["box"], row["x"], row["y"], row["width"], row["height"]) for row in table] == [
        ("ä b", "1", "3", "5", "10", "4"),
        ("ä b", "2", "60", "0", "1", "2"),
        ("a", "1", "0", "0", "35", "20"),
    ]
    assert table[1] | {"area_px": "2", "area_um2": "", "score": "0.625000", "class": "benign"} == table[1]
    assert table[1]["path"] == "tiles/ä b.bmp"


def test_the_rest_is_outlined_where_wanted(tmp_path):
    saver = LocalizationSaver(tmp_path, formats="geojson", undecidable=True)
    evaluate({"e": ClassificationError()}, [[item("a", 0.75, 1)]], [saver])
    features = json.loads((tmp_path / "geojson" / "a.geojson").read_text())["features"]
    assert [one["properties"]["classification"]["name"] for one in features] == ["malignant", "Undecidable"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["png", "geojsn"]}, "no format 'geojsn'.*did you mean 'geojson'"),
        ({"formats": ["xyzzy"]}, "no format 'xyzzy'.*choose of png, png_map, geojson, nifti, tiff, dicom, json, csv"),
    ],
)
def test_unknown_formats_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        LocalizationSaver(tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_saver_dicom_without_highdicom_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_seg, "optional_import", lambda name: (None, False))
    with pytest.raises(ConfigError, match="pip install highdicom"):
        LocalizationSaver(tmp_path / "out", formats=["png", "dicom"])
    LocalizationSaver(tmp_path / "out", formats=["png"])


def test_an_image_that_cannot_be_written_has_no_files(tmp_path):
    pytest.importorskip("highdicom")
    one, bad = item("a", 0.75, 1), dicom(rgb(40, 70))
    del bad.StudyInstanceUID
    one["localization"] = replace(one["localization"], path=str(save(tmp_path / "a.dcm", bad)))
    saver = LocalizationSaver(tmp_path / "out", formats=["png", "dicom"])
    with pytest.raises(ImageFileError, match="StudyInstanceUID"):
        evaluate({"e": ClassificationError()}, [[one]], [saver])
    assert {name for name in left(tmp_path / "out") if not name.startswith(".")} == set()
