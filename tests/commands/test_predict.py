# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""`predict` is the bundle's own inference: the same bytes as the long command, and what it left in a few words."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glas_wsol.bundle.inference_run
import glas_wsol.cohorts.tile_batches
from glas_wsol.__main__ import main
from glas_wsol.bundle.bundle_runs import BundleRun
from glas_wsol.bundle.export import export_bundle
from glas_wsol.bundle.inference_run import plan_inference
from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.errors import ConfigError, OutputError, WeightsError
from glas_wsol.handlers import write_model
from glas_wsol.networks import build_network

ROOT = Path(__file__).parents[2]
GLAS, CUB = (ROOT / "bundles" / f"{name}_minmax_entropy" for name in ("glas", "cub5"))
CARD = {"trunk": "efficientnet_lite0", "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network = build_network({}, trunk=CARD["trunk"], weights="package", num_classes=2, seed=0)
    write_model(network, folder, {**CARD, "network": network.settings()})
    return folder / "model.pt"


@pytest.fixture
def tiles(tmp_path) -> Path:
    """Two tiles of the phantom, one of them a folder below, and a blank one."""
    (tmp_path / "tiles" / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "more/b.png")):
        image, _ = tissue_tile(np.random.default_rng(number), number == 1, (91, 143), scale=0.2)
        Image.fromarray(image).save(tmp_path / "tiles" / name)
    Image.new("RGB", (71, 64), (240, 239, 241)).save(tmp_path / "tiles" / "blank.png")
    return tmp_path / "tiles"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, tmp_path):
    """Puts back what a run changes in the process, and stands where no bundle is."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, before)


def everything(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_bytes_as_the_long_command(model, tiles, tmp_path, capsys):
    short, long = tmp_path / "short", tmp_path / "long"
    words = ["--model", str(model), "--output", str(short), "--formats", "png", "geojson", "--device", "cpu"]
    words += ["--flips", "horizontal", "--mpp", "0.5", "--recursive", "--", "--stain", "H&E"]
    assert main(["predict", str(tiles), *words]) == 0
    said = capsys.readouterr().out
    assert f"(1 show no evidence; whether any are unlike the training images is not known), in {short}" in said
    command = shlex.split(next(line for line in said.splitlines() if "monai.bundle" in line).removeprefix("this is: "))
    assert command[:4] == ["python", "-m", "monai.bundle", "run"]
    command[command.index(str(short))] = str(long)
    subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True)
    assert {row["name"] for row in rows(long / "predictions.csv")} == {"a", "more__b", "blank"}
    assert (long / "geojson" / "a.geojson").is_file()
    assert everything(short) == everything(long)
    (entry,) = [one for one in json.loads((short / "predictions.json").read_text()) if one["name"] == "a"]
    assert entry["views"]["flips"] == "horizontal"
    assert entry["mpp"] == [0.5, 0.5]


def test_predict_bad_image_is_counted_and_report_written(model, tiles, tmp_path, capsys):
    (tmp_path / "bad.png").write_text("no image")
    output = tmp_path / "out"
    words = ["--model", str(model), "--output", str(output), "--no-overlays", "--report", "--device", "cpu"]
    given = [str(tiles / "more"), str(tmp_path / "bad.png"), str(tiles / "a.png"), str(tiles / "a.png")]
    assert main(["predict", *given, *words]) == 3
    out, err = capsys.readouterr()
    assert "2 of 3 images are done (0 show no evidence; " in out
    assert f"open {output / 'report.html'}" in out
    assert err.splitlines()[-1].startswith("error: 1 of 3 images failed")
    assert b"bad.png" in (output / "report.html").read_bytes()
    assert [row["image"] for row in rows(output / "failed.csv")] == [str(tmp_path / "bad.png")]
    assert [row["name"] for row in rows(output / "predictions.csv")] == ["b", "a"], "each once, in the order given"
    assert not (output / "overlays").exists()


def test_only_bad_images_leave_no_report(model, tmp_path, capsys):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "bad.png").write_text("no image")
    words = ["--model", str(model), "--output", str(tmp_path / "out"), "--report", "--device", "cpu"]
    assert main(["predict", str(tmp_path / "tiles"), *words]) == 3
    assert "0 of 1 image is done" in capsys.readouterr().out
    assert not (tmp_path / "out" / "report.html").exists()


def test_files_passed_over_are_counted_by_kind(model, tiles, tmp_path, capsys):
    for name in ("slide.svs", "b.svs", "c.webp", "notes", ".hidden.svs"):
        (tiles / name).touch()
    output = tiles / "results"
    words = ["--model", str(model), "--output", str(output), "--no-overlays", "--device", "cpu", "--seed", "1"]
    assert main(["predict", str(tiles), *words]) == 0
    assert main(["predict", str(tiles), *words, "--recursive"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "passed over" in line]
    assert len(said) == 2
    for line in said:
        assert f"{tiles}: 4 other files passed over (" in line
        assert {".svs", ".webp"} <= set(re.findall(r"\.\w+", line.rpartition("(")[2]))


@pytest.mark.parametrize("value", ["null", "None"])
def test_a_stain_of_none_is_none(model, tiles, tmp_path, value):
    words = ["--model", str(model), "--output", str(tmp_path / "out"), "--device", "cpu", "--stain", value]
    colour = Image.open(tiles / "a.png").convert("RGB")
    Image.merge("RGB", colour.split()[::-1]).save(tiles / "a.png")  # tissue of no stain
    assert main(["predict", str(tiles / "a.png"), *words]) == 0
    (row,) = rows(tmp_path / "out" / "predictions.csv")
    assert row["class"] in CARD["classes"], "evidence, whatever its colour"


def test_what_is_typed_is_what_is_asked_for(model, tiles, tmp_path, monkeypatch):
    asked: list[BundleRun] = []

    def made(run: BundleRun) -> glas_wsol.bundle.inference_run.Results:
        asked.append(run)
        return glas_wsol.bundle.inference_run.Results(1, 1)

    monkeypatch.setattr(glas_wsol.cohorts.tile_batches, "infer", made)
    words = ["--flips", "--rotations", "--scales", "0.75", "1", "--mpp", "0.5", "0.25", "--anew", "--undecidable"]
    main(["predict", str(tiles), "--model", str(model), str(model.parent), "--output", "O", *words, "--", "--seed=3"])
    main(["predict", str(tiles), "--model", str(model), "--output", "O"])
    places = {"bundle_root": str(GLAS), "dataset_dir": str(tiles), "output_dir": "O"}
    expected = {"flips": True, "rotations": True, "scales": [0.75, 1.0], "mpp": [0.5, 0.25], "undecidable": True}
    more = {"checkpoint": [str(model), str(model)], "resume": False, "seed": 3}
    assert [dict(run.settings) for run in asked] == [places | expected | more, places | {"checkpoint": str(model)}]


def test_an_exported_bundle_is_run_by_the_package(model, tiles, tmp_path, monkeypatch):
    bundle = export_bundle(CUB, tmp_path / "dist", model)
    monkeypatch.chdir(tmp_path)
    run = plan_inference([tiles], [bundle], tmp_path / "out")
    assert run.files[0] == GLAS / "configs" / "inference.json", "that of the model's classes"
    assert run.settings["checkpoint"] == str(bundle / "models" / "model.pt")
    assert run.settings["bundle_root"] == str(GLAS)
    assert run.settings["recursive"], "the bundle says so"
    assert plan_inference([tiles], [model], "out", bundle).settings["recursive"]
    assert "recursive" not in plan_inference([tiles], [model], "out").settings
    assert plan_inference([tiles], [model], "out", "cub").files[0] == CUB / "configs" / "inference.json"


@pytest.mark.parametrize(("classes", "bundle"), [("cub", CUB), ("own", GLAS)])
def test_a_model_goes_to_the_bundle_with_its_classes(model, tiles, tmp_path, classes, bundle):
    copy = Path(shutil.copy(model, tmp_path))
    names = json.loads((CUB / "configs" / "inference.json").read_text())["card"]["classes"]
    card = {**json.loads(model.with_suffix(".json").read_text()), "classes": names if classes == "cub" else ["x", "y"]}
    copy.with_suffix(".json").write_text(json.dumps(card))
    assert plan_inference([tiles], [copy], "out").files[0].resolve() == bundle / "configs" / "inference.json"


def test_mistakes_are_told_before_anything_is_computed(model, tiles, tmp_path, capsys):
    with pytest.raises(WeightsError, match="no trained model"):
        plan_inference([tiles], [tmp_path / "none.pt"], "out")
    with pytest.raises(ConfigError, match="no bundle here"):
        plan_inference([tiles], [model], "out", tmp_path)
    with pytest.raises(ConfigError, match="no setting named 'flipz'"):
        plan_inference([tiles], [model], "out", settings={"flipz": True})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images_given.csv").write_text("patient,age\n1,50\n")
    with pytest.raises(OutputError, match="no list of an earlier run"):
        plan_inference([tiles, tiles / "a.png"], [model], tmp_path / "out")
    words = ["--model", str(model), "--output", str(tmp_path / "out")]
    assert main(["predict", str(tiles), *words, "--", "--checkpoint", "x"]) == 1
    assert "use --model" in capsys.readouterr().err
    assert main(["predict", str(tiles), "--model", str(model), "--output", str(tiles)]) == 1
    assert capsys.readouterr().err.endswith("choose another folder for the output\n")
    assert main(["predict", str(tiles), *words, "--formts", "png"]) == 1
    assert "did you mean formats" in capsys.readouterr().err
    assert main(["predict", str(tiles), *words, "--checkpoint", "x"]) == 1
    assert "use --model" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["predict", str(tiles), "--model", str(model)])
    assert left.value.code == 2
    assert "usage: python -m glas_wsol predict IMAGES..." in capsys.readouterr().err


@pytest.mark.parametrize("images", ["tiles", "two words", "$HOME/it's", "a'b", 'say "it\'s"', "back\\slash's"])
def test_the_long_command_can_be_typed(tmp_path, images):
    settings = {"formats": ["png", "geojson"], "dataset_dir": images}
    command = BundleRun([tmp_path / "inference.json"], settings).command
    assert """--formats "['png', 'geojson']" """ in command
    assert shlex.split(command)[-1] == images
