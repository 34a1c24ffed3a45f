# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The scripts that measure what the documents say run, and count every image they are given."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from glas_wsol.__main__ import _parser
from glas_wsol.data import Datalist, Item
from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.failure_detection.alarm import shipped_alarm

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiles(tmp_path) -> Path:
    """Two tiles, one of them blank, and a mask that is none of them."""
    tile, ids = tissue_tile(np.random.default_rng(0), True, (80, 97), scale=0.25)
    Image.fromarray(tile).save(tmp_path / "a.bmp")
    Image.fromarray(ids).save(tmp_path / "a_anno.bmp")
    Image.fromarray(np.full((70, 64, 3), 240, np.uint8)).save(tmp_path / "b.png")
    return tmp_path


def test_the_judge_of_evidence_is_measured(tiles, capsys, monkeypatch):
    evidence = script("evidence")
    monkeypatch.setattr(evidence, "tissue", lambda count, scale: [])
    monkeypatch.setattr(evidence, "_PHOTOGRAPHS", ("chelsea",))
    monkeypatch.setattr(evidence, "_OTHERS", ("page",))
    evidence.main(["--tissue", f"mine={tiles}", "--count", "1"])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {(name, what, stain): rest for name, what, stain, *rest in lines[2:]}
    assert rows["mine", "as it is", "H&E"] == ["2", "1", "blank 1"]
    assert rows["mine", "Gaussian blur 8 px", "H&E"] == ["2", "0", "blank 1, blurred 1"]
    assert rows["mine", "half of it glass", "H&E"] == ["2", "1", "blank 1"]
    assert rows["synthetic tissue, scale 1", "as it is", "H&E"] == ["0", "0", "-"]
    assert rows["photographs", "as it is", "-"] == ["1", "1", "-"]
    assert rows["`page`", "as it is", "H&E"] == ["1", "0", "no H&E tissue 1"]
    assert rows["empty glass", "-", "H&E"] == ["1", "0", "blank 1"]
    assert rows["blue ink on glass", "-", "H&E"] == ["1", "0", "no H&E tissue 1"]


def test_birds_commands_are_valid_ones_of_the_program(tmp_path, monkeypatch):
    birds = script("birds")
    ran = []
    monkeypatch.setattr(
        birds.subprocess, "run", lambda command, check: ran.append(command) or SimpleNamespace(returncode=0)
    )
    assert birds.main(["DATA", str(tmp_path), "--seeds", "0", "1", "--methods"]) == 0
    assert [command[3] for command in ran] == ["train", "evaluate", "train", "evaluate", "study", "table"]
    parser = _parser()
    for command in ran:
        parser.parse_known_args(command[3:])
    assert all(Path(overlay).is_file() for overlay in birds.LIGHT)
    monkeypatch.setattr(birds.subprocess, "run", lambda command, check: SimpleNamespace(returncode=3))
    assert birds.main(["DATA", str(tmp_path)]) == 3


def test_memory_that_grows_is_told_by_the_status(monkeypatch, capsys):
    memory = script("infer_memory")
    grown = [90.0, 95, 98, 99, 100, 100, 100, 100, 100, 106]
    monkeypatch.setattr(memory, "measure", lambda count, size, trunk: grown[:count])
    assert memory.main(["--images", "10"]) == 1
    assert "From image 5 to image 10: +6.0 %" in capsys.readouterr().out
    assert memory.main(["--images", "9"]) == 0
    assert memory.main(["--images", "11"]) == 1, "an image has no result"


