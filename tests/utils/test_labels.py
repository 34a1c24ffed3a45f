# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Labels of one class and of several, and the words for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.utils.labels import is_several, multi_hot, present_classes


def test_the_two_words():
    assert not is_several("one", "network")
    assert is_several("several", "network")
    with pytest.raises(ConfigError, match=r"classes_per_image='many'.*one or several"):
        is_several("many", "network")


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
