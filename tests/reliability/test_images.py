# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A folder of strangers' files: what is an image has a result, all else a line in failed.csv, and nothing stops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.transforms.reading import reader
from glas_wsol.utils.csv_files import unescape_cell
from tests.reliability.conftest import CONFIGS, Ended, everything, one_line, rows, run, tell, written_model
from tests.reliability.files import bad_files, bad_places, encoded, good_files, picture

GOOD, BAD = good_files(), bad_files()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> tuple[Path, Path, Ended, dict[str, str]]:
    """Every file at once, run on with two workers."""
    made = tmp_path_factory.mktemp("strangers")
    (made / "in").mkdir()
    for name, data in {**GOOD, **{name: data for name, (data, _) in BAD.items()}}.items():
        (made / "in" / name).write_bytes(data)
    (made / "in" / "folder.png").mkdir()
    said = {**{name: word for name, (_, word) in BAD.items()}, **bad_places(made / "in")}
    settings = {"checkpoint": str(model), "device": "cpu", "num_workers": 2, "stain": ""}
    files = [str(CONFIGS / "inference.json")]
    ended = run("inference", files, dataset_dir=str(made / "in"), output_dir=str(made / "out"), **settings)
    return made / "in", made / "out", ended, said


def test_the_run_ends_with_a_status_of_its_own(folder):
    _, out, ended, said = folder
    assert ended.status == 3
    assert len(rows(out / "failed.csv")) == len(said)
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("name", [*BAD, "broken.png", "loop.png", "pipe.png", "latin_\\udce9.png"])
def test_unreadable_file_is_a_row_with_reason_and_fix(folder, name):
    source, out, _, said = folder
    if name not in said:
        pytest.skip("this file system takes UTF-8 names only")
    (row,) = [row for row in rows(out / "failed.csv") if row["image"] == f"{source}/{name}"]
    assert row["stage"] == "read"
    assert said[name] in row["what"] + row["fix"]
    assert row["fix"], "how to fix it"
    tell(name, f"failed.csv: {row['what']}: {row['fix']}")
    assert all("\n" not in row[key] and "Traceback" not in row[key] for key in ("what", "fix"))
    assert not (out / "masks" / f"{Path(name).stem}.png").exists()
    assert not [row for row in rows(out / "predictions.csv") if row["path"].endswith(f"/{name}")]


@pytest.mark.parametrize("name", GOOD)
def test_an_image_has_its_mask_at_its_own_size(folder, name):
    source, out, _, _ = folder
    (row,) = [row for row in rows(out / "predictions.csv") if row["path"] == f"{source}/{name}"]
    mask = read_mask(out / "masks" / f"{unescape_cell(row['name'])}.png")
    assert mask.shape == read_rgb(source / name).shape[:2]
    assert float(row["decidable_fraction"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
    tell(name, f"a result: {row['class']}")


def test_no_cell_of_a_table_is_a_formula(folder):
    _, out, _, _ = folder
    for table in ("predictions.csv", "failed.csv"):
        cells = [cell for row in rows(out / table) for cell in row.values()]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    names = {row["name"] for row in rows(out / "predictions.csv")}
    assert {"'=cmd|'calc'!A0", "'-x", "'@sum"} <= names


def test_images_that_are_no_evidence_say_so(folder):
    _, out, _, _ = folder
    said = {unescape_cell(row["name"]): row["class"] for row in rows(out / "predictions.csv")}
    assert {said[name] for name in ("white", "black", "constant")} == {"no evidence"}
    assert {said[name] for name in ("odd", "rgba", "grey", "=cmd|'calc'!A0")} <= {"benign", "malignant"}


@pytest.mark.parametrize("name", ["empty.png", "cut_50.jpg", "huge.png"])
def test_of_a_single_image_the_failure_is_one_line(infer, tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name][0])
    ended = infer(tmp_path / name, tmp_path / "out")
    assert ended.status == 1
    one_line(ended, name, BAD[name][1])
    assert not [file for file in everything(tmp_path / "out") if file != "finished.jsonl" and file[0] != "."]


def test_the_pixel_budget_can_be_raised_and_lowered(infer, tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(2):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n, (20 + n, 30)), "PNG"))
    assert infer(tmp_path / "in", tmp_path / "out", max_pixels=600).status == 3
    (row,) = rows(tmp_path / "out" / "failed.csv")
    assert "max_pixels=630" in row["fix"]
    # another budget changes no result: what is finished stays so, and the rest is done
    before = (tmp_path / "out" / "masks" / "0.png").stat().st_mtime_ns
    assert infer(tmp_path / "in", tmp_path / "out", max_pixels=630).status == 0
    assert (tmp_path / "out" / "masks" / "0.png").stat().st_mtime_ns == before
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 2
    assert not (tmp_path / "out" / "failed.csv").exists()


