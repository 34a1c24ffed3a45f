# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A slide's folder appears whole; a run that is killed goes on with the cells that are left, to the same bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from glas_wsol.cohorts.slide_jobs import SlideJob, run_slide
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.slides.cell_network import CellNetwork
from glas_wsol.slides.localize_slide import SlideModel
from glas_wsol.writers.slide_files import check_slide_formats
from tests.slides.slide_images import local_network, tissue_image, write_slide_file

FORMATS = ("tiff", "geojson", "csv")


@pytest.fixture(scope="module")
def model() -> SlideModel:
    return SlideModel(local_network(), ("a", "b"), 0.5, made_with={"models": ["1"]})


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> SlideJob:
    path = write_slide_file(tmp_path_factory.mktemp("slides") / "one.tiff", tissue_image(260, 580), 0.5)
    return SlideJob(str(path), "one")


def everything(folder: Path) -> dict[str, bytes]:
    """All files but that which says how long it took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "done.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def counted(monkeypatch, stop: int | None = None) -> list[int]:
    """The cells that are computed; at one of them the process is killed."""
    seen, ask = [], CellNetwork.__call__

    def count(self, patch, cell):
        seen.append(cell.column)
        if len(seen) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return ask(self, patch, cell)

    monkeypatch.setattr(CellNetwork, "__call__", count)
    return seen


def test_slide_killed_in_its_middle_goes_on_to_the_same_bytes(model, slide, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_slide(slide, model, whole, FORMATS, core=128).failure is None
    child = os.fork()
    if not child:
        counted(monkeypatch, stop=9)
        run_slide(slide, model, killed, FORMATS, core=128)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (killed / "slides" / "one").exists()
    seen = counted(monkeypatch)
    result = run_slide(slide, model, killed, FORMATS, core=128)
    assert len(seen) == 15 - 8
    assert result.row["cells"] == 15
    assert everything(killed) == everything(whole)
    assert sorted(path.name for path in (killed / "slides").iterdir()) == ["one"]
    files = {"mask.tif", "map.tif", "outlines.geojson", "overlay.png", "parts.csv", "classes.csv", "slide.json"}
    assert files <= set(everything(whole / "slides" / "one"))


def test_finished_slide_is_done_again_only_if_something_changed(model, slide, tmp_path, monkeypatch):
    seen = counted(monkeypatch)
    first = run_slide(slide, model, tmp_path, FORMATS)
    assert (first.earlier, len(seen)) == (False, 1)
    again = run_slide(slide, model, tmp_path, FORMATS)
    assert (again.earlier, len(seen), again.row) == (True, 1, first.row)
    (tmp_path / "slides" / "one" / "mask.tif").unlink()
    assert not run_slide(slide, model, tmp_path, FORMATS).earlier
    other = SlideModel(model.network, model.classes, 0.5, made_with={"models": ["2"]})
    assert not run_slide(slide, other, tmp_path, FORMATS).earlier
    assert not run_slide(slide, other, tmp_path, ("csv",)).earlier
    assert not (tmp_path / "slides" / "one" / "mask.tif").exists()
    assert not run_slide(SlideJob(slide.path, "one", 0.4), other, tmp_path, ("csv",)).earlier
    assert not run_slide(slide, other, tmp_path, ("csv",), resume=False).earlier


def test_slide_that_cannot_be_read_is_a_failure_of_its_own(model, tmp_path):
    (tmp_path / "broken.tiff").write_bytes(b"II*\0 no more")
    result = run_slide(SlideJob(str(tmp_path / "broken.tiff"), "broken"), model, tmp_path / "out", FORMATS)
    assert result.failure is not None
    assert "OpenSlide cannot open it" in result.failure.what
    assert list((tmp_path / "out" / "slides").iterdir()) == []


def test_folder_of_somebody_else_is_left_alone(model, slide, tmp_path):
    (tmp_path / "slides" / "one").mkdir(parents=True)
    (tmp_path / "slides" / "one" / "mask.tif").write_text("mine")
    with pytest.raises(OutputError, match="not one of earlier results"):
        run_slide(slide, model, tmp_path, FORMATS)
    assert (tmp_path / "slides" / "one" / "mask.tif").read_text() == "mine"


@pytest.mark.parametrize("name", ["png", "nifti"])
def test_format_that_makes_no_sense_is_refused(name):
    with pytest.raises(ConfigError, match="a slide is not written as"):
        check_slide_formats([name])
