# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from glas_wsol.data import folder_datalist, glas_datalist, table_datalist
from glas_wsol.data.spelling import clean, shown, spelling_key, spelt_twice, split_word
from glas_wsol.errors import DatalistError

NFD = unicodedata.normalize("NFD", "é1")
ONE_NAME = [
    ("P1", "p1"),
    ("P1", "P 1"),
    ("P1", "P\u200b1"),
    ("P1", "\ufeffP1"),
    ("P1", "P1\u00ad"),
    ("P1", "P\u20601"),
    ("P1", "P1\ufe0f"),
    ("P1", "P1\u3164"),
    ("P1", "P\uff11"),
    ("P1", "\uff301"),
    ("P1", "\u04201"),
    ("P1", "P01"),
    ("a  b", "a b"),
    ("a\u00a0b", "a b"),
    ("1 2", "1\u2003 2"),
    ("P-1", "P\u20131"),
    ("class_1", "class 1"),
    ("class_1", "Class-1"),
    ("class-1", "class1"),
    ("class__1", "class - 1"),
    ("p-1", "p_1"),
    ("p-01", "P1"),
    ("1-2", "1_2"),
    ("1-2", "1 2"),
    ("non-tumour", "Non tumour"),
    ("hold_out", "holdout"),
    ("P-1", "P\u20111"),
    ("é1", NFD),
    ("straße", "STRASSE"),
    ("7", "7.0"),
    ("7", "007"),
    ("007", "7.00"),
    ("7", "7."),
    ("7", "+7"),
    ("7", "7,0"),
    ("7", "\u0667"),
    ("0", "-0.0"),
    ("100", "1e2"),
    ("TRUE", "True"),
]
TWO_NAMES = [
    ("P1", "P2"),
    ("1 2", "12"),
    ("1_2", "12"),
    ("P1-2", "P12"),
    ("P1-2", "P1-3"),
    ("HER2-", "HER2"),
    ("HER2-", "HER2+"),
    ("p53-/-", "p53"),
    ("a_", "a"),
    ("7", "70"),
    ("7", "7.1"),
    ("1.05", "1.5"),
    ("-1", "1"),
    ("1", "1,000"),
    ("v1.01", "v1.1"),
    ("0", "00x"),
    ("1" * 40, "1" * 39 + "2"),
    ("é1", "e1"),
    ("组织", "组"),
    ("", "0"),
]


@pytest.mark.parametrize(("one", "other"), ONE_NAME)
def test_key_of_one_name_spelt_twice_is_one(one, other):
    assert one != other
    assert spelling_key(one) == spelling_key(other)


@pytest.mark.parametrize(("one", "other"), TWO_NAMES)
def test_key_of_two_names_is_two(one, other):
    assert spelling_key(one) != spelling_key(other)


@pytest.mark.parametrize(
    ("read", "kept"),
    [(" be\u200bnign ", "benign"), (NFD, "é1"), ("a \t b", "a b"), ("\ufeffx", "x"), ("\u200b", ""), ("Ab", "Ab")],
)
def test_clean_keeps_what_is_seen(read, kept):
    assert clean(read) == kept


def test_shown_spells_out_what_is_not_seen():
    assert shown("benign\u200b") == r"'benign\u200b'"
    assert shown(NFD) == r"'e\u03011'"
    assert shown("\u04201") == r"'\u04201'"
    assert shown("a\u00a0b") == r"'a\xa0b'"
    assert shown("été") == "'été'"


def test_spelt_twice_names_both_spellings_and_places_once():
    names = [("A", "line 2"), ("b", "line 3"), ("a", "line 4"), ("a", "line 5"), ("A", "line 6")]
    assert spelt_twice(names, "labels", "class") == ["labels 'A' (line 2) and 'a' (line 4) are one class spelt twice"]


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *((word, "train") for word in ("Train", "TRAINING", "tr\u200bain", "\uff54rain")),
        *((word, "valid") for word in (" val ", "Validation", "DEV", "tuning")),
        *((word, "test") for word in ("Test", "testing\u200b", "hold-out", "HoldOut", "hold\u2011out")),
        *((word, None) for word in ("1", "", "trian", "train2")),
    ],
)
def test_split_word_of_any_spelling(word, split):
    assert split_word(word) == split


