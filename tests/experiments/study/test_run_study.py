# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from glas_wsol.errors import ConfigError, GlasWsolError, OutputError
from glas_wsol.experiments.study import plan
from glas_wsol.experiments.study.manifest import State, code_digest, inspect
from glas_wsol.experiments.study.run_study import _seconds_left, run_study
from glas_wsol.utils import locks as lock
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.locks import LOCK, lock_with_children
from tests.experiments.study.conftest import pretend

BOTH = ["cam_max/stratified-0_seed_0", "cam_max/stratified-0_seed_1"]
HOLD = """
import runpy, sys, time
from pathlib import Path
with runpy.run_path(sys.argv[2])["lock_with_children"](Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def manifest_of(request, name: str) -> dict:
    return json.loads((Path(request.output) / name / "run.json").read_text())


def test_what_is_finished_is_not_run_again(request_of, capsys):
    request = request_of()
    first = pretend(request)
    assert first.trained == first.evaluated == BOTH
    said = capsys.readouterr().out
    assert "0 of 2 runs are finished" in said
    lines = [line for line in said.splitlines() if line.startswith("cam_max")]
    assert [line.split()[:4] for line in lines] == [["cam_max", "stratified-0", "seed", s] for s in "01"]
    assert lines[0].split()[-6:] == ["error", "25.0", "F1+", "50.0", "F1-", "-"]
    assert pretend(request).commands == []
    assert "2 of 2 runs are finished, in" in capsys.readouterr().out
    more = pretend(request_of(seeds=[0, 1, 2]))
    assert more.trained == ["cam_max/stratified-0_seed_2"]
    assert "2 of 3 runs are finished" in capsys.readouterr().out


def test_what_a_run_says_of_itself(request_of):
    request = request_of(seeds=[4])
    pretend(request)
    (run,) = plan(request)
    made = manifest_of(request, run.name)
    assert (made["method"], made["fold"], made["seed"], made["finished"]) == ("cam_max", "stratified-0", 4, True)
    assert made["config"]["training"]["epochs"] == 12
    assert made["config"] == {"training": dict(run.training), "evaluation": dict(run.evaluation)}
    assert made["commands"] == [list(command) for command in run.commands]
    files = ("evaluation.json", "evaluation.npz")
    assert made["evaluation_sha256"] == {name: sha256_of(run.folder / name) for name in files}
    assert made["code_sha256"] == code_digest()
    log = (run.folder / "log.txt").read_text().splitlines()
    assert [line for line in log if line.startswith("$ ")] == [f"$ {shlex.join(c)}" for c in run.commands]


@pytest.mark.parametrize("harm", ["delete", "change"])
@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.npz"])
def test_a_damaged_evaluation_is_made_again(request_of, harm, name):
    request = request_of()
    pretend(request)
    file = Path(request.output) / BOTH[1] / name
    file.unlink() if harm == "delete" else file.write_bytes(file.read_bytes() + b" ")
    assert pretend(request).evaluated == [BOTH[1]]
    assert pretend(request).commands == []


def test_a_failed_run_is_told_and_goes_on_next_time(request_of, capsys):
    request = request_of()
    with pytest.raises(GlasWsolError, match=rf"1 run of 2 failed: {BOTH[0]} .*run the same command again"):
        pretend(request, failing=[BOTH[0]])
    said = capsys.readouterr().out
    log = Path(request.output) / BOTH[0] / "log.txt"
    assert f"failed: the disk is full [model.pt]: make room [{log}]" in said
    assert "seed 1" in said, "the others go on"
    kept = log.parent / "models"
    kept.mkdir()
    (kept / "last.pt").write_text("half a training")
    assert manifest_of(request, BOTH[0])["finished"] is False
    assert pretend(request).trained == [BOTH[0]]
    assert "1 of 2 runs are finished, 1 to go on" in capsys.readouterr().out
    assert (kept / "last.pt").read_text() == "half a training"
    assert log.read_text().count("\n$ ") == 2, "the log is added to"


def test_a_run_fails_with_the_one_whose_model_it_needs(request_of, capsys):
    request = request_of(methods=["grad_cam", "cam_max"], seeds=[0])
    with pytest.raises(GlasWsolError, match="2 runs of 3 failed: cam_avg/stratified-0_seed_0, grad_cam/strat"):
        pretend(request, failing=["cam_avg/stratified-0_seed_0"])
    said = capsys.readouterr().out
    assert "cam_avg is run too: grad_cam explains its network" in said
    assert "failed: it needs the model of cam_avg/stratified-0_seed_0" in said
    made = pretend(request)
    assert made.trained == ["cam_avg/stratified-0_seed_0"]
    assert made.evaluated == ["cam_avg/stratified-0_seed_0", "grad_cam/stratified-0_seed_0"]


def test_run_study_with_other_settings_is_refused_before_runs(request_of, capsys):
    pretend(request_of(overrides={"epochs": "3"}))
    changed = request_of(methods=["cam_lse", "cam_max"], overrides={"epochs": "4", "batch_size": "2"})
    before = sorted(Path(changed.output).rglob("*"))
    with pytest.raises(ConfigError, match=r"2 runs were made with other settings: batch_size, epochs .*--replace"):
        pretend(changed)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"batch_size was 8, is 2 ({BOTH[0]} and 1 more)",
        f"epochs was 3, is 4 ({BOTH[0]} and 1 more)",
    ]
    assert sorted(Path(changed.output).rglob("*")) == before


def test_an_unfinished_run_with_other_settings_is_refused_too(request_of):
    with pytest.raises(GlasWsolError, match="failed"):
        pretend(request_of(seeds=[0]), failing=[BOTH[0]])
    (Path(request_of().output) / BOTH[0] / "models").mkdir()  # it had whole epochs behind it
    with pytest.raises(ConfigError, match="1 run was made with other settings: epochs"):
        pretend(request_of(seeds=[0], overrides={"epochs": "4"}))


def test_a_run_that_failed_before_its_first_epoch_may_be_mended(request_of):
    with pytest.raises(GlasWsolError, match="failed"):
        pretend(request_of(seeds=[0]), failing=[BOTH[0]])
    assert pretend(request_of(seeds=[0], overrides={"epochs": "4"})).trained == [BOTH[0]]


def test_replaced_runs_are_made_anew_and_others_left(request_of, capsys):
    pretend(request_of(seeds=[0], overrides={"epochs": "3"}))
    request = request_of(overrides={"epochs": "4"})
    old = Path(request.output) / BOTH[0] / "models" / "last.pt"
    old.write_text("of 3 epochs")
    made = pretend(request, replace=True)
    assert made.trained == made.evaluated == BOTH
    assert not old.exists()
    assert "0 of 2 runs are finished, 1 anew" in capsys.readouterr().out
    assert pretend(request, replace=True).commands == []


def test_where_only_the_evaluation_differs_the_model_is_kept(request_of, capsys):
    pretend(request_of())
    test = request_of(split="test")
    model = Path(test.output) / BOTH[0] / "models" / "last.pt"
    model.write_text("trained")
    with pytest.raises(ConfigError, match="2 runs were made with other settings: images evaluated, split "):
        pretend(test)
    assert "split was 'valid', is 'test'" in capsys.readouterr().err
    assert pretend(test, replace=True).evaluated == BOTH
    assert model.read_text() == "trained"
    assert "2 to evaluate again" in capsys.readouterr().out
    assert pretend(test).commands == []


def test_a_folder_of_something_else_is_never_touched(request_of):
    request = request_of()
    folder = Path(request.output) / BOTH[1]
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"files that no study has written .*seed_1"):
        pretend(request, replace=True)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_damaged_manifest(request_of):
    request = request_of(seeds=[0])
    pretend(request)
    (run,) = plan(request)
    manifest = run.folder / "run.json"
    whole = manifest.read_text()
    manifest.write_text(whole[: len(whole) // 2])
    with pytest.raises(OutputError, match=r"manifest is damaged .*run\.json"):
        pretend(request)
    manifest.write_text(whole.replace('"epochs": 12', '"epochs": 11'))
    assert inspect(run).changed == ("epochs was 11, is 12",)
    manifest.write_text(whole.replace('"config_sha256": "', '"config_sha256": "0'))
    assert inspect(run).state is State.OTHER_EVALUATION
    assert inspect(run).changed == ("its manifest was changed",)


def test_runs_of_other_code_are_named(request_of, capsys, monkeypatch):
    request = request_of()
    pretend(request)
    monkeypatch.setattr(study_module(), "code_digest", lambda: "another")
    pretend(request)
    assert "2 finished runs were made by another state of this package's code" in capsys.readouterr().out


def study_module():
    return sys.modules[run_study.__module__]


def test_a_dry_run_says_all_and_writes_nothing(request_of, capsys):
    pretend(request_of(seeds=[0]))
    request = request_of()
    before = {path: path.stat().st_mtime_ns for path in Path(request.output).rglob("*")}
    capsys.readouterr()
    assert pretend(request, dry_run=True).commands == []
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [f"# {BOTH[0]}: finished", f"# {BOTH[1]}: to run"]
    commands = [tuple(shlex.split(line)) for line in lines if not line.startswith("#")]
    assert commands == [command for run in plan(request) for command in run.commands]
    assert {path: path.stat().st_mtime_ns for path in Path(request.output).rglob("*")} == before
    elsewhere = request_of(output=request.output.with_name("elsewhere"))
    run_study(elsewhere, dry_run=True)
    assert not Path(elsewhere.output).exists()


def test_one_study_at_a_time_and_no_lock_is_left_behind(request_of):
    request = request_of(seeds=[0])
    folder = Path(request.output)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), lock.__file__], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"at work here \(process {holder.pid} on "):
            pretend(request)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (folder / LOCK).is_file()
    assert pretend(request).trained == [BOTH[0]]


def test_a_child_that_is_left_behind_still_holds_the_folder(tmp_path):
    with lock_with_children(tmp_path) as held:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])
    try:
        with pytest.raises(OutputError, match="left behind"), lock_with_children(tmp_path):
            pass
    finally:
        child.communicate(b"\n")
    with lock_with_children(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(request_of, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        pretend(request_of(output=tmp_path / "file"))
    with pytest.raises(ConfigError, match="0 jobs"):
        pretend(request_of(), jobs=0)


def test_the_time_left_knows_that_rows_differ(request_of):
    runs = {run.name: run for run in plan(request_of(methods=["cam_max", "cam_lse", "minmax_4"]))}
    quick, other = runs[BOTH[0]], runs["cam_lse/stratified-0_seed_1"]
    unknown = runs["minmax_4/stratified-0_seed_0"]
    spent = {"cam_max": [10.0, 20.0], "cam_lse": [45.0]}
    # waiting: 45 s and (15 + 45) / 2 s; running: 15 - 5 s, and one that is late
    assert _seconds_left(spent, [(quick, 5.0), (quick, 99.0)], [other, unknown], 1) == 45 + 30 + 10
    assert _seconds_left(spent, [(quick, 5.0), (quick, 99.0)], [other, unknown], 2) == (45 + 30 + 10) / 2
    assert _seconds_left(spent, [(quick, 14.0), (other, 5.0)], [], 2) == 40, "no shorter than the longest"
    assert _seconds_left({}, [(quick, 5.0)], [other], 1) is None
