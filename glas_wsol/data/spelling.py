# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compare spellings of names of classes, patients and splits, and find one name that is spelt in two ways."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from types import MappingProxyType

__all__ = ["MISSING", "SPLIT_WORDS", "clean", "shown", "spelling_key", "spelt_twice", "split_word"]

SPLIT_WORDS: Mapping[str, str] = MappingProxyType(
    {
        word: split
        for split, words in (
            ("train", ("train", "training")),
            ("valid", ("valid", "val", "validation", "validate", "dev", "development", "tune", "tuning")),
            ("test", ("test", "testing", "holdout", "hold-out")),
        )
        for word in words
    }
)
"""The words for a split; see :func:`split_word`."""

MISSING = frozenset(("nan", "na", "n/a", "#n/a", "none", "null", "<na>"))
"""What programs write into a cell that has no value, as keys."""

# Characters without ink that Unicode does not count as format characters: joiners, fillers, variation selectors.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {*map(chr, range(0xFE00, 0xFE10))}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")
_SEPARATOR = re.compile(r"(?<=(?P<left>[^\W_]))[\s_-]+(?=(?P<right>[^\W_]))")
# Cyrillic and Greek letters that look like Latin ones, small or capital
_CYRILLIC = "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0455\u0458"
_GREEK = "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7"
_LOOKALIKES = str.maketrans(_CYRILLIC + _GREEK, "abekmhopctyxisj" + "abezhikmnoptyx")


def _invisible(character: str) -> bool:
    return character in _BLANK or (unicodedata.category(character) in ("Cf", "Cc") and not character.isspace())


def clean(text: str) -> str:
    """A name as it is stored: composed (NFC), without invisible characters, with single blanks and none around it.

    Args:
        text: as read.
    """
    return " ".join("".join(c for c in unicodedata.normalize("NFC", text) if not _invisible(c)).split())


def spelling_key(text: str) -> str:
    """What two spellings of one name have in common.

    Ignored are case, composition and width of characters, invisible characters, kinds of dashes, blanks, letters of one
    look (Latin, Cyrillic, Greek), zeros before a number (``P07``, ``P7``), and numbers of one value (``7``, ``7.0``,
    ``007``). Between letters or digits a blank, ``_`` and ``-`` are one, and none but between two digits: ``class_1``,
    ``Class-1``, ``class 1`` and ``class1`` are one name; ``1-2`` and ``1_2`` are one, and ``12`` is another; so are
    ``HER2-`` and ``HER2``.

    Args:
        text: a name.
    """
    text = unicodedata.normalize("NFKC", clean(text))
    text = "".join(str(unicodedata.decimal(c, c)) for c in text if not _invisible(c))
    text = unicodedata.normalize("NFKC", text.casefold()).translate(_LOOKALIKES)
    text = "".join("-" if unicodedata.category(c) == "Pd" or c == "\u2212" else c for c in text)
    text = re.sub(r"\s+", " ", re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text))
    number = re.sub(r"^([+-]?\d+),(\d\d?)$", r"\1.\2", text)  # a comma before three digits may separate thousands
    if _NUMBER.fullmatch(number):
        value = Decimal(number).normalize(Context(prec=len(number) + 1))
        return str(abs(value) if value.is_zero() else value)
    text = _SEPARATOR.sub(lambda found: " " if found["left"].isdigit() and found["right"].isdigit() else "", text)
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", text)


def shown(text: str) -> str:
    """A name in quotes, with its invisible characters spelt out.

    Args:
        text: a name.
    """
    hidden = any(map(_invisible, text)) or any(ord(c) in _LOOKALIKES for c in text.casefold())
    return ascii(text) if hidden or not unicodedata.is_normalized("NFC", text) else repr(text)


def spelt_twice(names: Iterable[tuple[str, str]], many: str, one: str) -> list[str]:
    """A fault for every name that also occurs in another spelling.

    Args:
        names: names as read, each with its place in words, such as ``"line 3"``.
        many: what they are, such as ``"labels"``.
        one: what they name, such as ``"class"``.
    """
    first: dict[str, tuple[str, str]] = {}
    reported: set[str] = set()
    faults = []
    for name, place in names:
        other, there = first.setdefault(spelling_key(name), (name, place))
        if name != other and name not in reported:
            reported.add(name)
            faults.append(f"{many} {shown(other)} ({there}) and {shown(name)} ({place}) are one {one} spelt twice")
    return faults


def split_word(text: str) -> str | None:
    """``"train"``, ``"valid"`` or ``"test"``, from any of `SPLIT_WORDS` in any spelling; None for another word.

    Args:
        text: as read.
    """
    return SPLIT_WORDS.get(spelling_key(text))
