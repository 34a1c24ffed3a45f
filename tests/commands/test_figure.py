# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The figure's command: which runs, which images, and what is said of them."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol.commands import figure
from glas_wsol.errors import ConfigError, GlasWsolError, ImageFileError, OutputError
from tests.commands.runs import write_run

CLASSES = ("benign", "malignant")
NAMES = [f"testA_{number}" for number in range(1, 13)]  # the even ones malignant


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[dict]:
    """Twelve tiles of one colour each, the last two without a true mask."""
    folder, made = tmp_path_factory.mktemp("data"), []
    for number, name in enumerate(NAMES, 1):
        truth = np.zeros((20, 33), np.uint8)
        truth[:, :number] = number
        Image.fromarray(np.full((20, 33, 3), 10 * number, np.uint8)).save(folder / f"{name}.bmp")
        Image.fromarray(truth).save(folder / f"{name}_anno.bmp")
        item = {"image": str(folder / f"{name}.bmp"), "label": (number + 1) % 2, "name": name}
        made.append(item | ({"mask": str(folder / f"{name}_anno.bmp")} if number < 11 else {}))
    return made


def run(folder: Path, items: list[dict], column: int = 5, classes: tuple[str, ...] = CLASSES, **facts) -> Path:
    """An evaluation whose masks are one column, by which the method is known again."""
    mask = np.zeros((20, 33), bool)
    mask[:, column] = True
    return write_run(folder, items, {item["name"]: mask for item in items}, classes, **facts)


@pytest.fixture
def drawn(monkeypatch) -> list:
    """What the writer is given; nothing is drawn."""
    seen: list = []
    monkeypatch.setattr("glas_wsol.visualize.comparison_figure.draw_figure", lambda *arguments: seen.append(arguments))
    return seen


