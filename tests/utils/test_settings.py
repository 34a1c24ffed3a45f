# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a run was made with, compared with an earlier one."""

from __future__ import annotations

import pytest

from glas_wsol.utils.settings import Fingerprint

THEN = Fingerprint({"epochs": 2, "network_def#base": {"class": "A", "options": {"kmax": 0.1}}, "old": 1})


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ({"epochs": 2, "network_def#base": {"class": "A", "options": {"kmax": 0.1, "new": 0}, "newer": False}}, []),
        ({"epochs": 3, "newest": True}, ["epochs was 2, is 3"]),
        ({"network_def#base": {"class": "B"}}, ["network_def#base was"]),
        ({"network_def#base": {"class": "A", "options": {"kmax": 0.2}}}, ["network_def#base was"]),
    ],
)
def test_changes_of_what_both_know_leaves_newer_settings_out(now, changed):
    found = THEN.changes(now, known=True)
    assert len(found) == len(changed)
    assert all(said.startswith(start) for said, start in zip(found, changed, strict=True))


def test_changes_counts_an_absent_setting_as_none():
    assert THEN.changes({**THEN, "old": None}) == ["old was 1, is None"]
    assert THEN.changes({key: value for key, value in THEN.items() if key != "old"}) == ["old was 1, is None"]
    assert THEN.changes({**THEN, "network_def#base": {**THEN["network_def#base"], "newer": False}}) != []


def test_changes_names_a_setting_that_a_component_repeats_once():
    then = Fingerprint({"passes": 0, "train#trainer#passes": 0})
    assert then.changes({"passes": 4, "train#trainer#passes": 4}) == ["passes was 0, is 4"]
