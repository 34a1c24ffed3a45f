# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv

import pytest

from glas_wsol.data.rows import read_rows
from glas_wsol.utils.csv_files import escape_cell, read_table, unescape_cell, write_csv

EXECUTED = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "-",
    "=",
    "\uff1d1",
    "\uff20x",
    "-inf",
    "+nan",
    "-1e",
]
SHOWN = ["", "a", "a=b", "-1", "+3.5", "-2e-05", "é", "'", "'a", "''", " =1", "1-2", "/data/=x.png", "٣"]


@pytest.mark.parametrize("text", EXECUTED)
def test_csv_cell_a_spreadsheet_would_execute_gets_apostrophe(text):
    assert escape_cell(text) == "'" + text


@pytest.mark.parametrize("text", SHOWN)
def test_anything_else_is_left_as_it_is(text):
    assert escape_cell(text) == text


def test_numbers_are_not_texts():
    assert escape_cell(-0.5) == -0.5
    assert escape_cell(None) is None


@pytest.mark.parametrize("text", [*EXECUTED, *SHOWN, "'=1", "''=1", "'-", "'\tx"])
def test_every_text_comes_back(text):
    assert unescape_cell(escape_cell(text)) == text


def test_two_texts_are_never_written_alike():
    texts = [f"{marks}{text}" for marks in ("", "'", "''") for text in (*EXECUTED, *SHOWN)]
    assert len({escape_cell(text) for text in texts}) == len(set(texts))


def test_a_table_is_read_back_and_no_cell_of_it_is_executed(tmp_path):
    rows = [{"path": text, "=name": text, "share": -0.5} for text in EXECUTED]
    write_csv(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n")] == ["-0.5"] * len(rows)
    columns, found = read_table(tmp_path / "a.csv")
    assert columns == ["path", "=name", "share"]
    assert found == [{**row, "share": "-0.5"} for row in rows]


def test_a_table_without_rows_has_its_columns(tmp_path):
    write_csv(tmp_path / "a.csv", [], columns=("image", "what"))
    assert read_table(tmp_path / "a.csv") == (["image", "what"], [])
    (tmp_path / "a.csv").write_text("")
    assert read_table(tmp_path / "a.csv") == ([], [])


def test_a_datalist_takes_escaped_and_plain_cells(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\n'=x.png,'-\n=y.png,+\n")
    faults: list[str] = []
    rows = read_rows(tmp_path / "a.csv", ("image", "label"), faults)
    assert [(row["image"], row["label"]) for row in rows] == [("=x.png", "-"), ("=y.png", "+")]
    assert faults == []
