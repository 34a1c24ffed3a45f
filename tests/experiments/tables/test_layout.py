# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Markdown that lines up and reads back, LaTeX in which no character has a meaning it should not have."""

from __future__ import annotations

import re

from glas_wsol.experiments.tables.layout import Footnotes, Table, as_latex, as_markdown, bullets

TABLE = Table(
    "Table 1. Methods",
    ("method", "F1+ (%)", "device"),
    (("All-ones ‡", "-(a)", "cpu"), ("a|b_c & 50 % of {x} \\ ~^ #1 $", "-3.5 [-4.0, +1.0]", "x")),
    ("(a) no class", "a note of some words " * 10),
    words=("device",),
)


def test_markdown_lines_up_and_reads_back():
    lines = [line for line in as_markdown(TABLE).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0] == list(TABLE.columns)
    assert [rule.strip("-") for rule in cells[1]] == ["", ":", ""]
    assert [[cell.replace(r"\|", "|") for cell in row] for row in cells[2:]] == [list(row) for row in TABLE.rows]
    assert lines[2].startswith("| All-ones ‡ ")
    assert " -(a) |" in lines[2]


def test_markdown_has_its_title_lead_and_notes_in_short_lines():
    text = as_markdown(Table("T", ("a",), (("1",),), TABLE.notes, lead="First a sentence."))
    assert text.startswith("### T\n\nFirst a sentence.\n\n| a   |\n")
    assert "\n\n* (a) no class\n* a note of some words" in text
    assert max(map(len, text.splitlines())) <= 120
    assert bullets(["Min-max " * 30]).count("Min-max") == 30  # no name is broken at its hyphen


def test_latex_is_escaped_and_whole():
    text = as_latex([("GlaS, split test", TABLE), ("CUB5", TABLE)])
    assert text.count(r"\begin{tabular}{lrl}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    assert r"\caption{Methods: GlaS, split test.}" in text
    assert r"All-ones $^{\ddagger}$ & -(a) & cpu \\" in text
    special = (
        r"a\textbar{}b\_c \& 50 \% of \{x\} \textbackslash \space \textasciitilde \textasciicircum \space \#1 \$ & "
        r"$-$3.5 {[}$-$4.0, +1.0{]} & x \\"
    )
    assert special in text
    # Outside of what the layout itself writes, no bare special character is left.
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert re.findall(r"(?<!\\)[%#_]", body) == []
    assert text.count("{") == text.count("}")
    assert text.startswith(r"% needs \usepackage{booktabs}")


def test_layout_names_keep_hyphens_numbers_get_a_minus():
    text = as_latex([("h", Table("t", ("F1- (%)", "x-2"), (("Min-max", "patient-3"), ("-1.0", "+0.0")), ()))])
    assert r"F1- (\%) & x-2 \\" in text
    assert r"Min-max & patient-3 \\" in text
    assert r"$-$1.0 & +0.0 \\" in text


def test_without_tables_latex_is_a_comment():
    assert as_latex([]) == "% needs \\usepackage{booktabs}\n"


def test_footnotes_are_lettered_once_each():
    notes = Footnotes()
    assert [notes.mark(text) for text in ("x", "y", "x")] == ["(a)", "(b)", "(a)"]
    assert notes.lines() == ("(a) x", "(b) y")
    assert [notes.mark(str(i)) for i in range(30)][-1] == "(af)"
