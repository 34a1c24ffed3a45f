# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""`python -m monai.bundle run` as users type it: from anywhere, from an exported copy, and with mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glas_wsol.bundle.export import export_bundle
from glas_wsol.handlers import write_model
from glas_wsol.networks import build_network
from tests.bundles.conftest import BUNDLES, ROOT, Run, paper
from tests.conftest import OFFLINE
from tests.reliability.conftest import one_line
from tests.reliability.conftest import run as run_here

# Undoes an editable installation, so that only the copy in the bundle can be imported.
HIDE_INSTALLED = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f)]
sys.path[:] = [p for p in sys.path if p not in {roots!r}]
"""


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def one_tile(folder: Path) -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(folder / "tile.png")
    return str(folder / "tile.png")


def known_model(trained: Run, folder: Path) -> Path:
    """The run's model with a trunk that every process knows, nothing of it trained."""
    card = json.loads(trained.model.with_suffix(".json").read_text())
    network = build_network({}, trunk="resnet18", weights="none", num_classes=len(card["classes"]), seed=0)
    write_model(network, folder, {**card, "trunk": "resnet18", "familiarity": None})
    return folder / "model.pt"


@pytest.mark.slow
def test_an_exported_bundle_runs_without_the_package_installed(trained, tmp_path):
    place = {BUNDLES[0]: "bundle root", BUNDLES[1]: "elsewhere"}[trained.bundle]  # an interpreter takes its time
    copy = export_bundle(
        ROOT / "bundles" / trained.bundle, tmp_path / "a folder", known_model(trained, tmp_path / "model")
    )
    with (copy / "glas_wsol" / "__init__.py").open("a") as file:
        file.write("\nprint('the copy in the bundle')\n")
    (tmp_path / "site").mkdir()
    guard = (OFFLINE / "sitecustomize.py").read_text()
    (tmp_path / "site" / "sitecustomize.py").write_text(guard + HIDE_INSTALLED.format(roots=["", str(ROOT)]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ["--dataset_dir", one_tile(tmp_path), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    site = str(tmp_path / "site")
    if place == "bundle root":
        done = run("run", "--config_file", "configs/inference.json", *arguments, cwd=copy, PYTHONPATH=site)
    else:
        root = ["--bundle_root", str(copy)]
        file = str(copy / "configs" / "inference.json")
        done = run("run", "--config_file", file, *root, *arguments, cwd=elsewhere, PYTHONPATH=site)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the copy in the bundle" in done.stdout
    assert (tmp_path / "out" / "masks" / "tile.png").is_file()
    assert not list(elsewhere.iterdir()), "nothing is written into the working directory"


TRAIN = paper(BUNDLES[0])
SMALL_RUN = {"epochs": 1, "weights": "none", "crop_size": 64, "device": "cpu", "trunk": "resnet18"}
PHANTOM = {
    "fold": "stratified-0",
    "phantom#train": 10,
    "phantom#test": 0,
    "phantom#size": [64, 96],
    "phantom#scale": 0.15,
}


def typed(settings: dict[str, Any]) -> list[str]:
    """What follows `python -m monai.bundle`."""
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["run", "--config_file", str(TRAIN), *options]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"epochz": 9}, ["no setting named 'epochz'", "did you mean epochs"]),
        ({"train#trainer_max": 9}, ["no setting named 'train#trainer_max'", "train#trainer"]),
        ({"dataset_dir": "no/such/folder"}, ["no such data set", "no/such/folder"]),
        ({"trunk": "resnet34"}, ["no trunk named 'resnet34'", "resnet101"]),
        ({"passes": -1}, ["passes=-1"]),
    ],
)
def test_a_mistake_gives_one_line_and_a_status(mistake, words, tmp_path, capsys, monkeypatch):
    settings = {**SMALL_RUN, **PHANTOM, "output_dir": str(tmp_path / "out"), **mistake}
    monkeypatch.setattr("sys.argv", ["bundle/__main__.py", *typed(settings)])
    one_line(run_here("train", TRAIN, capsys, **settings), *words)
    assert not list(tmp_path.glob("out/models/*.pt"))


@pytest.mark.slow
def test_cli_user_mistake_gives_one_line_and_a_status(tmp_path):
    settings = {**SMALL_RUN, **PHANTOM, "output_dir": tmp_path / "out", "trunk": "resnet34"}
    done = run(*typed(settings), cwd=tmp_path)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr[-3000:]
    assert "no trunk named 'resnet34'" in errors[0]
    assert "Traceback" not in done.stderr