def call(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    figure.register(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["figure", *map(str, arguments)])
    parsed.command(parsed)


def test_the_figure_is_written_and_said(tmp_path, items, capsys):
    run(tmp_path / "runs" / "cam", items, method="cam_avg")
    run(tmp_path / "runs" / "unet", items, method="unet")
    call(tmp_path / "runs", "--output", tmp_path / "figure.png", "--count", 2)
    assert "2 images and 2 methods" in capsys.readouterr().out
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 300


def test_figure_columns_are_methods_in_table_order(tmp_path, items, drawn):
    runs = [("minmax", 4, 1), ("unet", None, 2), ("all_ones", None, 3), ("minmax", 0, 4), ("cam_avg", None, 5)]
    for method, passes, column in runs:
        run(tmp_path / "runs" / f"{method}_{passes}", items, column, method=method, passes=passes)
    call(tmp_path / "runs", "--output", "f.png", "--images", "testA_7")
    ((_, (line,), columns, _),) = drawn
    assert [(c.title, c.note, c.group) for c in columns] == [
        ("All-ones", "", "untrained"),
        ("CAM-Avg", "", "image labels"),
        ("Min-max entropy, passes 0", "", "image labels"),
        ("Min-max entropy, passes 4", "", "image labels"),
        ("U-Net", "", "pixel labels"),
    ]
    assert [int(np.flatnonzero(mask.any(0))[0]) for mask in line.masks] == [3, 5, 4, 1, 2]
    assert (line.label, line.name) == ("benign", "testA_7")
    assert (line.image == 70).all()
    assert np.array_equal(line.truth, np.arange(33)[None].repeat(20, 0) < 7)


def test_the_backbone_is_named_where_it_is_not_one_for_all(tmp_path, items, drawn):
    run(tmp_path / "a", items, method="stain")
    run(tmp_path / "b", items, method="cam_avg", trunk="resnet18")
    run(tmp_path / "c", items, method="minmax", passes=4, trunk="resnet101")
    run(tmp_path / "d", items, method="minmax", passes=4, trunk="resnet18")
    call(tmp_path, "--output", "f.png")
    call(tmp_path / "a", tmp_path / "b", tmp_path / "d", "--output", "f.png")
    assert [c.note for c in drawn[0][2]] == ["", "resnet18", "resnet101", "resnet18"]
    assert "Backbone" not in drawn[0][3][0]
    assert [c.note for c in drawn[1][2]] == ["", "", ""]
    assert "Backbone: resnet18." in drawn[1][3][0]


def test_figure_of_several_seeds_draws_and_names_the_lowest(tmp_path, items, drawn):
    for seed, column in ((3, 9), (1, 7), (2, 8)):
        run(tmp_path / f"seed_{seed}", items, column, seed=seed)
    call(tmp_path, "--output", "f.png")
    call(tmp_path / "seed_3", "--output", "f.png")
    assert len(drawn[0][2]) == 1
    assert [int(np.flatnonzero(line.masks[0].any(0))[0]) for line in drawn[0][1]] == [7] * 4
    assert "lowest seed" in drawn[0][3][0]
    assert "lowest seed" not in drawn[1][3][0]


def test_figure_caption_states_source_choice_and_threshold(tmp_path, items, drawn):
    run(tmp_path / "cam", items, synthetic=False)
    call(tmp_path, "--output", "f.png")
    caption = drawn[0][3]
    assert caption[0].startswith("GlaS, split test, fold paper.")
    assert "Threshold of the masks: 0.5." in caption[0]
    assert "not chosen by results" in caption[1]
    run(tmp_path / "stain", items, method="stain", synthetic=False, threshold=0.25)
    call(tmp_path, "--output", "f.png", "--images", "testA_2")
    assert "0.25 (Haematoxylin stain); 0.5 (CAM-Avg)" in drawn[1][3][0]
    assert drawn[1][3][1] == "The images were named by hand."


def test_figure_choice_in_any_order_is_balanced_and_even(tmp_path, items, drawn):
    run(tmp_path / "cam", items[::-1])
    call(tmp_path, "--output", "f.png")
    # With masks: benign 1 3 5 7 9, malignant 2 4 6 8 10; the middle of each half of five is the 2nd and the 4th.
    assert [line.name for line in drawn[0][1]] == ["testA_3", "testA_7", "testA_4", "testA_8"]


def rows(counts: dict[str, int]) -> dict[str, dict[str, str]]:
    return {
        f"{label}_{n}": {"label": label, "mask": "x"} for label, count in counts.items() for n in range(1, count + 1)
    }


@pytest.mark.parametrize(
    ("counts", "count", "expected"),
    [
        ({"a": 9, "b": 9, "c": 9}, 3, ["a_5", "b_5", "c_5"]),
        ({"a": 12, "b": 3}, 6, ["a_3", "a_7", "a_11", "b_1", "b_2", "b_3"]),
        ({"a": 12, "b": 1}, 6, ["a_3", "a_7", "a_11", "b_1"]),
        ({"a": 3, "b": 3, "c": 3}, 4, ["a_2", "b_1", "b_3", "c_2"]),
        ({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}, 2, ["b_1", "e_1"]),
        ({"a": 2, "b": 0}, 9, ["a_1", "a_2"]),
    ],
)
def test_choosing_by_hand(counts, count, expected):
    assert figure.choose_images(rows(counts), list(counts), count) == expected


def test_numbers_in_names_count_as_numbers():
    table = {f"a_{n}": {"label": "a", "mask": ""} for n in (10, 9, 100, 1, 2)}
    assert figure.choose_images(table, ["a"], 5) == ["a_1", "a_2", "a_9", "a_10", "a_100"]


def test_figure_images_with_truth_go_first_named_ones_too(tmp_path, items, drawn):
    run(tmp_path / "cam", items)
    call(tmp_path, "--output", "f.png", "--images", "testA_12", "testA_1")
    assert [(line.name, line.truth is None) for line in drawn[0][1]] == [("testA_12", True), ("testA_1", False)]
    call(tmp_path, "--output", "f.png", "--count", 12)
    assert len(drawn[1][1]) == 10
    bare = [{key: value for key, value in item.items() if key != "mask"} for item in items]
    run(tmp_path / "bare", bare)
    call(tmp_path / "bare", "--output", "f.png", "--count", 12)
    assert len(drawn[2][1]) == 12


def test_the_truth_is_cut_at_the_threshold_of_the_evaluation(tmp_path, items, drawn):
    run(tmp_path / "cam", items, mask_threshold=4)
    call(tmp_path, "--output", "f.png", "--images", "testA_5", "testA_4")
    assert [int(line.truth.sum()) for line in drawn[0][1]] == [100, 0]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--output", "f.jpg"], OutputError, r"PNG or a PDF.*f\.jpg"),
        (["--output", "f.png", "--count", "0"], ConfigError, "give 1 or more"),
        (["--output", "f.png", "--images", "testA_33"], ConfigError, r"named 'testA_33'.*did you mean 'testA_3'"),
        (["--output", "f.png", "--split", "valid"], ConfigError, "no run has --split valid.*choose test"),
        (["--output", "f.png", "--fold", "patient-0"], ConfigError, "no run has --fold patient-0.*choose paper"),
    ],
)
def test_settings_that_cannot_be(tmp_path, items, arguments, kind, message):
    run(tmp_path / "cam", items)
    with pytest.raises(kind, match=message) as caught:
        call(tmp_path, *arguments)
    assert "\n" not in str(caught.value)


