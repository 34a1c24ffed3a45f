# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Prints tables of text as Markdown for a terminal and as LaTeX for a paper."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

__all__ = ["Footnotes", "Table", "as_latex", "as_markdown", "bullets", "wrapped"]

# Beyond what pandas escapes: the marks of rows, and brackets, which at the start of a row would be read as an argument
# of the line break before it. A minus sign is no hyphen.
_SIGNS = {"†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "[": "{[}", "]": "{]}", "`": ""}
_SIGNS |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_MINUS = re.compile(r"(?<![\w.+])-(?=\d)")


@dataclass(frozen=True)
class Table:
    """Cells of text under titles, with notes.

    Attributes:
        title: one clause.
        columns: titles; the first column is of words, the others of numbers.
        rows: one cell per column each.
        notes: sentences under the table.
        words: further columns of words, aligned left.
        lead: a sentence above the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    lead: str = ""

    def left(self, column: int) -> bool:
        """Whether a column is aligned left."""
        return column == 0 or self.columns[column] in self.words


@dataclass
class Footnotes:
    """Notes of a table by letter, each once however often it is referred to."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The mark to put after a cell, such as ``(a)``."""
        if text not in self.texts:
            self.texts.append(text)
        return f"({_letters(self.texts.index(text))})"

    def lines(self) -> tuple[str, ...]:
        """Every note after its mark."""
        return tuple(f"({_letters(i)}) {text}" for i, text in enumerate(self.texts))


def _letters(index: int) -> str:
    return ("" if index < 26 else _letters(index // 26 - 1)) + "abcdefghijklmnopqrstuvwxyz"[index % 26]


def as_markdown(table: Table) -> str:
    """A heading, the table with its columns aligned for a terminal, and its notes as a list."""
    cells = [[_piped(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_row(cells[0], widths, table)]
    rules = ["-" * width if table.left(i) else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines += [f"| {' | '.join(rules)} |"]
    lines += [_row(row, widths, table) for row in cells[1:]]
    lead = f"{wrapped(table.lead)}\n\n" if table.lead else ""
    text = f"### {table.title}\n\n{lead}" + "\n".join(lines) + "\n"
    return text + (f"\n{bullets(table.notes)}\n" if table.notes else "")


def wrapped(text: str, start: str = "") -> str:
    """A paragraph in lines of at most 120 characters, but for longer words, indented as far as ``start``."""
    text = " ".join(text.split())
    indent = " " * len(start)
    wrapper = textwrap.TextWrapper(120, start, indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(wrapped(line, "* ") for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int], table: Table) -> str:
    padded = (c.ljust(w) if table.left(i) else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return f"| {' | '.join(padded)} |"


def _piped(cell: str) -> str:
    return cell.replace("|", r"\|")


def as_latex(tables: Iterable[tuple[str, Table]]) -> str:
    r"""Floats ``table*`` with ``booktabs`` rules, caption, and the notes below."""
    parts = [r"% needs \usepackage{booktabs}" + "\n"]
    for heading, table in tables:
        title = re.sub(r"^Table \w+\. ", "", table.title)  # LaTeX numbers its tables itself
        texts = [f"{title}: {heading}." + (f" {table.lead}" if table.lead else ""), *table.notes]
        cells = pd.DataFrame(texts).style.hide(axis="index").hide(axis="columns").format(_latex, escape="latex")
        caption, *notes = (line.removesuffix(r" \\") for line in cells.to_latex().splitlines()[1:-1])
        styler = pd.DataFrame(table.rows, columns=table.columns).style.hide(axis="index")
        styler = styler.format(_cell, escape="latex").format_index(_cell, axis="columns", escape="latex")
        alignment = "".join("l" if table.left(i) else "r" for i in range(len(table.columns)))
        tabular = styler.to_latex(hrules=True, column_format=alignment)
        parts += [r"\begin{table*}[t]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}"]
        parts += [rf"\caption{{{caption}}}", tabular.rstrip()]
        if notes:
            under = r"\\ ".join(notes)
            parts += ["", rf"\parbox{{\linewidth}}{{\smallskip\scriptsize\raggedright {under}}}"]
        parts += [r"\end{table*}" + "\n"]
    return "\n".join(parts).rstrip() + "\n"


def _latex(escaped: str) -> str:
    return "".join(_SIGNS.get(sign, sign) for sign in escaped)


def _cell(escaped: str) -> str:
    return _MINUS.sub("$-$", _latex(escaped))
