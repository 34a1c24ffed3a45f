# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import pytest

import glas_wsol.experiments.study
from glas_wsol.commands.study import register
from glas_wsol.errors import ConfigError
from glas_wsol.experiments.study import Request
from glas_wsol.utils.shipped_bundles import bundle_folder


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m glas_wsol")
    register(parser.add_subparsers(required=True))
    given = parser.parse_args(["study", *arguments])
    given.command(given)


@pytest.fixture
def asked(monkeypatch):
    """What the command asks for, instead of doing it."""
    calls = []
    monkeypatch.setattr(
        glas_wsol.experiments.study, "run_study", lambda request, **options: calls.append((request, options))
    )
    return calls


def test_what_is_typed_is_what_is_asked_for(asked):
    run("a folder", "--bundle", "cub", "--overlays", "x.json", "y.json", "--methods", "cam_avg", "m.json", "--seeds",
        "3", "1", "--folds", "patient", "paper", "--split", "test", "--dataset_dir", "GLAS", "--jobs", "2", "--replace",
        "--", "--epochs", "2", "--optimizer#lr=-0.5", "--methods", "5")  # fmt: skip
    ((request, options),) = asked
    assert request == Request(
        output=Path("a folder"), bundle=bundle_folder("cub"), overlays=["x.json", "y.json"],
        methods=["cam_avg", "m.json"], seeds=[3, 1], folds=["patient", "paper"], split="test", dataset_dir="GLAS",
        overrides={"epochs": "2", "optimizer#lr": "-0.5", "methods": "5"},
    )  # fmt: skip
    assert options == {"jobs": 2, "replace": True, "dry_run": False}


def test_the_least_that_can_be_typed(asked):
    run("--dry-run", "OUT")
    ((request, options),) = asked
    assert request == Request(output=Path("OUT"), bundle=bundle_folder("glas"), overlays=[],
                              methods=["all"], seeds=[0], folds=[], overrides={})  # fmt: skip
    assert options == {"jobs": 1, "replace": False, "dry_run": True}


@pytest.mark.parametrize("arguments", [[], ["OUT", "--seeds", "-1"], ["OUT", "--split", "x"]])
def test_what_cannot_be_typed(arguments, asked, capsys):
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2
    assert "usage: python -m glas_wsol study OUT" in capsys.readouterr().err
    assert not asked


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as left:
        run("--help")
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in ("overlays", "methods", "seeds", "folds", "jobs", "replace", "dry-run"))


def test_a_setting_of_the_study_s_own_is_refused(asked):
    with pytest.raises(ConfigError, match="use --seeds"):
        run("OUT", "--", "--seed", "3")
    assert not asked


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_says_how_to_go_on(request, monkeypatch, capsys, by):
    def interrupted(*_, **__) -> None:
        os.kill(os.getpid(), by)
        pytest.fail("it goes on after the signal")

    monkeypatch.setattr(glas_wsol.experiments.study, "run_study", interrupted)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(SystemExit) as left:
        run("OUT")
    assert left.value.code == 130
    assert "run the same command again" in capsys.readouterr().err
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(
    "typed", [["--rows", "all"], ["--rows", "cam_avg", "unet"], ["--rows=all"], ["--", "--rows", "all"]]
)
def test_study_rows_is_refused_naming_methods(typed, asked):
    with pytest.raises(ConfigError, match=r"--rows is not given here.*use --methods"):
        run("OUT", *typed)
    assert not asked
