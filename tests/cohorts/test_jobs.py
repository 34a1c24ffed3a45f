# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Several processes and array jobs leave what one process does; work that kills its process fails alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from PIL import Image

from glas_wsol.__main__ import main
from glas_wsol.cohorts import slide_run, tile_batches
from glas_wsol.workers.processes import in_processes
from tests.cohorts.deadly_work import start, work
from tests.cohorts.test_predict_slides import as_it_was, images, model, rows
from tests.slides.slide_images import tissue_image

__all__ = ["as_it_was", "images", "model"]


def test_work_that_kills_its_process_fails_alone(tmp_path):
    done = dict(in_processes(work, [(number, tmp_path) for number in range(8)], start, (tmp_path,), 2))
    assert done == {n: None if n == 3 else n * n for n in range(8)}


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name not in ("done.json", "slides.csv", "images_given.csv")  # seconds
    }


@pytest.fixture(scope="module")
def many(images) -> Path:
    for number in range(17):
        Image.fromarray(tissue_image(64, 96, number)).save(images / f"tile_{number}.png")
    (images / "broken.png").write_bytes(b"no image")
    return images


@pytest.fixture(scope="module")
def once(model, many, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("once") / "out"
    assert main(["predict", str(many), "--model", str(model), "--output", str(out), "--device", "cpu"]) == 3
    return out


def test_parts_of_a_cohort_and_their_end_equal_one_run(model, many, once, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["predict", str(many), "--model", str(model), "--output", str(out), "--device", "cpu"]
    assert {main([*words, "--shard", f"{number}/2"]) for number in (2, 1)} == {3}
    assert len(rows(out / "slides_1_of_2.csv")) + len(rows(out / "slides_2_of_2.csv")) == 2
    capsys.readouterr()
    assert main(words) == 3
    assert "2 of 3 slides are done, 2 by an earlier run" in capsys.readouterr().out
    found = {name: data for name, data in everything(out).items() if "_of_2" not in name}
    assert found == everything(once)
    assert [row["image"].rpartition("/")[2] for row in rows(out / "failed.csv")] == ["broken.png", "unknown.tif"]


def here(work, items, start, arguments, jobs):
    """As `in_processes`, in this process and backwards: to start others takes as long as ten such runs."""
    assert pickle.dumps((work, list(items), start, arguments))
    start(0, *arguments)
    for number in reversed(range(len(items))):
        yield number, work(items[number])


def test_several_processes_leave_what_one_does(model, many, once, tmp_path, monkeypatch):
    monkeypatch.setattr(slide_run, "in_processes", here)
    monkeypatch.setattr(tile_batches, "in_processes", here)
    out = tmp_path / "out"
    words = ["predict", str(many), "--model", str(model), "--output", str(out), "--device", "cpu", "--jobs", "2"]
    assert main(words) == 3
    assert everything(out) == everything(once)


def test_part_that_does_not_exist_is_refused(model, many, tmp_path, capsys):
    words = ["predict", str(many), "--model", str(model), "--output", str(tmp_path / "out")]
    assert main([*words, "--shard", "3/2"]) == 1
    assert "give which part and of how many, as 3/20" in capsys.readouterr().err
    assert main([*words, "--jobs", "0"]) == 1