@pytest.fixture
def beside(monkeypatch):
    """The scripts that import others."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_the_shipped_alarm_is_that_of_the_committed_table(beside):
    alarm = beside("alarm")
    runs = list(alarm.outcomes(RESULTS / "alarm" / "table.md"))
    assert len(runs) > 40
    assert len({one.dataset for one in runs}) == 7
    examples = [one for one in runs if alarm.is_example(one, ["stride"])]
    again, shipped = alarm.calibrated(examples, "them"), shipped_alarm()
    assert shipped.calibrated_on.startswith(f"{len(examples)} runs")
    np.testing.assert_allclose([*again.weights, again.bias], [*shipped.weights, shipped.bias], rtol=0.01)


def test_a_run_near_the_limit_is_no_example(beside):
    alarm = beside("alarm")
    signals = alarm.MaskSignals(0.5, 0.1, 0.1, 0.2, 0.4, 0.5)
    runs = [alarm.Outcome(f"set/{f1}", signals, f1, 0.9, 0.0) for f1 in (0.59, 0.6, 0.64, 0.65, 0.69, 0.7)]
    assert [one.failed for one in runs] == [True, True, True, False, False, False]
    assert [one.between for one in runs] == [False, True, True, True, True, False]


def test_runs_are_read_again_from_a_table_of_them(beside, tmp_path, capsys, monkeypatch):
    alarm = beside("alarm")
    runs = [
        alarm.Outcome("one/a", alarm.MaskSignals(0.25, -0.125, 0.5, 0.375, 0.25, 0.5), 0.75, 0.5, 0.25),
        alarm.Outcome("two/b", alarm.MaskSignals(-1.5, 0.125, 0.25, -0.25, 0.125, 0.75), 0.875, 0.625, 0.0),
    ]
    table = tmp_path / "table.md"
    table.write_text(alarm.table_of(runs, [0.9, 0.1], shipped_alarm()), encoding="utf-8")
    assert list(alarm.outcomes(table)) == runs
    monkeypatch.setattr("sys.argv", ["alarm.py", "test", str(table), str(tmp_path / "typo")])
    with pytest.raises(SystemExit):
        alarm.main()
    assert "no run in" in capsys.readouterr().err


def test_parts_are_compared_with_what_they_are_parts_of(beside, tmp_path, capsys, monkeypatch):
    for part, row in (("both_stages", "recommended"), ("hard_targets", "recommended"), ("one_round", "all_ones")):
        for dataset in ("patient-0", "patient-1"):
            place = tmp_path / "runs" / dataset / "seed_0" / part
            shutil.copytree(RESULTS / "refined" / row / dataset / "seed_0", place)
    monkeypatch.setattr("sys.argv", ["ablations.py", "table", str(tmp_path), "--picture", str(tmp_path / "a.png")])
    assert beside("ablations").main() == 0
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {name: rest for name, *rest in lines if len(rest) == 7}
    assert rows["both stages"][0] == "2"
    assert rows["both stages"][2] == ""
    assert rows["hard targets"][2] == "+0.0 (0.0 to 0.0)"
    assert float(rows["one round"][4].split()[0]) == pytest.approx(-float(rows["both stages"][3]), abs=0.1)
    assert Image.open(tmp_path / "a.png").width > 500


def test_the_diagram_of_several_folds(beside, tmp_path, capsys, monkeypatch):
    picture = tmp_path / "reliability.png"
    monkeypatch.setattr(
        "sys.argv", ["calibration.py", str(RESULTS / "refined" / "recommended"), "--picture", str(picture)]
    )
    beside("calibration").main()
    assert len(capsys.readouterr().out.splitlines()) == 2 + 5
    assert Image.open(picture).width > 500


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not say how much memory is in use")
def test_memory_of_inference_is_flat(capsys):
    pytest.importorskip("highdicom")
    assert script("infer_memory").main(["--images", "12", "--size", "66", "97"]) == 0, capsys.readouterr().out


def test_laboratories_tables_seeds_of_one_recipe_together(beside, tmp_path, capsys):
    laboratories = beside("laboratories")
    lines = ["model,run,image,f1_foreground,f1_background,error"]
    table = ["image,label,mask,split"]
    for n in range(4):
        Image.new("RGB", (9, 7)).save(tmp_path / f"{n}.png")
        table.append(f"{n}.png,{'ab'[n % 2]},,test")
        for run, value in (("one", 0.5), ("two", 0.7)):
            lines.append(f"A,{run},{tmp_path / f'{n}.png'},{value},{value + 0.1},{int(n == 0)}")
    lines.append(f"B,half,{tmp_path / '0.png'},1,1,0")
    for name, written in (("values.csv", lines), ("set.csv", table)):
        (tmp_path / name).write_text("\n".join(written) + "\n")
    assert laboratories.main(["table", str(tmp_path / "values.csv"), "--table", f"C={tmp_path / 'set.csv'}"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    wanted = "| A | C (4) | 2 | 60.0 (50.0 to 70.0) | 70.0 (60.0 to 80.0) | 25.0 (0.0 to 75.0) | 55.0, 75.0 |"
    assert rows == [wanted], "a run that lacks images is left out"


def test_laboratories_measure_every_image_once(beside, tmp_path, capsys, monkeypatch):
    laboratories = beside("laboratories")
    truth = np.zeros((7, 9), np.uint8)
    truth[:3, 2:] = 1
    Image.fromarray(truth).save(tmp_path / "m.png")
    for name in "01":
        Image.new("RGB", (9, 7)).save(tmp_path / f"{name}.png")
    (tmp_path / "set.csv").write_text("image,label,mask,split\n0.png,a,m.png,test\n1.png,b,m.png,test\n")
    mask = truth.astype(bool).copy()
    mask[0] = True
    seen = []
    result = SimpleNamespace(mask=mask, label=1)
    monkeypatch.setattr("glas_wsol.load", lambda run, **settings: lambda image: seen.append(image) or result)
    call = ["measure", str(tmp_path / "v.csv"), "--model", "A=run", "--table", f"C={tmp_path / 'set.csv'}"]
    for _ in range(2):
        assert laboratories.main(call) == 0
    assert len(seen) == 2
    first = laboratories.read(tmp_path / "v.csv")[0]
    assert float(first["f1_foreground"]) == pytest.approx(2 * 21 / (21 + 23))
    assert float(first["f1_background"]) == pytest.approx(2 * 40 / (40 + 42))
    assert [row["error"] for row in laboratories.read(tmp_path / "v.csv")] == ["1", "0"]
    assert "50.0 (0.0 to 100.0)" in capsys.readouterr().out


def test_nuclei_are_measured_in_pixels_of_the_image(beside):
    y, x = np.mgrid[:200, :260]
    discs = np.zeros((200, 260), bool)
    for row in range(20, 200, 40):
        for column in range(15, 260, 40):
            discs |= (y - row) ** 2 + (x - column) ** 2 <= 8**2
    tissue = np.where(discs[..., None], (90, 60, 150), (240, 200, 225)).astype(np.uint8)
    pair = Image.fromarray(tissue), Image.new("L", (260, 200))
    nuclei = beside("nuclei").nuclei
    (_, _, axes, diameters), (_, _, small, _) = nuclei(*pair, 1.0), nuclei(*pair, 0.5)
    assert np.median(axes) == pytest.approx(16, abs=1)
    assert np.median(diameters) == pytest.approx(16, abs=1)
    assert np.median(small) == pytest.approx(8, abs=1)


def test_corrections_are_drawn_from_patients_not_evaluated(tmp_path, monkeypatch, capsys):
    corrections, ran = script("corrections"), []

    def run(*words: object) -> None:
        ran.append(words)
        if words[0] == "evaluate":
            Path(words[1]).mkdir(parents=True, exist_ok=True)
            measures = {key: {"value": 0.5} for key in corrections.MEASURES}
            (Path(words[1]) / "evaluation.json").write_text(json.dumps({"measures": measures}))

    items = []
    for n in range(8):  # the last two are of the patients of the first two
        (tmp_path / f"m{n}.png").touch()
        items.append(Item(tmp_path / f"t{n}.png", n % 2, f"t{n}", tmp_path / f"m{n}.png", f"p{n % 6}"))
    data = Datalist("mine", ("a", "b"), {"train": tuple(items[:6]), "valid": tuple(items[6:])}, str(tmp_path))
    monkeypatch.setattr(corrections, "load_datalist", lambda *_, **__: data)
    (tmp_path / "model.pt").touch()
    (tmp_path / "model.json").write_text('{"fold": "paper", "fold_seed": 0}')
    monkeypatch.setattr(corrections, "_run", run)
    output = ["--output", str(tmp_path / "out"), "-n", "1", "4", "--unet"]
    corrections.main([str(tmp_path), "--model", str(tmp_path / "model.pt"), *output])
    names = {path.name for path in (tmp_path / "out" / "n_4_seed_0" / "corrections").iterdir()}
    assert names == {"t2.png", "t3.png", "t4.png", "t5.png"}, "p0 and p1 are evaluated"
    assert [words[0] for words in ran] == ["learn", "evaluate", "train", "evaluate"] * 2
    table = (tmp_path / "out" / "n_1_seed_0" / "unet" / "datalist.csv").read_text().splitlines()
    assert [line.split(",")[3] for line in table] == ["split", "train", "valid", "valid"]
    assert "| U-Net alone, n = 4, seed 0 | 50.0 | 50.0 | 50.0 | 50.0 |" in capsys.readouterr().out


def test_transformers_are_measured_as_trunks(beside, tmp_path):
    pytest.importorskip("transformers")
    measured = beside("vision_transformers")
    parameters = measured.write(tmp_path, "tiny")
    assert parameters == sum(one.size for one in load_file(tmp_path / "model.safetensors").values())
    name, millions, *times, memory = measured._measured("tiny", f"hf:{tmp_path}", parameters, 0.1, 1, "cpu")
    assert (name, float(millions)) == ("tiny", round(parameters / 1e6, 1))
    assert len(times) == 3
    assert float(memory) > 100
