# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``table`` through a parser: what it prints and writes, and what it refuses."""

from __future__ import annotations

import argparse
import io
import sys

import pytest

from glas_wsol.commands import table
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.experiments.tables import comparison
from tests.experiments.tables.conftest import write_run, write_study


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(comparison.Comparison.__init__, "__defaults__", (0.95, 100, 0))


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    table.register(parser.add_subparsers())
    arguments = parser.parse_args(["table", *map(str, words)])
    arguments.command(arguments)


def test_prints_what_it_writes(tmp_path, capsys):
    study = write_study(tmp_path / "my runs", n=6, seeds=(0,))
    run(study, "--output", tmp_path / "out", "--oracle", "--level", "0.9")
    printed, bars = capsys.readouterr()
    assert "reading runs: " in bars
    assert "drawing images again: " in bars
    command = f"python -m glas_wsol table '{study}' --output {tmp_path / 'out'} --oracle --level 0.9"
    assert printed.startswith(f"`{command}`\n")
    assert "90 % interval" in printed
    assert printed.startswith((tmp_path / "out" / "tables.md").read_text(encoding="utf-8"))
    assert "oracle.csv" in printed.splitlines()[-1]


def test_without_output_it_writes_nothing(tmp_path, capsys):
    folders = [write_run(tmp_path / name, {"f1_foreground": [0.5]}, method=name) for name in ("cam_avg", "cam_max")]
    before = sorted(tmp_path.rglob("*"))
    run(*folders)
    printed = capsys.readouterr().out
    assert printed.startswith(f"`python -m glas_wsol table {folders[0]} {folders[1]}`\n")
    assert "Oracle" not in printed
    assert "| CAM-Max " in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_a_terminal_without_daggers_is_no_failure(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", {"f1_foreground": [0.5]}, method="unet")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    run(folder)
    sys.stdout.flush()
    assert b"| U-Net ? " in shown.getvalue()


def test_nothing_is_printed_of_what_is_refused(tmp_path, capsys):
    folder = write_run(tmp_path / "run", {"f1_foreground": [0.5]})
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no coverage"):
        run(folder, "--level", "95")
    with pytest.raises(OutputError, match="no such folder"):
        run(folder, tmp_path / "nowhere")
    with pytest.raises(OutputError, match="cannot be written"):
        run(folder, "--output", tmp_path / "file")
    assert capsys.readouterr().out == ""


def test_it_needs_a_run(capsys):
    with pytest.raises(SystemExit):
        run()
    assert "RUN" in capsys.readouterr().err