# One patient or class spelt twice, wherever it is read


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def refused(read, *arguments) -> str:
    with pytest.raises(DatalistError) as caught:
        read(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("title", ["group", "Patient", "case_id"])
@pytest.mark.parametrize(("one", "other"), [pair for pair in ONE_NAME if not pair[1].startswith("\ufeff")])
@pytest.mark.parametrize("split", [False, True])
def test_table_with_a_patient_spelt_twice_is_refused(tmp_path, one, other, title, split):
    touch(tmp_path, *(f"{n}.png" for n in range(8)))
    cells = [(one, "train")] * 4 + [(other, "test")] * 4
    rows = [f'{n}.png,{"ab"[n // 2 % 2]},"{name}"{"," + home if split else ""}' for n, (name, home) in enumerate(cells)]
    rows.insert(0, f"image,label,{title}{',split' if split else ''}")
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    said = refused(table_datalist, tmp_path / "t.csv")
    assert f"groups {shown(one)} (line 2) and {shown(other)} (line 6) are one patient spelt twice" in said
    assert ("group" in said and "is in test and, on line 2, in train" in said) == split


@pytest.mark.parametrize(("one", "other"), [("benign", "benign\u200b"), ("1", "1.0"), ("True", "TRUE"), ("é1", NFD)])
def test_table_with_a_class_spelt_twice_is_refused(tmp_path, one, other):
    touch(tmp_path, *(f"{n}.png" for n in range(8)))
    rows = [f"{n}.png,{[one, 'rest', other, 'rest'][n % 4]}" for n in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    said = refused(table_datalist, tmp_path / "t.csv")
    assert f"labels {shown(one)} (line 2) and {shown(other)} (line 4) are one class spelt twice" in said


def test_table_whose_labels_have_one_spelling_keeps_it_clean(tmp_path):
    touch(tmp_path, *(f"{n}.png" for n in range(20)))
    labels = ("be\u200bnign", NFD)
    rows = [f"{n}.png,{labels[n % 2]},p\u200b{n // 2}" for n in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label,patient", *rows]), encoding="utf-8")
    found = table_datalist(tmp_path / "t.csv")
    assert found.classes == ("benign", "é1")
    assert {item.group for part in found.splits.values() for item in part} == {f"p{n}" for n in range(10)}


@pytest.mark.parametrize(
    ("one", "other"), [("Benign", "benign"), ("benign", "benign "), ("é1", NFD), ("1", "01"), ("b\u200b", "b")]
)
@pytest.mark.parametrize(("first", "second"), [("", ""), ("train/", "test/"), ("images/train/", "images/train/")])
def test_class_folders_spelt_twice_are_refused(tmp_path, one, other, first, second):
    names = [f"{first}{one}", f"{first}malignant", f"{second}{other}", f"{second}malignant"]
    touch(tmp_path, *(f"{name}/{n}.png" for name in names for n in range(6)))
    if len({path.name for path in tmp_path.rglob("*") if path.is_dir()} & {one, other}) < 2:
        pytest.skip("this file system takes them for one")
    said = refused(folder_datalist, tmp_path)
    assert "are one class spelt twice" in said
    assert shown(one) in said
    assert shown(other) in said


@pytest.mark.parametrize(("one", "other"), [("7", "7.0"), ("007", "7"), ("P1", "p1"), ("P1", "P\u200b1")])
def test_grades_with_a_patient_spelt_twice_are_refused(tmp_path, one, other):
    touch(tmp_path, *(f"train_{n}.bmp" for n in range(1, 21)))
    rows = [f"train_{n}, {(one, other, 'x', 'y')[n // 2 % 4]}, {('Benign', 'MALIGNANT')[n % 2]}" for n in range(1, 21)]
    (tmp_path / "Grade.csv").write_text("\n".join(["name,patient ID, grade (GlaS)", *rows]), encoding="utf-8")
    said = refused(glas_datalist, tmp_path, "patient-0")
    assert f"patients {shown(one)} (Grade.csv line 2) and {shown(other)} (Grade.csv line 3) are one patient" in said


@pytest.mark.parametrize(("one", "other"), [("P1", "\u03a11"), ("case s", "case \u0455"), ("OX", "\u039f\u03a7")])
def test_spelling_key_of_letters_of_one_look_is_the_same(one, other):
    assert one != other
    assert spelling_key(one) == spelling_key(other)