def test_failed_csv_is_a_valid_list_of_images(infer, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("=1+1.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert infer(tmp_path / "in", tmp_path / "out").status == 3
    for n, name in enumerate(("=1+1.png", "b.png")):
        (tmp_path / "in" / name).write_bytes(encoded(picture(n), "PNG"))
    assert infer(tmp_path / "out" / "failed.csv", tmp_path / "again").status == 0
    assert [row["name"] for row in rows(tmp_path / "again" / "predictions.csv")] == ["'=1+1", "b"]


def test_a_file_that_must_not_be_read_is_a_row(infer, tmp_path, monkeypatch):
    """Root may read everything, so that the refusal is made here."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "locked.png"):
        (tmp_path / "in" / name).write_bytes(encoded(picture(), "PNG"))
    opened = Path.open

    def refuse(path, *args, **kwargs):
        if path.name == "locked.png":
            raise PermissionError(13, os.strerror(13), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert infer(tmp_path / "in", tmp_path / "out").status == 3
    (row,) = rows(tmp_path / "out" / "failed.csv")
    assert "no permission" in row["what"]
    assert [row["name"] for row in rows(tmp_path / "out" / "predictions.csv")] == ["a"]


def test_images_that_vanish_while_a_run_is_at_work_are_rows(infer, tmp_path, monkeypatch):
    """A network disk that is gone, say: what was read before is kept, and a rerun does the rest."""
    (tmp_path / "in").mkdir()
    for n in range(4):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n), "PNG"))
    read, seen = reader._decode, []

    def decode(path, *arguments):
        seen.append(path)
        if len(seen) == 3:
            (tmp_path / "in").rename(tmp_path / "gone")
        return read(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(reader, "_decode", decode)
        assert infer(tmp_path / "in", tmp_path / "out").status == 3
    found = rows(tmp_path / "out" / "failed.csv")
    assert [(Path(row["image"]).name, row["what"]) for row in found] == [(f"{n}.png", "no such file") for n in (2, 3)]
    tell("2 of 4 images", f"failed.csv: {found[0]['what']}: {found[0]['fix']}")
    (tmp_path / "gone").rename(tmp_path / "in")
    again = infer(tmp_path / "in", tmp_path / "out")
    assert (again.status, "2 of 4 images skipped" in again.log) == (0, True)
    infer(tmp_path / "in", tmp_path / "undisturbed")
    assert everything(tmp_path / "out") == everything(tmp_path / "undisturbed")


def test_a_name_that_would_write_to_the_terminal_is_spelt_out(infer, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("\x1b[2Jred.png", "b\r.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    ended = infer(tmp_path / "in", tmp_path / "out")
    assert ended.status == 3
    assert "\\x1b[2Jred.png" in ended.log
    assert "\x1b" not in ended.log + ended.said
    assert sorted(Path(row["image"]).name for row in rows(tmp_path / "out" / "failed.csv")) == [
        "\x1b[2Jred.png",
        "b\r.png",
    ]


def test_output_not_finite_or_out_of_memory_is_a_row(infer, tmp_path, monkeypatch):
    from glas_wsol.networks import MinMaxEntropyNetwork

    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n), "PNG"))
    answer, calls = MinMaxEntropyNetwork.answer, []

    def fails(self, image):
        calls.append(1)
        if len(calls) == 1:
            prediction, scores = answer(self, image)
            return prediction * float("nan"), scores
        if len(calls) == 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return answer(self, image)

    monkeypatch.setattr(MinMaxEntropyNetwork, "answer", fails)
    assert infer(tmp_path / "in", tmp_path / "out").status == 3
    found = rows(tmp_path / "out" / "failed.csv")
    assert [(Path(row["image"]).name, row["stage"]) for row in found] == [("0.png", "localize"), ("1.png", "localize")]
    assert ["not a finite" in found[0]["what"], "memory" in found[1]["what"]] == [True, True]
    assert [row["name"] for row in rows(tmp_path / "out" / "predictions.csv")] == ["2"]


def test_a_fault_of_the_program_is_not_taken_for_one_of_an_image(infer, tmp_path, monkeypatch):
    from glas_wsol.networks import MinMaxEntropyNetwork

    (tmp_path / "in").mkdir()
    for n in range(2):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n), "PNG"))

    def fails(self, image):
        raise RuntimeError("an unforeseen fault")

    monkeypatch.setattr(MinMaxEntropyNetwork, "answer", fails)
    ended = infer(tmp_path / "in", tmp_path / "out")
    assert ended.status == 1
    assert "an unforeseen fault" in ended.said
    assert "Traceback" in ended.said, "a fault to report, not to repair"
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_disk_that_is_full_stops_the_run(infer, tmp_path, monkeypatch):
    from glas_wsol.utils import atomic_files as atomic

    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n), "PNG"))
    replaced, calls = Path.replace, []

    def full(path, target):
        calls.append(Path(target).name)
        if Path(target).name == "1.png":
            raise OSError(28, os.strerror(28))
        return replaced(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.Path, "replace", full)
        ended = infer(tmp_path / "in", tmp_path / "out")
    assert ended.status == 1
    one_line(ended, "No space left", "1.png", "has room")
    assert sorted(p.name for p in (tmp_path / "out" / "masks").iterdir()) == ["0.png"]
    assert not (tmp_path / "out" / "failed.csv").exists()
    # with room again, the run goes on
    assert infer(tmp_path / "in", tmp_path / "out").status == 0
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 3


def test_a_users_own_failed_csv_is_left_alone(infer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failed.csv").write_text("patient,why\n")
    (tmp_path / "a.png").write_bytes(encoded(picture(), "PNG"))
    one_line(infer(tmp_path / "a.png", tmp_path / "out"), "failed.csv", "choose another --output_dir")
    assert (tmp_path / "out" / "failed.csv").read_text() == "patient,why\n"


@pytest.mark.slow
def test_the_command_itself_ends_with_status_3_and_one_line(tmp_path):
    model = written_model(tmp_path / "model", "efficientnet_lite0")
    (tmp_path / "in").mkdir()
    for name, data in (("a.png", encoded(picture(), "PNG")), ("b.png", b"")):
        (tmp_path / "in" / name).write_bytes(data)
    settings = {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out", "checkpoint": model, "device": "cpu"}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "inference.json")]
    command += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert ended.returncode == 3, ended.stderr[-2000:]
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: 1 of 2 images failed, the others are done [")
    assert "Traceback" not in ended.stderr
    assert "no result of" in ended.stdout, "each failure is said as it happens"


def test_masks_are_what_they_would_be_without_the_bad_files(folder, infer, tmp_path):
    source, out, _, _ = folder
    assert infer(source / "odd.png", tmp_path / "alone").status == 0
    alone = read_mask(tmp_path / "alone" / "masks" / "odd.png")
    assert 0 < alone.mean() < 255
    assert np.array_equal(alone, read_mask(out / "masks" / "odd.png"))
