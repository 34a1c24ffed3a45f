# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The tables of a made-up study, read back from Markdown, CSV and LaTeX."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glas_wsol.bundle.methods import METHODS
from glas_wsol.errors import OutputError
from glas_wsol.experiments.tables.comparison import Comparison
from glas_wsol.experiments.tables.write_tables import Report, make_report
from glas_wsol.metrics.measures import MEASURES
from tests.experiments.tables.conftest import write_run, write_study

RESAMPLES = 200


def report_of(*places: Path, oracle: bool = False) -> Report:
    return make_report(places, MEASURES, Comparison(resamples=RESAMPLES), "python -m glas_wsol table X", oracle)


def tables_of(markdown: str) -> dict[str, pd.DataFrame]:
    """Every Markdown table by its heading, cells as text; columns of one title are numbered by pandas."""
    found = {}
    for part in markdown.split("\n### ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        text = "\n".join(re.sub(r"\s*\|\s*", "|", line).strip("|") for line in lines if not line.startswith("| ---"))
        frame = pd.read_csv(io.StringIO(text), sep="|", dtype=str, keep_default_na=False)
        found[part.splitlines()[0]] = frame.set_index(frame.columns[0])
    return found


def number(cell: str) -> float:
    return float(re.match(r"[+-]?[\d.]+", cell).group())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "runs")


