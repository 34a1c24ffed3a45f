# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every subcommand on small phantoms; a failure is one line and status 1."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from glas_wsol import __version__
from glas_wsol.__main__ import main
from glas_wsol.data import images_datalist, load_datalist
from glas_wsol.data.phantom import birds as phantom_birds
from glas_wsol.data.phantom import tissue as phantom_tissue
from glas_wsol.errors import as_typed, set_typed
from glas_wsol.transforms import read_rgb
from tests.writers.conftest import write_evaluation

ROOT = Path(__file__).parents[2]
SMALL = {"train": 10, "test": 4, "size": (64, 97)}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory) -> Path:
    return phantom_tissue.write_tissue_phantom(tmp_path_factory.mktemp("main") / "tissue", scale=0.15, **SMALL)


def fails(capsys, *arguments: str) -> str:
    """The one line said."""
    assert main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("birds", [False, True])
def test_phantom_writes_what_was_asked_for(tmp_path, monkeypatch, capsys, birds):
    small = {**SMALL, "scale": 0.15} if not birds else {"train": 10, "test": 5, "size": (48, 64)}
    module, name = (phantom_birds, "write_bird_phantom") if birds else (phantom_tissue, "write_tissue_phantom")
    monkeypatch.setattr(module, name, partial(getattr(module, name), **small))
    options = ["--kind", "birds"] if birds else ["--confounded"]
    assert main(["phantom", str(tmp_path / "p"), "--seed", "3", *options]) == 0
    assert str(tmp_path / "p") in capsys.readouterr().out
    manifest = json.loads((tmp_path / "p" / "phantom.json").read_text())
    assert (manifest["phantom"], manifest["seed"]) == ("birds" if birds else "tissue", 3)
    assert birds or manifest["confounded"]
    assert (
        load_datalist(tmp_path / "p", fold="stratified-0").name
        == f"phantom (synthetic {'birds' if birds else 'tissue'})"
    )
    assert "another phantom" in fails(capsys, "phantom", str(tmp_path / "p"), "--seed", "4", *options)


def test_data_prints_the_splits(tissue, capsys):
    assert main(["data", str(tissue), "--fold", "stratified-1", "--seed", "2"]) == 0
    assert capsys.readouterr().out.strip() == load_datalist(tissue, "stratified-1", 2).summary()


@pytest.mark.parametrize("arguments", [["nowhere"], ["{}", "--fold", "patient-9"]])
def test_data_names_what_is_wrong(tissue, capsys, arguments):
    fails(capsys, "data", *(argument.format(tissue) for argument in arguments))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_images_lists_a_split_for_inference(tissue, tmp_path, capsys, monkeypatch, split):
    monkeypatch.chdir(tissue.parent)  # a relative data set must give a list that can be read from anywhere
    output = tmp_path / "list.csv"
    arguments = [
        "images",
        tissue.name,
        "--fold",
        "stratified-0",
        "--seed",
        "1",
        "--split",
        split,
        "--output",
        str(output),
    ]
    assert main(arguments) == 0
    monkeypatch.chdir(tmp_path)
    expected = [item["image"] for item in load_datalist(tissue, "stratified-0", 1).select(split)]
    assert [item["image"] for item in images_datalist(output)] == [str(Path(path).resolve()) for path in expected]
    with output.open(newline="") as file:
        assert next(csv.reader(file)) == ["image"]
    assert f"{len(expected)} images of split '{split}'" in capsys.readouterr().out


def test_images_needs_a_place_to_write(tissue, tmp_path, capsys):
    place = str(tmp_path / "nowhere" / "list.csv")
    assert "make the folder first" in fails(capsys, "images", str(tissue), "--fold", "stratified-0", "--output", place)


def evaluation(run: Path, tissue: Path, truth: bool = True) -> list[str]:
    items = {item["name"]: item for item in load_datalist(tissue, fold="stratified-0").select("test", masks=True)}
    shapes = {name: read_rgb(item["image"]).shape[:2] for name, item in items.items()}
    masks = {name: np.arange(h * w).reshape(h, w) < 1500 for name, (h, w) in shapes.items()}
    scores = {name: (0.2 * k, 0.5) if truth else None for k, name in enumerate(masks)}
    write_evaluation(run, items, masks, scores, fold="stratified-0")
    return list(masks)


