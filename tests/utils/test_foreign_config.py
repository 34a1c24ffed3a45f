# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from glas_wsol.utils.foreign_config import ForeignConfig


@pytest.mark.parametrize(
    ("former", "present"), [("opinions", "class_scores"), ("rest", "undecidable"), ("overlap", "prefetch")]
)
def test_bundles_former_ids_are_read_as_the_present_ones(tmp_path, former, present):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(json.dumps({former: True, "seed": 3}), encoding="utf-8")
    own = {present: False, "seed": 3}
    assert ForeignConfig(tmp_path).settings(own, own, "") == {present: True}
