# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The network that learns from corrections begins as the first model, and leaves it and its own first stages alone."""

from __future__ import annotations

import pytest
import torch

from glas_wsol.networks import CorrectedNetwork, RefinedNetwork
from glas_wsol.networks.base import undecidable_part


def network(first: str) -> CorrectedNetwork:
    return CorrectedNetwork("efficientnet_lite0", 2, "none", first={"class": first}, seed=1)


def test_begin_after_a_second_stage_is_its_mask():
    mine, x = network("RefinedNetwork"), torch.rand(1, 3, 64, 96)
    first = RefinedNetwork("efficientnet_lite0", 2, "none", seed=5).eval()
    mine.first.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert not torch.equal(mine.eval().undecidable(x), undecidable_part(first)(x))
        mine.begin()
        torch.testing.assert_close(mine.undecidable(x), undecidable_part(first)(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("first", ["RefinedNetwork", "MinMaxEntropyNetwork"])
def test_training_changes_later_stages_and_decoder_only(first):
    mine = network(first).train()
    mine.begin()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    optimizer = torch.optim.SGD(mine.parameter_groups(0.1, 0.1))
    mine.mask_logits(torch.rand(2, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in mine.state_dict().items() if not torch.equal(value, before[name])}
    parts = {".".join(name.split(".")[: 3 if name.startswith("trunk") else 1]) for name in changed}
    assert parts == {"trunk.stages.2", "trunk.stages.3", "trunk.stages.4", "decoder"}
