# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A patient, or the same bytes, on both sides: a warning that names both, wherever data are read."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol import doctor
from glas_wsol.__main__ import main
from glas_wsol.bundle import resolve_dataset
from glas_wsol.bundle.run_data import run_datalist
from glas_wsol.data import Datalist, Item, leaks, load_datalist


def tile(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (5, 7, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def glas(tmp_path) -> Path:
    rows = ["name,patient ID,grade (GlaS)"]
    names = [*(f"train_{n}" for n in range(1, 21)), "testA_1", "testA_2", "testB_1"]
    for number, name in enumerate(names):
        tile(tmp_path / "glas" / f"{name}.bmp", number)
        patient = {"testA_1": 3, "testA_2": 70, "testB_1": 5}.get(name, number // 2)
        rows.append(f"{name},{patient},{'benign' if number % 4 < 2 else 'malignant'}")
    (tmp_path / "glas" / "Grade.csv").write_text("\n".join(rows))
    return tmp_path / "glas"


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, split in enumerate(["train", "train", "valid", "test"]):
        for place, name in enumerate(["benign", "malignant"]):
            tile(tmp_path / "own" / split / name / f"{number}.bmp", 10 * number + place)
    return tmp_path / "own"


def test_glas_patients_in_train_and_test_are_warned_of(glas):
    said = [one for one in load_datalist(glas, "patient-0").warnings if "and test" in one]
    found = load_datalist(glas, "patient-0")
    homes = {split: {item.group for item in items} for split, items in found.splits.items()}
    expected = [split for split in ("train", "valid") if homes[split] & {"3", "5"}]
    assert [f"both {split} and test" in one for split, one in zip(expected, said, strict=True)] == [True] * len(said)
    assert "testA_1" in said[0] or "testB_1" in said[0]
    assert "figures of test are too good" in said[0]


def test_glas_without_shared_patients_has_no_warning(glas):
    text = (glas / "Grade.csv").read_text().replace("testA_1,3", "testA_1,71").replace("testB_1,5", "testB_1,72")
    (glas / "Grade.csv").write_text(text)
    assert load_datalist(glas, "patient-0").warnings == ()


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "valid"), ("valid", "test")])
def test_bytes_in_two_splits_are_warned_of(folder, one, other):
    number = {"train": 1, "valid": 2, "test": 3}
    source, copy = (folder / split / "benign" / f"{number[split]}.bmp" for split in (one, other))
    shutil.copy(source, copy)
    (said,) = load_datalist(folder).warnings
    assert f"{one}/benign/{number[one]}.bmp (in {one}) and {other}/benign/{number[other]}.bmp (in {other})" in said
    assert "the same image, byte for byte, in two splits" in said


def test_bytes_under_two_classes_are_warned_of(tmp_path):
    for number in range(20):
        tile(tmp_path / "benign" / f"{number}.bmp", number)
        tile(tmp_path / "malignant" / f"{number}.bmp", 50 + number)
    shutil.copy(tmp_path / "benign" / "3.bmp", tmp_path / "malignant" / "8.bmp")
    (said,) = [one for one in load_datalist(tmp_path).warnings if "classes" in one]
    assert said.startswith("benign/3.bmp (benign) and malignant/8.bmp (malignant) are the same image, byte for byte, ")


def test_bytes_are_warned_of_in_tables_with_how_many(tmp_path):
    rows = ["image,label,split"]
    for number, split in enumerate(["train"] * 4 + ["valid"] * 2 + ["test"] * 4):
        tile(tmp_path / f"{number}.png", number % 4)
        rows.append(f"{number}.png,{'ab'[number % 2]},{split}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    (said,) = load_datalist(tmp_path / "own.csv").warnings
    assert said.startswith("0.png (in train) and 4.png (in valid) are")
    assert "(and 3 more such pairs)" in said


def test_every_command_warns_of_the_same(folder, capsys, caplog):
    shutil.copy(folder / "train" / "benign" / "0.bmp", folder / "test" / "malignant" / "3.bmp")
    warnings = load_datalist(folder).warnings
    assert len(warnings) == 2, "of the splits, and of the classes"
    assert main(["data", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert [one for one in warnings if f"warning: {one}" not in printed] == []
    assert [one.what for one in doctor.check_data(folder) if one.status == "warning"] == [*warnings]
    caplog.clear()
    run_datalist(partial(resolve_dataset, dataset_dir=str(folder), phantom_dir="", kind="tissue"))  # as every run does
    assert [one for one in warnings if one not in caplog.text] == []


def test_only_files_that_are_alike_are_read_whole(tmp_path, monkeypatch):
    read: list[str] = []
    for name, content in {"a": b"x" * 9, "b": b"y" * 9, "c": b"zz", "d": b"x" * 9, "e": b"", "f": b""}.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(leaks, "sha256_of", lambda path: read.append(path.name) or "same")
    items = [Item(tmp_path / name, 0, name) for name in "abcdef"]
    both = {"train": tuple(items[:3]), "valid": (*items[3:], Item(tmp_path / "gone", 0, "gone"))}
    (said,) = leaks.leaks(Datalist("own", ("one",), both, str(tmp_path)))
    assert said.startswith("a (in train) and d (in valid) are the same image")
    assert read == ["a", "d"]
