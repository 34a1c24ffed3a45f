# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The scripts that measure what the documents say run, and count every image they are given."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from glas_wsol.data.phantom_tissue import tissue_tile

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiles(tmp_path) -> Path:
    """Two tiles, one of them blank, and a mask that is none of them."""
    tile, ids = tissue_tile(np.random.default_rng(0), True, (80, 97), scale=0.25)
    Image.fromarray(tile).save(tmp_path / "a.bmp")
    Image.fromarray(ids).save(tmp_path / "a_anno.bmp")
    Image.fromarray(np.full((70, 64, 3), 240, np.uint8)).save(tmp_path / "b.png")
    return tmp_path


def test_the_judge_of_evidence_is_measured(tiles, capsys, monkeypatch):
    evidence = script("evidence")
    monkeypatch.setattr(evidence, "tissue", lambda count, scale: [])
    monkeypatch.setattr(evidence, "_PHOTOGRAPHS", ("chelsea",))
    monkeypatch.setattr(evidence, "_OTHERS", ("page",))
    evidence.main(["--tissue", f"mine={tiles}", "--count", "1"])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {(name, what, stain): rest for name, what, stain, *rest in lines[2:]}
    assert rows["mine", "as it is", "H&E"] == ["2", "1", "blank 1"]
    assert rows["mine", "Gaussian blur 8 px", "H&E"] == ["2", "0", "blank 1, blurred 1"]
    assert rows["mine", "half of it glass", "H&E"] == ["2", "1", "blank 1"]
    assert rows["synthetic tissue, scale 1", "as it is", "H&E"] == ["0", "0", "-"]
    assert rows["photographs", "as it is", "-"] == ["1", "1", "-"]
    assert rows["`page`", "as it is", "H&E"] == ["1", "0", "no H&E tissue 1"]
    assert rows["empty glass", "-", "H&E"] == ["1", "0", "blank 1"]
    assert rows["blue ink on glass", "-", "H&E"] == ["1", "0", "no H&E tissue 1"]


def test_memory_that_grows_is_told_by_the_status(monkeypatch, capsys):
    memory = script("infer_memory")
    grown = [90.0, 95, 98, 99, 100, 100, 100, 100, 100, 106]
    monkeypatch.setattr(memory, "measure", lambda count, size, trunk: grown[:count])
    assert memory.main(["--images", "10"]) == 1
    assert "From image 5 to image 10: +6.0 %" in capsys.readouterr().out
    assert memory.main(["--images", "9"]) == 0
    assert memory.main(["--images", "11"]) == 1, "an image has no result"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not say how much memory is in use")
def test_memory_of_inference_is_flat(capsys):
    pytest.importorskip("highdicom")
    assert script("infer_memory").main(["--images", "12", "--size", "66", "97"]) == 0, capsys.readouterr().out
