# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: it brings its bundles and overlays, and runs in any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glas_wsol.data.phantom.tissue import write_tissue_phantom

ROOT = Path(__file__).parents[1]
SMALL = ["--method", "minmax_0", "--overlays", "configs/trunks/resnet18.json", "--weights", "none", "--crop_size", "64"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that pip installed the package into, from a copy: a build leaves files where it runs."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy2(ROOT / name, folder / name)
    for name in ("glas_wsol", "bundles", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "models"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder / "site")]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, str(folder)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "site"


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "models" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_an_installation_holds_every_config_and_document(installed):
    assert files(installed / "glas_wsol" / "bundles") == files(ROOT / "bundles")
    assert files(installed / "glas_wsol" / "configs") == files(ROOT / "configs")
    code = {name for name in files(ROOT / "glas_wsol") if "__pycache__" not in name}
    assert {name for name in code if not (installed / "glas_wsol" / name).is_file()} == set()


@pytest.mark.slow
def test_an_installation_trains_and_evaluates_in_any_folder(installed, tmp_path):
    write_tissue_phantom(tmp_path / "data", train=12, test=3, size=(64, 91), scale=0.15, workers=1)

    def run(*words: str) -> str:
        path = os.pathsep.join(map(str, (installed, *filter(None, [os.environ.get("PYTHONPATH")]))))
        command = [sys.executable, str(installed / "bin" / "glas-wsol"), *words]
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200, env=env, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    options = ["--fold", "stratified-0", "--epochs", "1", "--device", "cpu"]
    assert str(installed) in run("train", "data", "--output", "out", *SMALL, *options)
    run("evaluate", "out", "--split", "test")
    assert "3 images of split 'test'" in run("show", "out")
    assert str(installed) in run(
        "predict", "data", "--model", "out", "--output", "found", "--device", "cpu", "--report"
    )
    assert (tmp_path / "found" / "report.html").is_file()
    run("study", "compared", "--methods", "all_ones", "--dataset_dir", "data", "--dry-run", "--folds", "stratified-0")
    run("export", "glas", "dist", "--model", "out/models/model.pt")
    assert not (tmp_path / "dist" / "glas_minmax_entropy" / "glas_wsol" / "bundles").exists()
