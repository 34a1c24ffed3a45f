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

    def run(*command: str) -> str:
        path = os.pathsep.join(map(str, (installed, *filter(None, [os.environ.get("PYTHONPATH")]))))
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = (sys.executable, *command)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200, env=env, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    options = ["--fold", "stratified-0", "--epochs", "1", "--device", "cpu"]
    said = run(str(installed / "bin" / "glas-wsol"), "train", "data", "--output", "out", *SMALL, *options)
    assert str(installed) in said
    folds = ["--folds", "stratified-0"]
    commands = [  # in one interpreter, which takes as long to start as they take
        ["evaluate", "out", "--split", "test"],
        ["show", "out"],
        ["predict", "data", "--model", "out", "--output", "found", "--device", "cpu", "--report"],
        ["study", "compared", "--methods", "all_ones", "--dataset_dir", "data", "--dry-run", *folds],
        ["export", "glas", "dist", "--model", "out/models/model.pt"],
    ]
    script = f"from glas_wsol.__main__ import main\nfor words in {commands}:\n    print(words[0], 'ended', main(words))"
    said = run("-c", script)
    assert all(f"{words[0]} ended 0" in said for words in commands)
    assert "3 images of split 'test'" in said
    assert str(installed) in said[said.index("show ended") : said.index("predict ended")]
    assert (tmp_path / "found" / "report.html").is_file()
    assert not (tmp_path / "dist" / "glas_minmax_entropy" / "glas_wsol" / "bundles").exists()
