# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from glas_wsol.data import GLAS_CLASSES, glas, glas_datalist
from glas_wsol.errors import ConfigError, DatalistError, SplitError

HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
# Validation of fold 0 as the paper lists it.
MALIGNANT = [24, 54, 5, 36, 26, 77, 74, 18, 83, 68]
BENIGN = [38, 72, 65, 51, 12, 63, 2, 52]
TRAIN_BENIGN = [*BENIGN, *[n for n in range(1, 86) if n not in MALIGNANT + BENIGN][:29]]


def write_glas(folder: Path, names: list[str], benign: set[str], header: str = HEADER, masks: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [header]
    for number, name in enumerate(names):
        Image.new("RGB", (3, 2)).save(folder / f"{name}.bmp")
        if masks:
            Image.new("L", (3, 2)).save(folder / f"{name}_anno.bmp")
        grade, old = ("benign", "healthy") if name in benign else ("malignant", "moderately differentiated")
        rows.append(f"{name}, {number // 4}, {grade}, {old}")
    (folder / "Grade.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    train = [f"train_{n}" for n in range(1, 86)]
    test = [f"testA_{n}" for n in range(1, 61)] + [f"testB_{n}" for n in range(1, 21)]
    benign = {f"train_{n}" for n in TRAIN_BENIGN} | set(test[:37])
    return write_glas(tmp_path_factory.mktemp("glas"), test + train, benign)


@pytest.fixture
def small(tmp_path) -> Path:
    names = [f"train_{n}" for n in range(1, 21)]
    return write_glas(tmp_path / "small", names, set(names[::2]))


def test_the_papers_fold(whole):
    datalist = glas_datalist(whole)
    assert datalist.classes == GLAS_CLASSES == ("benign", "malignant")
    assert {split: len(part) for split, part in datalist.splits.items()} == {"train": 67, "valid": 18, "test": 80}
    valid = datalist.splits["valid"]
    assert {item.name for item in valid if item.label == 1} == {f"train_{n}" for n in MALIGNANT}
    assert {item.name for item in valid if item.label == 0} == {f"train_{n}" for n in BENIGN}
    assert Counter(item.label for item in datalist.splits["train"]) == {0: 29, 1: 38}
    assert Counter(item.label for item in datalist.splits["test"]) == {0: 37, 1: 43}


def test_items_are_complete_and_in_the_order_of_their_numbers(whole):
    datalist = glas_datalist(whole, fold="stratified-0")
    test = datalist.select("test", masks=True)
    names = [item["name"] for item in test]
    assert names == [f"testA_{n}" for n in range(1, 61)] + [f"testB_{n}" for n in range(1, 21)]
    first = {"image": str(whole / "testA_1.bmp"), "label": 0, "name": "testA_1"}
    assert test[0] == {**first, "mask": str(whole / "testA_1_anno.bmp"), "group": "0"}
    train = [item["name"] for item in datalist.select("train")]
    assert train == sorted(train, key=lambda name: int(name.removeprefix("train_")))
    assert "group" in datalist.select("train")[0]
    assert "mask" not in datalist.select("train")[0]


def test_patient_folds_separate_patients_and_keep_test_split(whole):
    tests = set()
    valid = []
    for k in range(5):
        splits = glas_datalist(whole, fold=f"patient-{k}").splits
        assert not {item.group for item in splits["train"]} & {item.group for item in splits["valid"]}
        valid += [item.name for item in splits["valid"]]
        tests.add(splits["test"])
    assert sorted(valid) == sorted(f"train_{n}" for n in range(1, 86))
    assert len(tests) == 1


def test_no_test_image_is_no_test_split_although_graded(whole, tmp_path):
    write_glas(tmp_path, [f"train_{n}" for n in range(1, 86)], {f"train_{n}" for n in TRAIN_BENIGN})
    (tmp_path / "Grade.csv").write_text((whole / "Grade.csv").read_text())
    datalist = glas_datalist(tmp_path)
    assert list(datalist.splits) == ["train", "valid"]
    with pytest.raises(SplitError, match="has no 'test' split"):
        datalist.select("test")


def test_only_test_images_can_be_evaluated(tmp_path):
    write_glas(tmp_path, ["testA_1", "testB_1"], {"testA_1"})
    assert list(glas_datalist(tmp_path).splits) == ["test"]


def test_a_part_of_the_test_images_is_a_fault(whole, tmp_path):
    write_glas(tmp_path, [*(f"train_{n}" for n in range(1, 86)), "testB_1"], {f"train_{n}" for n in TRAIN_BENIGN})
    (tmp_path / "Grade.csv").write_text((whole / "Grade.csv").read_text())
    with pytest.raises(DatalistError, match=r"79 faults.*line 2: no image of testA_1;"):
        glas_datalist(tmp_path)


def test_paper_fold_without_its_images_names_folds_that_work(small):
    with pytest.raises(SplitError, match="65 of them are missing, such as train_21") as caught:
        glas_datalist(small)
    assert "patient-0, " in caught.value.fix
    assert "stratified-4" in caught.value.fix
    for fold in caught.value.fix.removeprefix("set 'fold' to one of ").split(", "):
        assert {item.label for item in glas_datalist(small, fold).splits["valid"]} == {0, 1}


def test_more_training_images_than_the_papers_are_not_its_fold(tmp_path):
    write_glas(tmp_path, [f"train_{n}" for n in range(1, 87)], {f"train_{n}" for n in TRAIN_BENIGN})
    with pytest.raises(SplitError, match="train_1 to train_85, and there are 86"):
        glas_datalist(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)",
        "Name ,Patient_ID,Grade,Grade (2015)",
        "image name,patient id,grade,other",
        "file,patient,grade,other",
    ],
)
@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
def test_variants_of_the_grades(small, header, encoding, newline):
    lines = (small / "Grade.csv").read_text().splitlines()[1:]
    with (small / "Grade.csv").open("w", encoding=encoding, newline=newline) as file:
        file.write("\n".join([header, "", *lines, " , , ,", ""]))
    datalist = glas_datalist(small, "patient-0")
    found = {item.name: (item.label, item.group) for part in datalist.splits.values() for item in part}
    assert found["train_1"] == (0, "0")
    assert found["train_20"] == (1, "4")


