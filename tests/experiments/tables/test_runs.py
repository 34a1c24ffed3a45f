# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs are found, read in the order of their names, and refused where they are not whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glas_wsol.errors import OutputError
from glas_wsol.experiments.tables.runs import find_runs, read_run
from glas_wsol.metrics.measures import MEASURES
from tests.experiments.tables.conftest import change, write_run

ROWS = {"f1_foreground": [0.25, 0.5, 1.0], "classification_error": [1, 0, 0]}


def test_finds_at_any_depth_each_once_and_follows_no_link(tmp_path):
    outside = write_run(tmp_path / "outside", ROWS)
    top = write_run(tmp_path / "study" / "b", ROWS)
    deep = write_run(tmp_path / "study" / "a" / "x" / "y", ROWS)
    nested = write_run(tmp_path / "study" / "b" / "again", ROWS)
    write_run(tmp_path / "study" / ".half" / "c", ROWS)
    (tmp_path / "study" / "link").symlink_to(outside)
    assert find_runs([tmp_path / "study"]) == [deep, top, nested]
    assert find_runs([top, tmp_path / "study", deep]) == [deep, top, nested]
    assert find_runs([tmp_path / "study" / "link"]) == [tmp_path / "study" / "link"]  # a place itself may be one


def test_a_place_without_runs_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"no such folder of runs \[.*nowhere\]"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "run", ROWS)
    with pytest.raises(OutputError, match=r"no evaluation.json here or below \[.*empty\]: evaluate"):
        find_runs([tmp_path / "run", tmp_path / "empty"])


def test_reads_rows_in_the_order_of_the_names(tmp_path):
    run = read_run(write_run(tmp_path / "run", ROWS, names=["c", "a", "b"], fold="patient-1", seed=3), MEASURES)
    assert run.names.tolist() == ["a", "b", "c"]
    assert run.rows["f1_foreground"].tolist() == [[0.5], [1.0], [0.25]]
    assert run.rows["classification_error"].tolist() == [[0], [0], [1]]
    assert (run.seed, run.fold) == (3, "patient-1")


def test_another_seed_of_the_folds_is_another_fold(tmp_path):
    assert read_run(write_run(tmp_path / "run", ROWS, fold="patient-1", fold_seed=7), MEASURES).fold == (
        "patient-1 (seed 7)"
    )


def test_what_is_not_trained_may_have_no_seed(tmp_path):
    assert read_run(write_run(tmp_path / "a", ROWS, method="all_ones", seed=None), MEASURES).seed == 0
    with pytest.raises(OutputError, match="with which seed"):
        read_run(write_run(tmp_path / "b", ROWS, method="cam_avg", seed=None), MEASURES)


def test_keys_that_are_no_measure_are_left_alone(tmp_path):
    folder = write_run(tmp_path / "run", ROWS)
    with np.load(folder / "evaluation.npz") as file:
        np.savez(folder / "evaluation.npz", **file, other=np.zeros(5))
    assert read_run(folder, MEASURES).rows.keys() == ROWS.keys()


def test_runs_without_image_values_says_how_to_get_them(tmp_path):
    folder = write_run(tmp_path / "run", ROWS)
    (folder / "evaluation.npz").unlink()
    with pytest.raises(OutputError, match=r"no evaluation.npz .*run\]: evaluate this run again") as error:
        read_run(folder, MEASURES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"x"', b"\xff\xfe\x00"])
def test_a_damaged_report_is_named(tmp_path, text):
    folder = write_run(tmp_path / "run", ROWS)
    (folder / "evaluation.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OutputError, match=r"damaged \[.*evaluation.json\]"):
        read_run(folder, MEASURES)


@pytest.mark.parametrize("keep", [0, 3, 40, -30])
def test_half_a_file_of_values_is_named(tmp_path, keep):
    folder = write_run(tmp_path / "run", ROWS)
    whole = (folder / "evaluation.npz").read_bytes()
    (folder / "evaluation.npz").write_bytes(whole[:keep])
    with pytest.raises(OutputError, match=r"damaged \[.*evaluation.npz\]"):
        read_run(folder, MEASURES)


def test_pickles_are_not_loaded(tmp_path):
    folder = write_run(tmp_path / "run", ROWS)
    names = np.array(["image_0", "image_1", "image_2"])
    np.savez(folder / "evaluation.npz", names=names, f1_foreground=np.array([[0.25], [0.5], [{}]], dtype=object))
    with pytest.raises(OutputError, match="damaged"):
        read_run(folder, MEASURES)


@pytest.mark.parametrize(
    "arrays",
    [
        {"names": np.array(["a", "b"]), "f1_foreground": np.zeros((2, 1))},  # the report says three
        {"names": np.array(["a", "b", "b"]), "f1_foreground": np.zeros((3, 1))},
        {"names": np.array(["a", "b", "c"]), "f1_foreground": np.zeros((2, 1))},
        {"names": np.arange(3), "f1_foreground": np.zeros((3, 1))},
        {"names": np.array(["a", "b", "c"]), "f1_foreground": np.zeros(3)},
    ],
)
def test_rows_that_do_not_fit_the_images_are_refused(tmp_path, arrays):
    folder = write_run(tmp_path / "run", ROWS)
    np.savez(folder / "evaluation.npz", **arrays)
    with pytest.raises(OutputError, match=r"one name and one row per image|not a table"):
        read_run(folder, MEASURES)


def test_a_report_of_other_values_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", ROWS)
    measures = json.loads((folder / "evaluation.json").read_text())["measures"]
    measures["f1_foreground"]["value"] += 0.01
    with pytest.raises(OutputError, match=r"says f1_foreground 0\.593.*give 0\.583333"):
        read_run(change(folder, measures=measures), MEASURES)


def test_a_value_that_no_image_gives_is_none(tmp_path):
    rows = {"f1_foreground": [np.nan] * 3, "classification_error": [0, 0, 1]}
    assert np.isnan(read_run(write_run(tmp_path / "run", rows, n_with_masks=0), MEASURES).rows["f1_foreground"]).all()


def test_runs_older_or_invalid_report_is_refused(tmp_path):
    folder = write_run(tmp_path / "old", ROWS)
    facts = json.loads((folder / "evaluation.json").read_text())
    for name in ("method", "names_class", "measures", "recipe"):
        del facts[name]
    (folder / "evaluation.json").write_text(json.dumps(facts))
    with pytest.raises(OutputError, match="does not say method, names_class, recipe and 1 more: another version"):
        read_run(folder, MEASURES)
    for i, (name, value) in enumerate({"n": True, "passes": "4", "classes": "ab", "synthetic": 0}.items()):
        with pytest.raises(OutputError, match=f"{name} is {value!r}"):
            read_run(write_run(tmp_path / str(i), ROWS, **{name: value}), MEASURES)
    with pytest.raises(OutputError, match="does not say training cpu_seconds"):
        read_run(write_run(tmp_path / "t", ROWS, training={"seconds": 1.0, "device": "cpu", "threads": 1}), MEASURES)
