# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every message is one line: what, where, and how to fix it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from glas_wsol import errors
from glas_wsol.errors import ConfigError, DatalistError, GlasWsolError, count


def test_what_where_and_how_to_fix_it():
    error = ConfigError("passes=-1", Path("train.json"), "give 0 or more")
    assert str(error) == "passes=-1 [train.json]: give 0 or more"
    assert (error.what, error.where, error.fix) == ("passes=-1", "train.json", "give 0 or more")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("a",), "a"), (("a", "b"), "a [b]"), (("a", "", "c"), "a: c"), (("a\nb", "c\nd"), "a b [c d]")],
)
def test_errors_missing_parts_and_line_breaks_leave_no_trace(arguments, said):
    assert str(GlasWsolError(*arguments)) == said


KINDS = [name for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("GlasWsolError", "DatalistError")])
def test_every_failure_is_caught_as_one_kind_and_by_its_own_name(name):
    kind = getattr(errors, name)
    with pytest.raises(GlasWsolError) as caught:
        raise kind("what", "where", "fix")
    assert type(caught.value) is kind
    assert str(caught.value) == "what [where]: fix"


def test_a_datalist_error_counts_and_names_every_fault():
    one = DatalistError("table.csv", ["row 2: no label"])
    assert str(one) == "1 fault in the data: row 2: no label [table.csv]: correct these entries"
    two = DatalistError(Path("d"), ["row 2: no label", "row 3: no\nfile"], "mend them")
    assert str(two) == "2 faults in the data: row 2: no label; row 3: no file [d]: mend them"
    assert two.faults == ("row 2: no label", "row 3: no\nfile")
    assert isinstance(two, GlasWsolError)


def test_the_list_of_names_is_complete():
    kinds = {k for k, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    assert kinds == set(KINDS)


@pytest.mark.parametrize(
    "error", [ConfigError("what", "where", "fix"), DatalistError("table", ["row 2", "row 3"], "fix")]
)
def test_error_from_another_process_comes_whole(error):
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("image",), "2 images"),
        (3, ("class",), "3 classes"),
        (1, ("run was", "runs were"), "1 run was"),
        (2, ("run was", "runs were"), "2 runs were"),
    ],
)
def test_count_is_in_the_number_it_has(number, words, said):
    assert count(number, *words) == said