def test_the_older_grades_are_not_taken_for_the_challenges(small):
    path = small / "Grade.csv"
    cells = [[cell.strip() for cell in line.split(",")] for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([name, old, patient, grade]) for name, patient, grade, old in cells))
    assert len(glas_datalist(small, "patient-0").splits["train"]) == 16


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_suffixes_and_capitals(small, delimiter):
    rows = ["name,patient,grade", *(f"train_{n}.bmp,{n},{'Benign' if n % 2 else 'MALIGNANT'}" for n in range(1, 21))]
    (small / "Grade.csv").write_text("\n".join(rows).replace(",", delimiter))
    assert len(glas_datalist(small, "patient-1").splits["train"]) == 16


def test_a_folder_above_is_enough(small):
    assert glas_datalist(small.parent, "stratified-0") == glas_datalist(small, "stratified-0")


def test_without_masks_and_patients(tmp_path):
    names = [f"train_{n}" for n in range(1, 11)]
    write_glas(tmp_path, names, set(names[:5]), masks=False)
    (tmp_path / "train_3_anno.bmp").touch()
    text = "\n".join(line.split(",")[0] + "," + line.split(",")[2] for line in (tmp_path / "Grade.csv").open())
    (tmp_path / "Grade.csv").write_text(text)
    datalist = glas_datalist(tmp_path, "stratified-0")
    items = [item for part in datalist.splits.values() for item in part]
    assert [item.name for item in items if item.mask] == ["train_3"]
    assert {item.group for item in items} == {None}
    with pytest.raises(SplitError, match=r"no group.*stratified-0"):
        glas_datalist(tmp_path, "patient-0")


def test_every_fault_of_the_folder_at_once(small):
    text = (small / "Grade.csv").read_text().splitlines()
    text[2] = text[2].replace("malignant", "maligant")
    text[3] = text[3].replace("benign", "")
    text += [text[1], "valid_1, 1, benign,", "train_99, 1, benign,", "train_1, 1, benign, a, b"]
    del text[10]
    (small / "Grade.csv").write_text("\n".join(text))
    (small / "train_5.bmp").unlink()
    (small / "train_6.png").touch()
    with pytest.raises(DatalistError) as caught:
        glas_datalist(small, "stratified-0")
    assert sorted(caught.value.faults) == [
        "Grade.csv line 21: train_1 again, after line 2",
        "Grade.csv line 22: 'valid_1' is not train_N, testA_N or testB_N",
        "Grade.csv line 23: no image of train_99",
        "Grade.csv line 24: 5 cells under 4 titles (quote what has commas)",
        "Grade.csv line 3: grade 'maligant' of train_2 is not benign or malignant",
        "Grade.csv line 4: blank grade",
        "Grade.csv line 6: no image of train_5",
        "train_10.bmp has no grade in Grade.csv",
        "train_3.bmp has no grade in Grade.csv",
        "train_6.bmp and train_6.png are the same image twice",
    ]
    assert caught.value.where == str(small)


def test_folders_that_are_not_glas(tmp_path):
    with pytest.raises(DatalistError, match=r"no Grade\.csv"):
        glas_datalist(tmp_path)
    (tmp_path / "Grade.csv").write_text("name,patient ID\ntrain_1,1\n")
    with pytest.raises(DatalistError, match="no column 'grade'"):
        glas_datalist(tmp_path)
    (tmp_path / "Grade.csv").write_text(f"{HEADER}\ntrain_1,1,benign,\n")
    with pytest.raises(DatalistError, match=r"no image named train_1\.bmp"):
        glas_datalist(tmp_path)
    with pytest.raises(ConfigError, match="no fold 'fold0'"):
        glas_datalist(tmp_path, "fold0")


def test_other_files_beside_the_images_are_left_alone(small):
    before = glas_datalist(small, "stratified-0")
    for name in ("._train_1.bmp", "Thumbs.db", "train_1_overlay.bmp", "figure.png"):
        (small / name).touch()
    (small / "train_30.bmp").mkdir()
    assert glas_datalist(small, "stratified-0") == before


def test_only_glas_is_called_glas(whole, small, tmp_path, monkeypatch):
    assert glas_datalist(whole).name == f"{whole.name} (layout of GlaS)"
    assert glas_datalist(small, fold="stratified-0").name == "small (layout of GlaS)"
    datalist = glas_datalist(whole)
    monkeypatch.setattr(glas, "_GRADES_SHA256", [datalist.digest("train"), datalist.digest("valid")])
    assert glas_datalist(whole).name == glas_datalist(whole, fold="patient-1").name == "GlaS"
    grades = (whole / "Grade.csv").read_text()
    other = write_glas(tmp_path / "other", [f"train_{n}" for n in range(1, 86)], set())
    (other / "Grade.csv").write_text(grades.replace("train_1, 20, benign", "train_1, 20, malignant"))
    assert (other / "Grade.csv").read_text() != grades
    assert glas_datalist(other).name == "other (layout of GlaS)"


def test_the_grades_are_those_of_the_committed_runs():
    path = Path(__file__).parents[2] / "benchmarks/results/paper_fold/recommended/seed_0/evaluation.json"
    run = json.loads(path.read_text())
    assert [run["recipe"]["training_images"], run["images_sha256"]] == glas._GRADES_SHA256
