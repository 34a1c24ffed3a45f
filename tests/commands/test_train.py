# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""`train`, `evaluate` and `predict` one after the other, by the lines that each of them prints."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import warnings

import pytest

from glas_wsol.__main__ import main
from glas_wsol.data.phantom.tissue import write_tissue_phantom

SMALL = ["--method", "minmax_0", "--overlays", "configs/trunks/resnet18.json", "--weights", "none", "--crop_size", "64"]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Puts back what a run changes in the process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, before)


def words_after(said: str, start: str) -> list[str]:
    """What a printed line says to type after ``python -m``."""
    line = next(line for line in said.splitlines() if line.startswith(start))
    return shlex.split(line.partition("python -m ")[2])


@pytest.mark.slow
def test_each_command_leads_to_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tissue_phantom("my data", train=12, test=3, size=(64, 91), scale=0.15, workers=1)
    train = ["train", "my data", "--output", "my run", *SMALL, "--fold", "stratified-0", "--device", "cpu"]
    assert main([*train, "--epochs", "1", "--stain", "null"]) == 0
    said = capsys.readouterr().out
    assert "its masks: not judged: the trunk is not pretrained" in said
    card = json.loads((tmp_path / "my run" / "models" / "model.json").read_text())
    assert (card["trunk"], card["stain"], card["fold"]) == ("resnet18", None, "stratified-0")

    long = words_after(said, "this is: ")
    assert long[:2] == ["monai.bundle", "run"]
    subprocess.run([sys.executable, "-m", *long], check=True, capture_output=True)
    assert main([*train, "--epochs", "3", "--stain", "null"]) == 1
    assert "epochs was 1, is 3" in (error := capsys.readouterr().err.splitlines()[-1])
    assert error.endswith("give --epochs 1, or choose another --output")

    evaluate = words_after(said, "measure it: ")[1:]
    monkeypatch.chdir(tmp_path / "my data")  # the data are found from anywhere
    evaluate[evaluate.index("my run")] = str(tmp_path / "my run")
    assert main([*evaluate, "--split", "test"]) == 0
    show = words_after(capsys.readouterr().out, "see it: ")[1:]
    report = json.loads((tmp_path / "my run" / "evaluation.json").read_text())
    assert (report["n"], report["split"], report["fold"], report["trunk"]) == (3, "test", "stratified-0", "resnet18")
    assert main(show) == 0

    monkeypatch.chdir(tmp_path)
    predict = words_after(said, "use it on your own images")[1:]
    predict[predict.index("IMAGES")] = "my data"
    assert main([*predict, "--device", "cpu"]) == 0
    assert "15 of 15 images are done" in capsys.readouterr().out
    assert (tmp_path / "my run" / "predictions" / "report.html").is_file()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["train", "nowhere", "--output", "o"], ["no such data set", "nowhere"]),
        (["train", "None", "--output", "o"], ["no such data set", "None"]),
        (["train", "d", "--output", "o", "--dataset_dir", "e"], ["name the data first: train DATA"]),
        (["train", "d", "--output", "o", "--epochs"], ["--epochs has no value"]),
        (["train", "d", "--output", "o", "--epoch", "3"], ["no setting named 'epoch'", "did you mean epochs"]),
        (["evaluate", "nowhere"], ["no trained model", "python -m glas_wsol train DATA --output OUT"]),
    ],
)
def test_a_mistake_is_one_line_in_the_words_typed(typed, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    assert main(typed) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert all(word in error for word in words), error
