# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Two processes at once on one folder, whatever they do there: one result, whole, and a line for who came second."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glas_wsol.__main__ import main
from glas_wsol.bundle.export import export_bundle
from glas_wsol.bundle.inference_run import LISTED
from glas_wsol.errors import GlasWsolError
from glas_wsol.report import write_report
from glas_wsol.utils.json_files import RECORD
from glas_wsol.utils.locks import claim, release
from glas_wsol.version import PACKAGE
from tests.reliability.conftest import CONFIGS, ROOT, Ended, everything, one_line
from tests.reliability.files import encoded, picture

FORK = multiprocessing.get_context("fork")


def _act(act: Callable[[], object], gate: object, answers: object) -> None:
    gate.wait()
    try:
        act()
        answers.put("done")
    except GlasWsolError as error:
        answers.put(str(error))
    except BaseException as error:
        answers.put(f"{type(error).__name__} {error}")


def at_once(act: Callable[[], object], count: int = 2) -> list[str]:
    """Do it in several processes that begin together; how each ended."""
    gate, answers = FORK.Barrier(count), FORK.Queue()
    processes = [FORK.Process(target=_act, args=(act, gate, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    return found


@pytest.fixture
def finished(infer, tmp_path) -> Path:
    """The folder of a run of inference."""
    (tmp_path / "in").mkdir()
    for n in range(2):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n), "PNG"))
    assert infer(tmp_path / "in", tmp_path / "out", overlays=True).status == 0
    return tmp_path / "out"


def test_two_reports_of_one_folder_are_one_page(finished):
    write_report(finished)
    alone = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert at_once(lambda: write_report(finished)) == ["done", "done"]
    assert (finished / "report.html").read_bytes() == alone
    assert not list(finished.rglob("*.part"))


def _exports(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for _ in range(3):  # the first into an empty folder, the others over what is there
        yield folder / "glas_minmax_entropy", at_once(lambda: export_bundle(CONFIGS.parent, folder))


def test_two_exports_leave_one_whole_bundle(tmp_path):
    for made, ended in _exports(tmp_path / "dist"):
        assert "done" in ended
        for other in set(ended) - {"done"}:
            one_line(Ended(1, f"error: {other}"), "cannot be exported")
        names = [one.relative_to(PACKAGE) for one in PACKAGE.rglob("*.py") if "bundles" not in one.parts]
        whole = {(made / "glas_wsol" / name).read_bytes() == (PACKAGE / name).read_bytes() for name in names}
        assert whole == {True}, "every file of the package is there, as it is"
        assert sorted(p.name for p in (made / "configs").iterdir()) == sorted(p.name for p in CONFIGS.iterdir())
        assert [p.name for p in (tmp_path / "dist").iterdir()] == [made.name], "nothing half done is left"


def _held(file: Path, ready: object, let: object) -> None:
    claim(file)
    ready.set()
    let.wait(600)
    release(file)


def test_predict_where_a_run_is_at_work_changes_nothing(finished, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    images = [str(tmp_path / "in" / "0.png"), str(tmp_path / "in" / "1.png")]
    (finished / LISTED).write_text("image\nof the run that is at work.png\n")
    before = everything(finished)
    ready, let = FORK.Event(), FORK.Event()
    holder = FORK.Process(target=_held, args=(finished / RECORD, ready, let))
    holder.start()
    try:
        assert ready.wait(600)
        words = ["predict", *images, "--model", str(model), "--output", str(finished), "--device", "cpu"]
        one_line(Ended(main(words), capsys.readouterr().err), "another run is at work here", "choose another --output")
    finally:
        let.set()
        holder.join()
    assert everything(finished) == before