@pytest.fixture(scope="module")
def written(study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "new" / "tables"
    report_of(study, oracle=True).write(folder)
    return folder


@pytest.fixture(scope="module")
def markdown(written) -> str:
    return (written / "tables.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables(markdown) -> dict[str, pd.DataFrame]:
    return tables_of(markdown)


def test_the_document_says_how_it_came_about_and_how_to_read_it(markdown):
    assert markdown.startswith("`python -m glas_wsol table X`\n\n## How to read\n\n* ")
    assert f"95 % interval: images and seeds are drawn again {RESAMPLES} times" in markdown.replace("\n  ", " ")
    assert "## GlaS, split test" in markdown
    assert "30 images of benign, malignant; 13 methods; seeds 0, 1, 2; folds paper." in markdown


def test_it_fits_a_terminal(markdown):
    assert max(len(line) for line in markdown.splitlines()) <= 160


def test_every_row_stands_in_table_1_in_order_with_its_marks(tables):
    for letter in "abc":
        (frame,) = [frame for title, frame in tables.items() if title.startswith(f"Table 1{letter}")]
        titles = [m.title for m in METHODS.values() if m.key not in ("components", "minmax_refined")]
        at = titles.index("Min-max entropy")
        titles[at : at + 1] = ["Min-max entropy, passes 0", "Min-max entropy, passes 4"]
        assert [name.removesuffix(" †").removesuffix(" ‡") for name in frame.index] == titles
        assert [name for name in frame.index if name.endswith("†")] == ["U-Net †"]
        assert [name for name in frame.index if name.endswith("‡")] == [f"{titles[i]} ‡" for i in range(3)]


def test_values_are_those_of_the_images(study, tables):
    values = [
        json.loads((study / "minmax_4" / f"seed{s}_paper" / "evaluation.json").read_text())["measures"]
        for s in (0, 1, 2)
    ]
    regions = tables["Table 1b. Methods, regions"].loc["Min-max entropy, passes 4"]
    f1 = [100 * one["f1_foreground"]["value"] for one in values]
    assert regions["F1+ (%)"].startswith(f"{np.mean(f1):.1f} [")
    assert regions["worst to best seed"] == f"{min(f1):.1f} to {max(f1):.1f}"
    low, high = map(float, re.search(r"\[(.*), (.*)\]", regions["F1+ (%)"]).groups())
    assert low < np.mean(f1) < high
    objects = tables["Table 1c. Methods, objects and boxes"].loc["Min-max entropy, passes 4"]
    distance = np.mean([one["object_hausdorff"]["value"] for one in values])
    assert objects["object Hausdorff (px)"].startswith(f"{distance:.1f} [")


def test_published_values_stand_only_where_they_belong(tables):
    regions, classes = tables["Table 1b. Methods, regions"], tables["Table 1a. Methods, the class of the image"]
    assert regions["publ."].to_dict() == {
        "All-ones ‡": "66.01",
        "Centre Gaussian ‡": "",
        "Haematoxylin stain ‡": "",
        "CAM-Avg": "67.20",
        "CAM-Max": "66.90",
        "CAM-LSE": "65.83",
        "Grad-CAM": "",
        "Grad-CAM++": "",
        "WILDCAT": "67.11",
        "Deep MIL": "69.40",
        "Min-max entropy, passes 0": "39.99",
        "Min-max entropy, passes 4": "72.54",
        "U-Net †": "90.19",
    }
    assert regions["publ..1"]["Deep MIL"] == "50.41"
    assert classes["publ."]["Min-max entropy, passes 4"] == "0.00"
    assert classes["publ."]["U-Net †"] == ""
    assert list(classes.columns).count("publ.") == 1


def test_the_note_of_the_published_values_says_whose_they_are(markdown):
    text = markdown.replace("\n  ", " ")
    assert (
        "resnet101 for min-max entropy and resnet18 for its rivals, on the test set of 80 images, not these 30" in text
    )


def test_a_phantom_in_the_layout_of_glas_has_no_published_values(tmp_path):
    study = write_study(tmp_path / "runs", n=6, seeds=(0,), synthetic=True)
    text = report_of(study).markdown()
    assert "## Phantom (synthetic tissue), split test" in text
    assert "publ" not in text
    report_of(study).write(tmp_path / "out")
    for name in ("table1", "table2", "table3"):
        assert pd.read_csv(tmp_path / "out" / f"{name}.csv")["published"].isna().all()


def test_cub5_has_its_own_and_its_training_time(tmp_path):
    text = report_of(write_study(tmp_path / "runs", n=6, seeds=(0,), dataset="CUB5")).markdown()
    tables = tables_of(text)
    assert tables["Table 1b. Methods, regions"]["publ."]["Min-max entropy, passes 4"] == "52.97"
    published = tables["Table 3. Training time"]["publ."]
    assert published[published != ""].to_dict() == {"Min-max entropy, passes 4": "2.16"}
    assert "one seed: the intervals hold for that one training only" in text
    assert "only 6 images" in text
    assert "worst to best" not in text


def test_what_names_no_class_has_a_dash_and_the_reason(tables, markdown):
    classes = tables["Table 1a. Methods, the class of the image"]
    for name in ("All-ones ‡", "Haematoxylin stain ‡", "U-Net †"):
        assert classes.loc[name, ["error (%)", "balanced error (%)", "AUROC (%)"]].tolist() == ["-(a)"] * 3
    assert "* (a) the method names no class" in markdown.split("### Table 1a")[1].split("###")[0]


def test_a_class_is_not_taken_from_a_method_that_names_none(tmp_path):
    rows = {"classification_error": [0, 1], "f1_foreground": [0.5, 0.5]}
    text = report_of(write_run(tmp_path / "run", rows, method="unet")).markdown()
    assert tables_of(text)["Table 1a. Methods, the class of the image"]["error (%)"]["U-Net †"] == "-(a)"


def test_write_tables_oracles_on_request_have_their_own_table(study, markdown, tables, tmp_path):
    before, oracle = markdown.split("### Oracle thresholds")
    assert "For these measures a threshold was chosen on the evaluated images themselves" in oracle
    assert list(tables["Oracle thresholds"].columns[-3:]) == ["MaxBoxAccV2 (%)", "oracle F1+ (%)", "oracle F1- (%)"]
    assert "oracle" not in before.replace("--oracle", "")
    assert "MaxBox" not in before
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("oracle.csv", "oracle.tex"):
        (folder / name).write_text("of earlier tables")
    report = report_of(study)
    assert "racle" not in report.markdown()
    names = {path.name for path in report.write(folder)}
    assert names == {path.name for path in folder.iterdir()}
    assert names == {
        *("tables.md", "pairs.csv", "table1.csv", "table2.csv", "table3.csv", "table1.tex", "table2.tex", "table3.tex")
    }
    oracles = {key for key, measure in MEASURES.items() if measure.oracle}
    for name in ("table1", "table2", "pairs"):
        assert not oracles & set(pd.read_csv(folder / f"{name}.csv")["measure"])


def test_csv_has_raw_numbers_in_columns_of_their_own(written, tables):
    frame = pd.read_csv(written / "table1.csv")
    assert frame[["dataset", "synthetic", "split"]].drop_duplicates().to_numpy().tolist() == [["GlaS", False, "test"]]
    assert len(frame) == 13 * 12
    row = frame[(frame.method == "minmax") & (frame.passes == 4)].set_index("measure").loc["f1_foreground"]
    cell = tables["Table 1b. Methods, regions"].loc["Min-max entropy, passes 4", "F1+ (%)"]
    assert cell == f"{100 * row.value:.1f} [{100 * row.lo:.1f}, {100 * row.hi:.1f}]"
    assert (row.published, row.images, row.seeds, row.runs, row.unit) == (0.7254, 30, 3, 3, "share")
    assert row.worst_seed < row.value < row.best_seed
    error = frame[(frame.method == "cam_max")].set_index("measure").loc["classification_error"]
    assert error.worst_seed >= error.best_seed
    assert frame[frame.method == "unet"].set_index("measure").loc["classification_error"].isna()["value"]
    assert set(pd.read_csv(written / "oracle.csv").measure) == {
        key for key, m in MEASURES.items() if m.oracle and m.needs != "box"
    }
    assert (written / "table1.csv").read_text().count(",4.0,") == 0  # passes stay whole numbers


def test_calibration_stands_in_the_files_and_not_in_the_tables(written):
    frame = pd.read_csv(written / "table1.csv").set_index(["measure", "method"])
    row = frame.loc[[("calibration_error", "cam_avg")]].iloc[0]
    assert row.lo < row.value < row.hi
    assert (row.interval, row.higher_is_better) == ("reflected bootstrap", False)
    assert frame.loc["mask_calibration_error"]["value"].isna().all(), "these runs did not measure it"
    assert "calibration_error" in set(pd.read_csv(written / "pairs.csv").measure)
    assert "calibration" not in (written / "tables.md").read_text()


def test_latex_has_the_same_rows(written, tables):
    text = (written / "table1.tex").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("Min-max entropy, passes 4 &")]
    assert len(lines) == 3
    cells = [cell.strip().replace("{[}", "[").replace("{]}", "]") for cell in lines[1].removesuffix(r"\\").split("&")]
    assert cells[1:] == tables["Table 1b. Methods, regions"].loc["Min-max entropy, passes 4"].tolist()
    assert r"U-Net $^{\dagger}$ &" in text
    assert r"\caption{Recursive erasing" in (written / "table2.tex").read_text()


def test_pairs_holds_every_pair_once(written):
    frame = pd.read_csv(written / "pairs.csv", float_precision="round_trip")
    sizes = frame.groupby("measure").size()
    assert sizes["f1_foreground"] == 13 * 12 / 2
    assert sizes["classification_error"] == 9 * 8 / 2  # four rows name no class
    assert (frame.p >= 1 / (RESAMPLES + 1)).all()
    assert (frame.p_holm >= frame.p).all()
    assert ((frame.lo <= frame.difference) & (frame.difference <= frame.hi)).all()
    values = pd.read_csv(written / "table1.csv").set_index(["title", "measure"])["value"]
    for line in frame.sample(20, random_state=0).itertuples():
        wanted = values[line.row, line.measure] - values[line.other, line.measure]
        assert line.difference == pytest.approx(wanted, abs=1e-12)


def test_min_max_entropy_stands_against_the_others(tables, written):
    frame = tables["Table 1d. Min-max entropy, passes 4 against the others"]
    assert len(frame) == 12
    assert "Min-max entropy, passes 4" not in frame.index
    pairs = pd.read_csv(written / "pairs.csv").set_index(["row", "other", "measure"])
    record = pairs.loc["Min-max entropy, passes 4", "CAM-Avg", "f1_background"]
    assert number(frame["F1- (points)"]["CAM-Avg"]) == pytest.approx(100 * record.difference, abs=0.051)
    record = pairs.loc["U-Net", "Min-max entropy, passes 4", "f1_background"]  # there the later row comes first
    assert number(frame["F1- (points)"]["U-Net †"]) == pytest.approx(-100 * record.difference, abs=0.051)


def test_table_2_has_both_depths_and_their_difference(tables, written):
    frame = tables["Table 2. Recursive erasing, passes 0 and 4, on resnet18 (n = 30, 3 seeds)"]
    assert list(frame.index) == ["passes 0", "passes 4", "passes 4 - passes 0", "p (two-sided)"]
    f1 = frame["F1+ (%)"]
    assert number(f1["passes 4 - passes 0"]) == pytest.approx(number(f1["passes 4"]) - number(f1["passes 0"]), abs=0.11)
    assert frame["publ..1"].tolist() == ["39.99", "72.54", "+32.55", ""]
    records = pd.read_csv(written / "table2.csv").set_index(["passes", "measure"])
    deeper = records.loc[4, "f1_foreground"]
    assert deeper.difference == pytest.approx(deeper.value - records.loc[0, "f1_foreground"].value)
    assert deeper.against_passes == 0
    assert np.isnan(records.loc[0, "f1_foreground"].difference)


def test_depths_are_compared_on_each_backbone(tmp_path):
    rows = {"f1_foreground": [0.5, 0.25]}
    for trunk in ("resnet18", "resnet50"):
        for passes in (0, 2, 4) if trunk == "resnet50" else (4,):
            write_run(tmp_path / f"{trunk}{passes}", rows, method="minmax", passes=passes, trunk=trunk)
    tables = tables_of(report_of(tmp_path).markdown())
    assert [title for title in tables if title.startswith("Table 2")] == [
        "Table 2. Recursive erasing, passes 0 and 2, on resnet50 (n = 2, 1 seed)",
        "Table 2. Recursive erasing, passes 0 and 4, on resnet50 (n = 2, 1 seed)",
    ]
    # One title on two backbones: where no column says which, the title does.
    names = ["Min-max entropy, passes 4, resnet18", "Min-max entropy, passes 4, resnet50"]
    assert set(names) < set(tables["Table 1b. Methods, regions"].index)


def test_table_3_has_times_and_ratios_by_seed(tmp_path):
    rows = {"f1_foreground": [0.5, 0.25]}
    for seed, (none, four) in enumerate([(10.0, 20.0), (10.0, 40.0)]):
        write_run(tmp_path / f"none{seed}", rows, method="minmax", passes=0, seed=seed, seconds=none)
        write_run(tmp_path / f"four{seed}", rows, method="minmax", passes=4, seed=seed, seconds=four)
    slow = {"seconds": 70.0, "cpu_seconds": 70.0, "epochs": 10, "device": "cpu", "threads": 1}
    write_run(tmp_path / "avg", rows, method="cam_avg", training=slow)
    write_run(tmp_path / "grad", rows, method="grad_cam")
    write_run(tmp_path / "stain", rows, method="stain")
    report = report_of(tmp_path)
    frame = tables_of(report.markdown())["Table 3. Training time"]
    four = frame.loc["Min-max entropy, passes 4"]
    assert four[["runs", "time (s)", "min to max", "CPU time (s)", "threads"]].tolist() == [
        *("2", "30.0", "20.0 to 40.0", "60.0", "2")
    ]
    assert four["ratio"] == "3.00 (2.00 to 4.00)"
    assert four["CPU ratio"] == "3.00"
    assert frame["ratio"]["Min-max entropy, passes 0"] == "1.00"
    assert frame["ratio"]["CAM-Avg"].startswith("-(")  # another number of threads
    assert frame["runs"].tolist()[:3] == ["-(a)", "1", "-(c)"]
    assert "(c) trained as CAM-Avg" in report.markdown()
    report.write(tmp_path / "out")
    record = pd.read_csv(tmp_path / "out" / "table3.csv").set_index(["method", "passes"]).loc["minmax", 4.0]
    assert (record.seconds, record.ratio, record.ratio_min, record.ratio_max, record.cpu_ratio) == (30, 3, 2, 4, 3)


def test_write_tables_unequal_runs_are_marked_and_paired(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"avg{seed}", {"f1_foreground": [0.5, 0.5 + seed / 4]}, method="cam_avg", seed=seed)
    write_run(tmp_path / "ours", {"f1_foreground": [0.75, 0.75]}, method="minmax", passes=4, seed=0)
    write_run(tmp_path / "stain", {"f1_foreground": [0.25, 0.25]}, method="stain")
    report = report_of(tmp_path)
    text = report.markdown()
    assert "no runs of seed 1 fold paper. Its values are of the runs it has" in text.replace("\n  ", " ")
    frame = tables_of(text)["Table 1b. Methods, regions"]
    assert list(frame.index) == ["Haematoxylin stain ‡", "CAM-Avg", "Min-max entropy, passes 4 (c)"]
    assert frame["F1+ (%)"]["CAM-Avg"].startswith("56.2 [")
    report.write(tmp_path / "out")
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv").set_index(["row", "other"])
    pair = pairs.loc["Min-max entropy, passes 4", "CAM-Avg"]
    assert (pair.difference, pair.runs_compared) == (0.25, 1)  # of seed 0 alone
    assert pairs.loc["CAM-Avg", "Haematoxylin stain"].runs_compared == 2


def test_rows_without_a_common_run_are_said_to_have_none(tmp_path):
    write_run(tmp_path / "avg", {"f1_foreground": [0.5, 0.5]}, seed=1)
    write_run(tmp_path / "ours", {"f1_foreground": [0.75, 0.75]}, method="minmax", passes=4)
    assert "no seed and fold in common" in report_of(tmp_path).markdown()


def test_images_without_masks_are_counted(tmp_path):
    rows = {"f1_foreground": [0.5, np.nan, 0.25], "classification_error": [0, 1, 0]}
    write_run(tmp_path / "run", rows, n_with_masks=2)
    text = report_of(tmp_path / "run").markdown()
    assert "measured on 2 of 3 images" in text
    write_run(tmp_path / "none", {"classification_error": [0, 0, 0]}, n_with_masks=0)
    text = report_of(tmp_path / "none").markdown()
    assert "no evaluated image has a true mask" in text
    assert "0.0 [0.0, 56.1] (" in text  # z^2 / (3 + z^2)
    assert "](" not in text, "Markdown would make a link of an interval with a mark right behind it"


def test_write_tables_intervals_without_width_are_explained(tmp_path):
    right = {"balanced_error": [[0, 0], [1, 0]], "classification_error": [0, 0], "f1_foreground": [0.5, 0.25]}
    write_run(tmp_path / "a", right, method="cam_avg")
    write_run(tmp_path / "b", {**right, "f1_foreground": [0.5, 0.75]}, method="cam_max")
    write_run(tmp_path / "c", {"f1_background": [0, 0]}, method="all_ones")
    text = report_of(tmp_path).markdown()
    tables = tables_of(text)
    classes, regions = tables["Table 1a. Methods, the class of the image"], tables["Table 1b. Methods, regions"]
    mark = re.fullmatch(r"0\.0 \[0\.0, 0\.0\] (\(.\))", classes["balanced error (%)"]["CAM-Avg"]).group(1)
    assert f"* {mark} an interval without width" in text
    assert regions["F1+ (%)"]["CAM-Avg"].endswith("]")
    assert regions["F1- (%)"]["All-ones ‡"] == "0.0 [0.0, 0.0]"  # that is certain
    against = tables["Table 1d. CAM-Max against the others"]
    mark = re.fullmatch(r"\+0\.0 \[\+0\.0, \+0\.0\] (\(.\))", against["error (points)"]["CAM-Avg"]).group(1)
    assert f"* {mark} the two never differ here" in text


@pytest.mark.parametrize(("split", "words"), [("valid", "were chosen by"), ("train", "were trained on"), ("test", "")])
def test_a_split_that_the_models_have_seen_is_named(tmp_path, split, words):
    write_run(tmp_path / "floor", {"f1_foreground": [0.5, 0.25]}, method="stain", split=split)
    assert "these very images" not in report_of(tmp_path).markdown(), "a floor has seen nothing"
    write_run(tmp_path / "run", {"f1_foreground": [0.5, 0.25]}, split=split)
    text = report_of(tmp_path).markdown()
    assert ("these very images" in text) == bool(words)
    assert words in text


def test_write_tables_threshold_by_hand_is_in_every_table(tmp_path):
    write_run(tmp_path / "a", {"f1_foreground": [0.5, 0.25]}, threshold=0.3, threshold_rule="set by hand")
    write_run(tmp_path / "b", {"f1_foreground": [0.5, 0.25]}, method="cam_max")
    text = report_of(tmp_path).markdown()
    assert text.count("threshold of the mask 0.3: set by hand") == 4
    frame = tables_of(text)["Table 1b. Methods, regions"]
    assert re.fullmatch(r"CAM-Avg \(.\)", frame.index[0])
    assert frame.index[1] == "CAM-Max"


def test_tables_without_a_column_for_it_say_the_backbone(tmp_path, markdown):
    block = markdown.split("### Table 1b")[1].split("###")[0]
    assert "* backbone resnet18, n = 30, seeds: 3, folds: 1\n" in block
    write_run(tmp_path / "a", {"f1_foreground": [0.5]}, method="cam_avg", trunk="resnet50")
    write_run(tmp_path / "b", {"f1_foreground": [0.25]}, method="cam_max")
    text = report_of(tmp_path).markdown()
    assert list(tables_of(text)["Table 1b. Methods, regions"].index) == ["CAM-Avg, resnet50", "CAM-Max, resnet18"]
    assert "n, seeds and folds of each method are in table 1a" in text


def test_write_tables_missing_runs_listed_own_method_last(tmp_path):
    write_run(tmp_path / "a", {"f1_foreground": [0.5]}, method="minmax", passes=4)
    write_run(tmp_path / "b", {"f1_foreground": [0.25]}, method="a_new_one")
    text = report_of(tmp_path).markdown()
    assert "\nNot run: All-ones; Centre Gaussian; " in text
    stages = "Ours + stage two, passes 0; Ours + stage two, passes 4"
    assert f"Components (ours); Min-max entropy, passes 0; {stages}; U-Net." in text.replace("\n", " ")
    assert list(tables_of(text)["Table 1b. Methods, regions"].index) == ["Min-max entropy, passes 4", "a_new_one"]


def test_a_shorter_recipe_is_seen(markdown, tmp_path):
    assert "* `epochs`: 12 (Min-max entropy, passes 0 / Min-max entropy, passes 4); 10 (all others)" in markdown
    assert "`passes`" not in markdown  # the row's title says it
    write_run(tmp_path / "a", {"f1_foreground": [0.5]}, method="cam_avg")
    write_run(tmp_path / "b", {"f1_foreground": [0.25]}, method="cam_max")
    assert "The recipes of the trained methods share all their settings." in report_of(tmp_path).markdown()


def test_groups_have_headings_and_one_csv(tmp_path):
    for split, value in (("test", 0.5), ("valid", 0.25)):
        write_run(tmp_path / split, {"f1_foreground": [value, value]}, split=split)
    report = report_of(tmp_path)
    text = report.markdown()
    assert text.index("## GlaS, split test") < text.index("## GlaS, split valid")
    report.write(tmp_path / "out")
    frame = pd.read_csv(tmp_path / "out" / "table1.csv").set_index(["split", "measure"])
    assert frame.loc[("test", "f1_foreground"), "value"] == 0.5
    assert frame.loc[("valid", "f1_foreground"), "value"] == 0.25
    tex = (tmp_path / "out" / "table1.tex").read_text()
    assert "GlaS, split test." in tex
    assert "GlaS, split valid." in tex


def test_a_folder_that_cannot_be_made_is_told_in_one_line(study, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        report_of(study / "stain").write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
