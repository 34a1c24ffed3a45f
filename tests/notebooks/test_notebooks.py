# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The notebooks run from their first cell to their last, show what they promise, and are kept without outputs."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from glas_wsol import samples
from glas_wsol.utils.shipped_bundles import bundle_folder
from tests.notebooks.execute import FOLDER, execute, pictures, printed

NAMES = ("01_train_and_watch", "02_read_one_result", "03_compare_methods")


def drawn(notebook: nbformat.NotebookNode) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in pictures(notebook)]


def is_a_picture(array: np.ndarray) -> bool:
    """Neither empty nor of one colour."""
    return min(array.shape[:2]) > 100 and array.std() > 10


def test_all_are_looked_at():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_what_a_run_left(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 30_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1


def test_train_and_watch_begins_anew_with_another_number(tmp_path, capsys):
    cells = nbformat.read(FOLDER / f"{NAMES[0]}.ipynb", as_version=4).cells
    before = [cell.source for cell in cells if cell.cell_type == "code"][:3]  # parameters, imports, data
    small = {"work": str(tmp_path), "tiles": 20, "size": (64, 72)}
    runs = []
    for change in ({}, {"tiles": 21}, {"epochs": 2}, {}):
        names: dict[str, Any] = {}
        exec(before[0], names)  # noqa: S102 - the project's own notebook
        names |= small | change
        for source in before[1:]:
            exec(source, names)  # noqa: S102
        assert sum(map(len, names["datalist"].splits.values())) == 6 + names["tiles"]
        runs.append(names["run"])
    assert runs[0] == runs[3]
    assert len(set(runs)) == 3


@pytest.mark.slow
def test_train_and_watch(tmp_path):
    small = {"tiles": 20, "size": (104, 152), "crop_size": 96, "epochs": 1, "refine_epochs": 1}
    notebook = execute(NAMES[0], work=str(tmp_path), **small)
    said = printed(notebook)
    assert "phantom (synthetic tissue), 2 classes" in said
    assert "estimated failure probability 0." in said
    assert (tmp_path / "train_20_104x152" / "run_96_1_1" / "models" / "model.pt").is_file()
    tiles, curves, masks = drawn(notebook)
    assert is_a_picture(tiles)
    assert is_a_picture(masks)
    assert curves.std() > 5, "lines on white"


@pytest.mark.slow
def test_read_one_result(tmp_path):
    notebook = execute(NAMES[1], work=str(tmp_path))
    said = printed(notebook)
    assert "the PNG is the mask: True" in said
    assert "no evidence: blank; 0 pixels in the mask, probability None" in said
    assert "square micrometres" in said
    assert len(drawn(notebook)) == 3
    assert all(is_a_picture(one) for one in drawn(notebook)[:2])
    model = json.loads((bundle_folder("glas") / "models" / "model.json").read_text())
    assert f"failure probability {model['alarm']['score']:.2f}" in said
    outlines = json.loads((tmp_path / "one_result" / "geojson" / f"{samples()[-1].stem}.geojson").read_text())
    assert f"{len(outlines['features'])} annotations" in said


@pytest.mark.slow
def test_compare_methods(tmp_path):
    # nothing is trained: tests/experiments/study does so; every run starts an interpreter
    methods = ["all_ones", "stain"]
    notebook = execute(NAMES[2], work=str(tmp_path), methods=methods, epochs=1, tiles=10, size=(104, 152))
    said = printed(notebook)
    assert (tmp_path / "compare_10_104x152" / "study_1" / "tables" / "tables.md").read_text() in said
    assert "| Haematoxylin stain" in said
    assert "| All-ones" in said
    (figure,) = drawn(notebook)
    assert is_a_picture(figure)
