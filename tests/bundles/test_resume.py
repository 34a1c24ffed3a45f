# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The same seed gives the same bits: twice, with workers, and when interrupted, killed and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.errors import ConfigError, GlasWsolError, OutputError
from tests.bundles.conftest import BUNDLES, DATA, ROOT, SMALL, config, own_error, paper, workflow
from tests.conftest import same

GLAS = BUNDLES[0]
# `python -m monai.bundle` with the narrow trunk, slow enough to be killed on its way.
LAUNCH = """
import runpy, time
import torch
step = torch.optim.SGD.step
torch.optim.SGD.step = lambda *a, **k: (time.sleep(0.3), step(*a, **k))[1]
from tests.bundles.conftest import NARROW, SMALL, TRUNKS
TRUNKS[SMALL["trunk"]] = NARROW
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def settings(phantom: Path, output: Path, **changes):
    return {
        **SMALL,
        **DATA[GLAS],
        "epochs": 3,
        "dropout": 0.5,
        "dataset_dir": str(phantom),
        "output_dir": str(output),
        **changes,
    }


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_tissue_phantom(tmp_path_factory.mktemp("data") / "phantom", **DATA[GLAS]["phantom"])


@pytest.fixture(scope="module")
def undisturbed(phantom, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    workflow("train", paper(GLAS), **settings(phantom, output)).run()
    return output


def files(output: Path) -> dict[str, dict]:
    return {name: torch.load(output / "models" / name, weights_only=True) for name in ("model.pt", "last.pt")}


def test_training_with_any_number_of_workers_gives_the_same_bits(phantom, undisturbed, tmp_path):
    workflow("train", paper(GLAS), **settings(phantom, tmp_path, num_workers=2)).run()
    assert same(files(undisturbed), files(tmp_path))


def test_another_seed_gives_other_bits(phantom, undisturbed, tmp_path):
    workflow("train", paper(GLAS), **settings(phantom, tmp_path, seed=1, epochs=1)).run()
    assert not same(files(undisturbed)["model.pt"], files(tmp_path)["model.pt"])


@pytest.mark.parametrize("schedule", ["per epoch", "one cycle"])
def test_resume_after_an_epoch_gives_the_same_bits(phantom, tmp_path, schedule):
    changes = {}
    if schedule == "one cycle":
        changes = {
            "optimizer": {"_target_": "torch.optim.AdamW", "params": "$@network.parameter_groups(2e-4, 1e-3)"},
            "lr_scheduler": {
                "_target_": "torch.optim.lr_scheduler.OneCycleLR",
                "optimizer": "@optimizer",
                "max_lr": [2e-4, 1e-3],
                "total_steps": "$@epochs * len(@train#dataloader)",
            },
            "lr_per_epoch": False,
            "patience": 5,
        }
    base = settings(phantom, tmp_path / "whole", **changes)
    base.pop("optimizer#lr")
    workflow("train", paper(GLAS), **base).run()
    base["output_dir"] = str(tmp_path / "parts")
    first = workflow("train", paper(GLAS), **base)
    trainer = first.parser.get_parsed_content("train#trainer")

    def interrupt(engine) -> None:
        if engine.state.epoch == 2:
            raise KeyboardInterrupt

    trainer.add_event_handler(Events.ITERATION_STARTED, interrupt)  # inside the second epoch
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert files(tmp_path / "parts")["last.pt"]["trainer"]["epoch"] == 1
    workflow("train", paper(GLAS), **base).run()
    assert same(files(tmp_path / "whole"), files(tmp_path / "parts"))


def test_a_finished_run_is_left_alone(phantom, undisturbed):
    before = {p: p.stat().st_mtime_ns for p in (undisturbed / "models").iterdir() if p.suffix != ".lock"}
    workflow("train", paper(GLAS), **settings(phantom, undisturbed)).run()
    assert {p: p.stat().st_mtime_ns for p in (undisturbed / "models").iterdir() if p.suffix != ".lock"} == before


def test_resume_with_other_settings_or_forbidden_is_refused(phantom, undisturbed, tmp_path):
    def cause(**changes) -> GlasWsolError:
        with pytest.raises(RuntimeError) as caught:
            workflow("train", paper(GLAS), **settings(phantom, undisturbed, **changes)).run()
        return own_error(caught.value)

    before = {p.name: p.read_bytes() for p in (undisturbed / "models").iterdir() if p.suffix != ".lock"}
    more = write_tissue_phantom(tmp_path / "more", **{**DATA[GLAS]["phantom"], "train": 16})
    ties = {"loss": "last", "last": "loss"}[json.loads(Path(config(GLAS, "train")).read_text())["selection_ties"]]
    for changes, named in (
        ({"passes": 3}, r"passes was 2, is 3"),
        ({"selection_ties": ties}, rf"selection_ties was '\w+', is '{ties}'"),
        ({"optimizer#lr": 0.02}, r"optimizer#\w*lr of group 0 was 0\.01, is 0\.02"),
        ({"dataset_dir": str(more)}, r"training_images was '\w{64}', is '\w{64}'.*validation_images was"),
        ({"pixel_mean": [0.4, 0.5, 0.5]}, r"pixel_mean was \[0.5, 0.5, 0.5\], is \[0.4"),
    ):
        refused = cause(**changes)
        assert isinstance(refused, ConfigError), changes
        assert re.search(named, str(refused)), str(refused)
    assert isinstance(cause(resume=False), OutputError)
    after = {p.name: p.read_bytes() for p in (undisturbed / "models").iterdir() if p.suffix != ".lock"}
    assert after == before


def test_the_same_images_in_a_moved_folder_are_the_same_data(phantom, undisturbed, tmp_path):
    moved = shutil.copytree(phantom, tmp_path / "moved")
    before = {p: p.stat().st_mtime_ns for p in (undisturbed / "models").iterdir() if p.suffix != ".lock"}
    workflow("train", paper(GLAS), **settings(moved, undisturbed)).run()
    assert {p: p.stat().st_mtime_ns for p in (undisturbed / "models").iterdir() if p.suffix != ".lock"} == before


@pytest.mark.slow
def test_resume_after_kill_at_any_moment_gives_the_same_bits(phantom, undisturbed, tmp_path):
    command = [sys.executable, "-c", LAUNCH, "run", "--config_file", str(paper(GLAS))]
    for name, value in settings(phantom, tmp_path).items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    last, deadline = tmp_path / "models" / "last.pt", time.monotonic() + 900
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "still running"
    assert last.exists(), "one epoch must have ended"
    workflow("train", paper(GLAS), **settings(phantom, tmp_path)).run()
    assert same(files(undisturbed), files(tmp_path))
    assert not list(tmp_path.rglob("*.part")), "nothing half-written stays"
