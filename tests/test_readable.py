# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from glas_wsol.errors import DatalistError, ImageFileError, readable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tissue é 组织 🔬.png", "tissue é 组织 🔬.png"),
        ("\x1b[2J\x1b]0;title\x07.png", "\\x1b[2J\\x1b]0;title\\x07.png"),
        ("good\rbad\x08.png", "good\\rbad\\x08.png"),
        ("gnp.\u202etxt", "gnp.\\u202etxt"),
        ("latin\udce9", "latin\\udce9"),
        ("", ""),
    ],
)
def test_what_would_change_the_terminal_is_spelt_out(text, shown):
    assert readable(text) == shown


def test_no_message_carries_it():
    assert str(ImageFileError("the file is empty", "\x1b[31mred\n.png")) == "the file is empty [\\x1b[31mred .png]"
    assert "\\x1b" in str(DatalistError("a.csv", ["line 2: image '\x1b[2J' is not a file"]))
