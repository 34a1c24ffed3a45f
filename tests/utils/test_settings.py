# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a run was made with, compared with an earlier one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, RandSpatialCropd

from glas_wsol.transforms import RandColorJitterd, RandHEStainJitterd, RandIsotropicAffined, TileReader
from glas_wsol.utils.settings import Fingerprint, described

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


def augmentation(brightness: float = 0.5, size: int = 8) -> dict[str, object]:
    steps = [
        RandSpatialCropd("image", (size, 2 * size), random_size=False),
        RandColorJitterd("image", brightness=brightness),
        RandHEStainJitterd("image"),
        RandIsotropicAffined("image"),
    ]
    read = LoadImaged("image", reader=TileReader, dtype=np.uint8)
    return {"read": read, "augmentation": Compose(steps), "train": {"preprocessing": Compose([read, Compose(steps)])}}


def test_described_names_are_those_that_are_typed():
    then = described(augmentation())
    assert then.changes(described(augmentation(0.2))) == ["augmentation#transforms#1#brightness was 0.5, is 0.2"]
    changed = then.changes(described(augmentation(size=9)))
    assert changed == ["augmentation#transforms#2#roi_size was [8, 16], is [9, 18]".replace("#2#", "#0#")]
    other = {**augmentation(), "read": LoadImaged("image", reader=TileReader, dtype=np.float32)}
    assert then.changes(described(other)) == ["read#dtype was 'uint8', is 'float32'"]
    fewer = augmentation()
    fewer["augmentation"] = Compose(fewer["augmentation"].transforms[:3])
    assert "augmentation#transforms#3 was 'RandIsotropicAffined', is None" in then.changes(described(fewer))


def test_described_components_are_the_same_after_use():
    made = augmentation()
    before = described(made)
    for _ in range(3):
        made["augmentation"]({"image": torch.rand(3, 40, 50)})
    assert before.changes(described(made)) == []
    assert json.loads(json.dumps(before)) == before
