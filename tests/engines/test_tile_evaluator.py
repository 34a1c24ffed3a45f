# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the evaluator hands on to post-processing and metrics."""

from __future__ import annotations

import torch
from torch import nn

from glas_wsol.engines import TileEvaluator


def test_tile_evaluator_hands_on_image_label_and_official_box():
    batch = {
        "image": torch.rand(2, 3, 4, 6),
        "label": torch.tensor([1, 0]),
        "box": torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 6.0, 4.0]]),
    }
    evaluator = TileEvaluator(device=torch.device("cpu"), val_data_loader=[batch], network=nn.Identity())
    evaluator.run()
    assert [one["box"].tolist() for one in evaluator.state.output] == batch["box"].tolist()
    assert [int(one["label"]) for one in evaluator.state.output] == [1, 0]
    assert all(
        torch.equal(one["image"], read) for one, read in zip(evaluator.state.output, batch["image"], strict=True)
    )
