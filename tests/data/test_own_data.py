# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every example and every list of words of docs/bring_your_own_data.md holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glas_wsol.data import load_datalist
from glas_wsol.data.rows import COLUMNS
from glas_wsol.data.spelling import SPLIT_WORDS
from glas_wsol.errors import DatalistError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "bring_your_own_data.md").read_text(encoding="utf-8")
TABLES = re.findall(r"```csv\n(.*?)```", DOCUMENT, re.DOTALL)
EXPECTED = [
    {"train": 2, "valid": 2, "test": 1},
    {"train": 4, "valid": 2},
    {"train": 4, "valid": 2},
    {"train": 2, "valid": 2, "test": 1},
    r"groups 'P1' \(line 2\) and 'p1' \(line 4\) are one patient spelt twice",
]


@pytest.mark.parametrize(("text", "expected"), zip(TABLES, EXPECTED, strict=True))
def test_document_tables_give_what_it_says(tmp_path, text, expected):
    for path in re.findall(r"[\w\\/]+\.png", text):
        file = tmp_path / path.replace("\\", "/")
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    if isinstance(expected, str):
        with pytest.raises(DatalistError, match=expected):
            load_datalist(tmp_path / "t.csv")
        return
    assert {split: len(part) for split, part in load_datalist(tmp_path / "t.csv").splits.items()} == expected


def test_document_class_folders_have_their_masks(tmp_path):
    (listing,) = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
    for path in [*listing.split(), "DATA/malignant/4.jpg"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = load_datalist(tmp_path / "DATA")
    items = {item.name: item.mask and item.mask.name for part in found.splits.values() for item in part}
    assert items == {"benign__1": "1_mask.png", "benign__2": None, "malignant__3": "3.png", "malignant__4": None}
    assert found.warnings == ()


@pytest.mark.parametrize("key", COLUMNS)
def test_document_lists_every_title(key):
    (row,) = re.findall(rf"^\| {key} \|(.*?)\|", DOCUMENT, re.MULTILINE)
    assert tuple(re.findall(r"`(.*?)`", row)) == COLUMNS[key]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_document_lists_every_word_for_a_split(split):
    (row,) = re.findall(rf"^\| {split} \|(.*?)\|$", DOCUMENT, re.MULTILINE)
    assert re.findall(r"`(.*?)`", row) == [word for word, meant in SPLIT_WORDS.items() if meant == split]
