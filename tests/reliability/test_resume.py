# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A rerun of inference skips exactly what is finished, and leaves the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glas_wsol.errors import OutputError
from glas_wsol.handlers import RunRecord
from glas_wsol.networks import MinMaxEntropyNetwork
from glas_wsol.networks.weights import read_state_dict
from glas_wsol.utils import locks as lock
from glas_wsol.utils.settings import describe
from tests.reliability.conftest import ROOT, everything, one_line, rows
from tests.reliability.files import encoded, picture


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four images; the third cannot be read."""
    (tmp_path / "in").mkdir()
    for n in range(4):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n, (40 + n, 64)), "PNG") if n != 2 else b"")
    return tmp_path / "in"


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """Grows by one with every image that the network sees."""
    seen: list[int] = []
    answer = MinMaxEntropyNetwork.answer
    monkeypatch.setattr(MinMaxEntropyNetwork, "answer", lambda self, x: seen.append(1) or answer(self, x))
    return seen


def test_resume_skips_finished_images_and_retries_failed(infer, folder, tmp_path, forwards):
    out = tmp_path / "out"
    assert infer(folder, out).status == 3
    assert len(forwards) == 3
    before, times = everything(out), {p: p.stat().st_mtime_ns for p in (out / "masks").iterdir()}
    again = infer(folder, out)
    assert again.status == 3
    assert "3 of 4 images skipped: finished earlier with the same weights, settings and bytes" in again.log
    assert len(forwards) == 3, "nothing was computed again"
    assert everything(out) == before
    assert {p: p.stat().st_mtime_ns for p in (out / "masks").iterdir()} == times
    (folder / "2.png").write_bytes(encoded(picture(2), "PNG"))
    assert infer(folder, out).status == 0
    assert len(forwards) == 4
    assert [row["name"] for row in rows(out / "predictions.csv")] == ["0", "1", "2", "3"], "in the order of the images"
    assert not (out / "failed.csv").exists()
    infer(folder, tmp_path / "undisturbed")
    assert everything(out) == everything(tmp_path / "undisturbed")
    assert all(0 < float(row["decidable_fraction"]) < 1 for row in rows(out / "predictions.csv")), "masks to compare"


def test_all_is_done_again_on_demand(infer, folder, tmp_path, forwards):
    assert infer(folder, tmp_path / "out").status == 3
    before = everything(tmp_path / "out")
    assert infer(folder, tmp_path / "out", resume=False).status == 3
    assert len(forwards) == 6
    assert everything(tmp_path / "out") == before


def _swap_bytes(folder: Path, out: Path) -> None:
    """Other bytes of the same length and date."""
    stat = (folder / "1.png").stat()
    data = encoded(picture(9, (41, 64)), "BMP")
    (folder / "1.png").write_bytes(data)
    os.utime(folder / "1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        _swap_bytes,
        lambda folder, out: (out / "masks" / "1.png").unlink(),
        lambda folder, out: (out / "masks" / "1.png").write_bytes(encoded(picture().convert("L"), "PNG")),
    ],
    ids=["other bytes", "a mask gone", "a mask changed"],
)
def test_an_image_or_result_that_changed_is_done_again_alone(infer, folder, tmp_path, forwards, change):
    out = tmp_path / "out"
    infer(folder, out)
    change(folder, out)
    infer(folder, out)
    assert len(forwards) == 4
    infer(folder, tmp_path / "undisturbed")
    assert everything(out) == everything(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"postprocessing#threshold": 0.4}, r"postprocessing#threshold was 0\.5, is 0\.4"),
        ({"flips": True}, "inferer#"),
        ({"overlays": True}, "overlays was False, is True"),
        ({"stain": "H&E"}, "stain"),
        ({"inferer#inferer#divisor": 64}, "inferer#divisor was 32, is 64"),
    ],
)
def test_other_settings_do_all_again_and_are_named(infer, folder, tmp_path, forwards, settings, named):
    out = tmp_path / "out"
    infer(folder, out)
    forwards.clear()
    again = infer(folder, out, **settings)
    assert re.search(f"3 images finished earlier are done again: .*{named}", again.log)
    assert len(forwards) in (3, 12)  # mirror images are four views
    infer(folder, tmp_path / "undisturbed", **settings)
    assert everything(out) == everything(tmp_path / "undisturbed")


def test_other_weights_do_all_again(infer, model, folder, tmp_path, forwards):
    infer(folder, tmp_path / "out")
    shutil.copytree(model.parent, tmp_path / "model")
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    state = {name: -value if "to_maps" in name else value for name, value in read_state_dict(model).items()}
    torch.save(state, tmp_path / "model" / "model.pt")
    (tmp_path / "model" / "model.json").write_text(json.dumps({k: v for k, v in card.items() if k != "sha256"}))
    again = infer(folder, tmp_path / "out", checkpoint=str(tmp_path / "model" / "model.pt"))
    assert len(forwards) == 6
    assert "models was" in again.log


def test_images_that_are_no_longer_wanted_leave_nothing(infer, folder, tmp_path, forwards):
    out = tmp_path / "out"
    infer(folder, out, overlays=True)
    (folder / "0.png").unlink()
    (folder / "2.png").unlink()
    (folder / "00.png").write_bytes(encoded(picture(7), "PNG"))
    assert infer(folder, out, overlays=True).status == 0
    assert len(forwards) == 4
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["00.png", "1.png", "3.png"]
    assert [row["name"] for row in rows(out / "predictions.csv")] == ["00", "1", "3"]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_goes_on(infer, folder, tmp_path, forwards, monkeypatch, workers):
    forward = MinMaxEntropyNetwork.answer

    def interrupt(self, image):
        if len(forwards) == 1:
            raise KeyboardInterrupt
        return forward(self, image)

    with monkeypatch.context() as patched:
        patched.setattr(MinMaxEntropyNetwork, "answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            infer(folder, tmp_path / "out", num_workers=workers)
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert len((tmp_path / "out" / "finished.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "out" / "finished.jsonl").open("a") as file:
        file.write('{"name": "1", "image": "cut o')  # as if killed while writing it
    (tmp_path / "out" / "masks" / f".{'0' * 32}.part").write_bytes(b"half")
    assert infer(folder, tmp_path / "out", num_workers=workers).status == 3
    infer(folder, tmp_path / "undisturbed")
    assert everything(tmp_path / "out") == everything(tmp_path / "undisturbed")


@pytest.mark.parametrize("locks", [True, False])
def test_resume_removes_partial_files_if_no_other_run_is_active(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / f".{'0' * 32}.part").write_bytes(b"half")
    record = RunRecord(tmp_path, [])
    record.begin()
    record.complete()
    assert bool(list(tmp_path.rglob("*.part"))) != locks


def test_a_users_own_file_of_the_records_name_is_left_alone(infer, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "finished.jsonl").write_text("mine\n")
    one_line(infer(folder, tmp_path / "out"), "finished.jsonl", "not the record of a run")
    assert everything(tmp_path / "out") == {"finished.jsonl": b"mine\n"}


def test_an_edited_record_does_not_reach_out_of_its_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.png").write_bytes(b"precious")
    entry = {"image": "x", "sha256": "", "row": {}, "details": {}}
    lines = [
        {"made_with": {}},
        {**entry, "name": "../../precious", "files": {}},
        {**entry, "name": "a", "files": {"../precious.png": ""}},
        {**entry, "name": "b", "files": {"masks/b.png": ""}},
        {**entry, "name": 3, "files": {}},
    ]
    (out / "finished.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert RunRecord(out, []).begin() == {"b"}
    (out / "finished.jsonl").unlink()
    (out / "finished.jsonl").mkdir()
    with pytest.raises(OutputError, match="not the record"):
        RunRecord(out, []).begin()


def test_a_component_is_described_by_what_it_was_made_with():
    class Part:
        def __init__(self, size: float) -> None:
            self.size, self.kind, self.max_pixels = size, torch.nn.Linear, 5

    class Whole:
        def __init__(self) -> None:
            self.parts, self.fold, self.me = (Part(1.5), Part(2)), print, self
            self.values, self.names = torch.tensor([1, 2]), ("a", None)

    found = describe({"it": Whole(), "path": Path("a"), "deep": {"n": 3}})
    assert found == {
        "it": "test_a_component_is_described_by_what_it_was_made_with.<locals>.Whole",
        "it#fold": "print",
        "it#me": "test_a_component_is_described_by_what_it_was_made_with.<locals>.Whole",
        "it#names": ["a", None],
        "it#parts#0": "test_a_component_is_described_by_what_it_was_made_with.<locals>.Part",
        "it#parts#0#kind": "Linear",
        "it#parts#0#size": 1.5,
        "it#parts#1": "test_a_component_is_described_by_what_it_was_made_with.<locals>.Part",
        "it#parts#1#kind": "Linear",
        "it#parts#1#size": 2,
        "it#values": [1, 2],
        "path": "a",
        "deep#n": 3,
    }


@pytest.mark.slow
def test_resume_after_random_kills_gives_the_same_bytes():
    words = ["--kills", "4", "--seed", "1", "--tiles", "6"]
    command = [sys.executable, str(ROOT / "benchmarks" / "reliability.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    assert "4 kills" in ended.stdout
    assert "all bytes the same" in ended.stdout
