# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A real study, as small as it can be: run, killed in the middle, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.experiments.study.conftest import OVERLAYS

PHANTOM = "{'seed': 0, 'train': 12, 'test': 0, 'size': [64, 72], 'scale': 0.15}"
SETTINGS = ["--weights", "none", "--batch_size", "5", "--crop_size", "64", "--device", "cpu", "--phantom", PHANTOM]


def start(folder: Path, cwd: Path, epochs: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "glas_wsol", "study", str(folder), "--overlays", *OVERLAYS]
    command += ["--folds", "stratified-0", *arguments, "--", *SETTINGS, "--epochs", str(epochs)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=cwd, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def done(folder: Path, cwd: Path, epochs: int, *arguments: str) -> str:
    process = start(folder, cwd, epochs, *arguments)
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, out + err[-3000:]
    return out


@dataclass(frozen=True)
class Study:
    """A study that nothing disturbed.

    Attributes:
        place: where its command was run.
        folder: of the study.
        printed: by the command.
    """

    place: Path
    folder: Path
    printed: str


EPOCHS = 5
METHODS = ("--methods", "grad_cam")  # cam_avg is trained for it


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Study:
    place = tmp_path_factory.mktemp("whole")
    return Study(place, place / "my study", done(place / "my study", place, EPOCHS, *METHODS))


@pytest.mark.slow
def test_a_study_of_a_trained_and_an_explaining_row(whole):
    assert "cam_avg is run too" in whole.printed
    runs = {path.parents[1].name: path.parent for path in whole.folder.glob("*/*/evaluation.json")}
    assert set(runs) == {"cam_avg", "grad_cam"}
    reports = {row: json.loads((run / "evaluation.json").read_text()) for row, run in runs.items()}
    assert {row: report["method"] for row, report in reports.items()} == {row: row for row in runs}
    assert reports["grad_cam"]["checkpoint_sha256"] == reports["cam_avg"]["checkpoint_sha256"]
    assert not (runs["grad_cam"] / "models").exists()
    assert len(np.load(runs["cam_avg"] / "evaluation.npz")["names"]) == reports["cam_avg"]["n"]
    assert sorted(path.name for path in whole.place.iterdir()) == ["my study"], "nothing is written elsewhere"

    logs = {row: (run / "log.txt").read_bytes() for row, run in runs.items()}
    assert "2 of 2 runs are finished" in done(whole.folder, whole.place, EPOCHS, *METHODS)
    assert {row: (run / "log.txt").read_bytes() for row, run in runs.items()} == logs


@pytest.mark.slow
def test_a_killed_study_ends_as_an_undisturbed_one(whole, tmp_path):
    arguments = (EPOCHS, "--methods", "cam_avg")
    disturbed = start(tmp_path / "disturbed", tmp_path, *arguments)
    run = tmp_path / "disturbed" / "cam_avg" / "stratified-0_seed_0"
    deadline = time.monotonic() + 900
    while not (run / "models" / "last.pt").is_file():  # an epoch is done
        assert disturbed.poll() is None, disturbed.stderr.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    disturbed.send_signal(signal.SIGTERM)
    _, err = disturbed.communicate(timeout=300)
    assert disturbed.returncode == 130, err[-3000:]
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert json.loads((run / "run.json").read_text())["finished"] is False
    assert not (run / "evaluation.json").exists()

    assert "0 of 1 run is finished, 1 to go on" in done(tmp_path / "disturbed", tmp_path, *arguments)
    assert "resuming" in (run / "log.txt").read_text()
    rows = np.load(run / "evaluation.npz")
    expected = np.load(whole.folder / "cam_avg" / run.name / "evaluation.npz")
    assert set(rows.files) == set(expected.files) > {"names", "f1_foreground"}
    for name in expected.files:
        np.testing.assert_array_equal(rows[name], expected[name])
