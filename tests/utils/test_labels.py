# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Labels of one class and of several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.utils.labels import check_multi_label, multi_hot, present_classes


def test_multi_label_is_a_truth_value_and_no_text():
    assert not check_multi_label(False, "network")
    assert check_multi_label(True, "network")
    for wrong in ("several", "false", 1, None):
        with pytest.raises(ConfigError, match="give true or false"):
            check_multi_label(wrong, "network")


def test_a_multi_hot_label_says_which_classes_are_there():
    label = multi_hot((2, 0), 4)
    assert label.dtype == np.float32
    assert label.tolist() == [1, 0, 1, 0]
    assert present_classes(label) == (0, 2)


@pytest.mark.parametrize(
    "label", [2, np.int64(2), torch.tensor(2), torch.tensor([2]), [0, 0, 1], torch.tensor([0.0, 0, 1])]
)
def test_every_kind_of_label_of_one_class(label):
    assert present_classes(label) == (2,)


def test_no_class_is_there():
    assert present_classes(torch.zeros(3)) == ()