def test_show_prints_the_figures_and_draws_the_sheet(tissue, tmp_path, capsys):
    names = evaluation(tmp_path, tissue)
    assert main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "4 images of split 'test'" in out
    assert "25.0   12.5 to  37.5" in out
    assert str(tmp_path / "overview.png") in out
    assert str(tmp_path / "test" / "overlays" / f"{names[1]}.png") in out, "of four, the third best"
    assert (tmp_path / "overview.png").is_file()


def test_show_without_true_masks_prints_the_figures_only(tissue, tmp_path, capsys):
    evaluation(tmp_path, tissue, truth=False)
    assert main(["show", str(tmp_path)]) == 0
    assert "overview" not in capsys.readouterr().out


def test_show_demands_a_gain_over_the_floor_where_asked_to(tissue, tmp_path, capsys):
    evaluation(tmp_path, tissue)  # means of F1+ and F1-: (0.5 + 0.75) / 2, of the floor (0.375 + 0) / 2
    assert main(["show", str(tmp_path), "--beat-floor", "0.4375"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["show", str(tmp_path), "--beat-floor", "0.44"]) == 1
    out, err = capsys.readouterr()
    assert "4 images of split 'test'" in out, "the figures are shown all the same"
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "43.8 points above the floor, not 44" in err
    assert str(tmp_path) in err


def test_show_cannot_demand_a_gain_where_there_are_no_true_masks(tissue, tmp_path, capsys):
    evaluation(tmp_path, tissue, truth=False)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    for key in ("f1_foreground", "f1_background"):
        report["floor"][key] = None
        report["measures"].pop(key)
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    assert main(["show", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path), "--beat-floor", "0.1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_show_without_an_evaluation_says_how_to_get_one(tmp_path, capsys):
    assert "glas_wsol evaluate" in fails(capsys, "show", str(tmp_path))


def test_export_says_where_the_copy_is(tmp_path, capsys):
    bundle = ROOT / "bundles" / "glas_minmax_entropy"
    assert main(["export", str(bundle), str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == f"exported {tmp_path / 'glas_minmax_entropy'}"
    assert (tmp_path / "glas_minmax_entropy" / "glas_wsol" / "__main__.py").is_file()
    assert "no such model" in fails(capsys, "export", str(bundle), str(tmp_path), "--model", str(tmp_path / "no.pt"))
    assert "no trained model" in fails(capsys, "export", str(tmp_path), str(tmp_path))


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["images", "d"], ["images", "d", "--split", "all"]])
def test_a_wrong_command_line_is_refused_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m glas_wsol" in capsys.readouterr().err


def test_help_lists_every_command_in_the_order_of_use(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    order = ["doctor", "data", "train", "evaluate", "predict", "report", "study", "table"]
    places = [said.index(f"\n  {name} ") for name in order]
    assert places == sorted(places)
    modules = {path.stem for path in (ROOT / "glas_wsol" / "commands").glob("[a-z]*.py")}
    assert {line.split()[0] for line in said.splitlines() if line[:2] == "  " and line[2] != "-"} >= modules


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "study"])
def test_help_of_a_command_suggests_what_a_shell_can_read(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "&" not in said
    assert f"usage: python -m glas_wsol {command} " in said


def test_a_reader_that_had_enough_is_no_failure(tissue):
    command = f"{shlex.quote(sys.executable)} -m glas_wsol data {shlex.quote(str(tissue))} --fold stratified-0"
    script = f"{{ sleep 2; {command}; echo $? >&2; }} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)
    assert done.stderr == "141\n"


def test_messages_are_in_the_words_of_the_command(tissue, tmp_path, capsys):
    assert "give a folder or a table of one of these kinds" in fails(capsys, "data", str(tmp_path))
    text = "choose another output_dir [/a/output_dir/dataset_dir.csv]: not my_output_dir, but 'dataset_dir'"
    set_typed({"output_dir": "--output"})
    assert as_typed(text) == (
        "choose another --output [/a/output_dir/dataset_dir.csv]: not my_output_dir, but --dataset_dir"
    )
    set_typed({})
    assert as_typed("another output_dir") == "another --output_dir"


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_it_runs_as_a_module_and_hands_its_status_on():
    command = [sys.executable, "-m", "glas_wsol", "data", "no/such/folder"]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)
    assert failed.returncode == 1
    assert [line.split(":")[0] for line in failed.stderr.splitlines()] == ["error"]
