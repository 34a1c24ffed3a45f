# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a training leaves at its end: how it was started, and the next commands with their real paths."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from glas_wsol.bundle.next_steps import conclude, read_start


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my run" / "models"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"alarm": {"score": 0.1, "verdict": "no alarm"}}))
    (folder / "model.pt").touch()
    return folder / "model.pt"


def test_conclude_keeps_the_start_and_prints_what_is_next(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "a,b").mkdir()
    (tmp_path / "c.json").write_text("{}")
    typed = [
        "--config_file",
        "c.json",
        "--dataset_dir",
        "'a,b'",
        "--epochs=2",
        "--scales",
        "[1.0, 2.0]",
        "--run_id",
        "x",
    ]
    monkeypatch.setattr("sys.argv", ["monai/bundle/__main__.py", "run", *typed, "--run_id", "x"])
    conclude(str(model), "my run", "a,b")
    assert read_start(Path("my run")) == {
        "config_files": [str(tmp_path / "c.json")],
        "settings": {"dataset_dir": str(tmp_path / "a,b"), "epochs": 2, "scales": [1.0, 2.0]},
    }
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"model: {model}", "its masks: no alarm"]
    evaluate, predict = (shlex.split(line.partition("python -m ")[2]) for line in said[2:])
    assert evaluate == ["glas_wsol", "evaluate", "my run"]
    assert predict[:5] == ["glas_wsol", "predict", "IMAGES", "--model", str(model)]


def test_conclude_of_a_run_from_python_names_the_data(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["script.py"])
    conclude(str(model), "my run", "my data")
    assert "evaluate 'my run' --data 'my data'" in capsys.readouterr().out
    assert read_start(Path("my run")) == {}