def test_runs_on_different_images_are_refused_naming_them(tmp_path, items):
    run(tmp_path / "one", items, method="cam_avg")
    run(tmp_path / "other", items[1:], method="cam_max")
    with pytest.raises(GlasWsolError, match=r"different images.*one.*other") as caught:
        call(tmp_path, "--output", "f.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("option", "fact", "values"), [("--split", "split", "test valid"), ("--fold", "fold", "a b")])
def test_of_runs_of_several_splits_or_folds_one_is_asked_for(tmp_path, items, drawn, option, fact, values):
    for column, value in enumerate(values.split(), 1):
        run(tmp_path / value, items, column, **{fact: value})
    with pytest.raises(ConfigError, match=rf"several {fact}s: {values.replace(' ', ', ')}.*choose one with {option}"):
        call(tmp_path, "--output", "f.png")
    call(tmp_path, "--output", "f.png", option, values.split()[1])
    assert [int(np.flatnonzero(line.masks[0].any(0))[0]) for line in drawn[0][1]] == [2] * 4


def test_runs_of_different_data_are_refused(tmp_path, items):
    run(tmp_path / "a", items, dataset="GlaS", synthetic=False)
    run(tmp_path / "b", items, dataset="GlaS", synthetic=True)
    with pytest.raises(ConfigError, match=r"different data: GlaS, split test; phantom \(synthetic tissue\)"):
        call(tmp_path, "--output", "f.png")


def test_folders_that_are_no_runs(tmp_path, items):
    with pytest.raises(OutputError, match=r"evaluation\.json"):
        call(tmp_path, "--output", "f.png")
    run(tmp_path / "cam", items)
    (tmp_path / "cam" / "evaluation.json").write_text(json.dumps({"n": 3}))
    with pytest.raises(OutputError, match="another version"):
        call(tmp_path, "--output", "f.png")


def test_missing_and_foreign_files_are_named(tmp_path, items):
    def refused(kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message) as caught:
            call(tmp_path / "cam", "--output", tmp_path / "f.png")
        assert "\n" not in str(caught.value)
        shutil.rmtree(tmp_path / "cam")
        run(tmp_path / "cam", items)

    run(tmp_path / "cam", items)
    (tmp_path / "cam" / "test" / "masks" / "testA_3.png").unlink()
    refused(ImageFileError, r"testA_3\.png")
    Image.fromarray(np.zeros((33, 20), np.uint8)).save(tmp_path / "cam" / "test" / "masks" / "testA_3.png")
    refused(ImageFileError, r"size is \(33, 20\), that of its image \(20, 33\).*testA_3\.png")
    (tmp_path / "cam" / "evaluation.csv").unlink()
    refused(OutputError, r"cannot be read.*evaluation\.csv")
    (tmp_path / "cam" / "evaluation.csv").write_text("name,label\ntestA_1,benign\n")
    refused(OutputError, r"not that of evaluation\.json")
    assert not (tmp_path / "f.png").exists()


def test_figure_multi_label_images_are_chosen_by_class():
    table = rows({"a": 3, "b": 1, "a;b": 3})
    assert figure.choose_images(table, ["a", "b"], 3) == ["a_2", "b_1", "a;b_2"]
    assert figure.choose_images(rows({"a;b": 3}), ["a", "b"], 1) == ["a;b_2"]
