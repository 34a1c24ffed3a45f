# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Texts of strangers, in a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["readable"]

_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def readable(text: str) -> str:
    r"""A text of a stranger as it may be shown in a terminal.

    What would move the cursor, colour the screen, or turn the order of letters round is spelt out: ``\x1b``.

    Args:
        text: a file's name, say.
    """
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNS else c for c in text)
