# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A model whose heads nobody trained, and inference with it as the command line runs it, in this process."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from glas_wsol.handlers import write_model
from glas_wsol.networks import build_network
from tests.bundles.conftest import SMALL, narrow_trunk  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "bundles" / "glas_minmax_entropy" / "configs"
CARD = {"trunk": SMALL["trunk"], "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}


@dataclass(frozen=True)
class Ended:
    """How a run ended: its status, what it said of that on standard error, and its log."""

    status: int
    said: str
    log: str = ""


def run(kind: str, files: list[str], capsys: pytest.CaptureFixture | None = None, **settings: Any) -> Ended:
    """A run as `python -m monai.bundle run` does it, with its status; what stops it goes to the hook it has set."""
    hook = sys.excepthook
    sys.excepthook = sys.__excepthook__
    try:
        workflow = ConfigWorkflow(config_file=files, workflow_type=kind, **settings)
        workflow.initialize()
        workflow.run()
    except Exception as error:
        log = capsys.readouterr().out if capsys is not None else ""
        try:
            sys.excepthook(type(error), error, error.__traceback__)
            status = 1
        except SystemExit as left:
            status = left.code
        return Ended(status, capsys.readouterr().err if capsys is not None else "", log)
    finally:
        sys.excepthook = hook
    return Ended(0, "", capsys.readouterr().out if capsys is not None else "")


def tell(given: str, how: str) -> None:
    """Write down what the running test gave and how that ended, for the table of benchmarks/reliability.py."""
    if "GLAS_WSOL_TOLD" in os.environ:
        test = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split("[")[0].split(" ")[0]
        with Path(os.environ["GLAS_WSOL_TOLD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps([test.removeprefix("test_").replace("_", " "), given, how]) + "\n")


def given() -> str:
    """The running test's parameters."""
    return os.environ["PYTEST_CURRENT_TEST"].partition("[")[2].rpartition("]")[0].rstrip("-")


def one_line(ended: Ended, *words: str) -> None:
    """What every failure looks like: a status, one line with what, where and how to fix it."""
    assert ended.status != 0
    lines = ended.said.splitlines()
    assert len(lines) == 1, ended.said
    assert lines[0].startswith("error: ")
    assert "]: " in lines[0], "where, then how to fix it"
    for word in words:
        assert word in lines[0], lines[0]
    tell(given(), f"status {ended.status}: {lines[0].removeprefix('error: ')}")


def written_model(folder: Path, trunk: str) -> Path:
    """A model whose heads nobody trained, on a trunk of this name."""
    network = build_network({}, trunk=trunk, weights="none", num_classes=2, seed=0)
    write_model(network, folder, {**CARD, "trunk": trunk})
    return folder / "model.pt"


@pytest.fixture(scope="package")
def model(narrow_trunk, tmp_path_factory) -> Path:  # noqa: F811
    """Of a trunk that only this process knows: nothing of it takes time."""
    return written_model(tmp_path_factory.mktemp("model"), CARD["trunk"])


@pytest.fixture
def infer(model, capsys) -> Callable[..., Ended]:
    """Inference of the GlaS bundle on a file, folder or table."""

    def infer(source: Path | str, output: Path, **settings: Any) -> Ended:
        own = {"checkpoint": str(model), "device": "cpu", "overlays": False, "stain": "", "dataset_dir": str(source)}
        files = [str(CONFIGS / "inference.json")]
        return run("inference", files, capsys, output_dir=str(output), **{**own, **settings})

    return infer


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
