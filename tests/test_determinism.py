# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What is trained uses no operation of which torch says that its result differs from run to run on CUDA."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from glas_wsol.engines import MinMaxEntropyTrainer
from glas_wsol.losses import MinMaxEntropyLoss
from glas_wsol.networks import (
    AttentionNetwork,
    ClassActivationNetwork,
    MinMaxEntropyNetwork,
    RefinedNetwork,
    SegmentationNetwork,
)
from glas_wsol.networks.trunks import TRUNKS
from glas_wsol.pseudo_labels.seeds import PartialCrossEntropy
from tests.conftest import tiny_trunk

# The list of torch.use_deterministic_algorithms, by the operations that a call comes down to. Those on that list whose
# every index occurs once (index_copy, scatter, index_put without accumulation) add nothing up and are left out.
VARYING = re.compile(
    r"upsample_(linear|bilinear|bicubic|trilinear)\w*_backward|adaptive_(avg|max)_pool\dd_backward|avg_pool3d_backward"
    r"|fractional_max_pool\dd_backward|max_pool3d\w*_backward|max_unpool|(reflection|replication)_pad\dd_backward"
    r"|grid_sampler_\dd_backward|nll_loss2d|ctc_loss_backward|embedding_bag_backward|embedding_dense_backward"
    r"|scatter_add|scatter_reduce|index_add|index_reduce|index_put|put_?$|histc|bincount|kthvalue|median|cumsum"
)


class Recorded(TorchDispatchMode):
    """Names of the operations that torch runs, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if "index_put" not in name or True in args[3:4]:  # one that adds up
            self.names.add(name)
        return func(*args, **(kwargs or {}))


def varying(run: Callable[[], Any]) -> set[str]:
    """The operations of a run whose result differs from run to run on CUDA."""
    with Recorded() as recorded:
        run()
    assert "convolution_backward" in recorded.names or "mul" in recorded.names, "something must have been seen"
    return {name for name in recorded.names if VARYING.search(name)}


def images(size: int = 2) -> Tensor:
    return torch.rand(size, 3, 64, 96, generator=torch.Generator().manual_seed(0))


LEAF = torch.rand(1, 2, 6, 8, requires_grad=True)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda: F.interpolate(LEAF, scale_factor=2, mode="bilinear"), "upsample_bilinear2d_backward"),
        (lambda: F.adaptive_avg_pool2d(LEAF, (4, 3)), "_adaptive_avg_pool2d_backward"),
        (lambda: F.pad(LEAF, (1, 1, 1, 1), mode="reflect"), "reflection_pad2d_backward"),
        (lambda: F.pad(LEAF, (1, 1, 1, 1), mode="replicate"), "replication_pad2d_backward"),
        (lambda: F.grid_sample(LEAF, torch.zeros(1, 3, 3, 2), align_corners=False), "grid_sampler_2d_backward"),
        (lambda: F.cross_entropy(LEAF, torch.zeros(1, 6, 8, dtype=torch.long)), "nll_loss2d_forward"),
        (lambda: LEAF.index_select(3, torch.tensor([0, 0])), "index_add"),
        (lambda: LEAF.gather(3, torch.zeros(1, 2, 6, 1, dtype=torch.long)), "scatter_add"),
        (lambda: LEAF[..., torch.tensor([0, 0])], "index_put"),
        (lambda: LEAF.cumsum(3), "cumsum"),
        (lambda: LEAF.median(3).values, "median"),
    ],
)
def test_varying_sees_what_it_looks_for(run, name):
    def step() -> None:
        run().sum().mul(2.0).backward()

    assert name in {found.removesuffix("_") for found in varying(step)}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_norm": "frozen"},
    {"differentiable_mask": True},
    {"map_stride": 8, "normalisation": "batch"},
    {"multi_label": True},
    *({"pooling": name} for name in ("average", "max", "lse")),
    {"pooling_options": {"alpha": 0.7}},
]


@pytest.mark.filterwarnings("ignore:frozen batch normalisation")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_minmax_step_has_no_varying_operation(options):
    network = MinMaxEntropyNetwork(tiny_trunk(), **options)
    label = torch.eye(2) if options.get("multi_label") else torch.tensor([0, 1])
    loss = MinMaxEntropyLoss(size=0.1, variation=0.1) if options.get("differentiable_mask") else None
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True)
    trainer = MinMaxEntropyTrainer(
        "cpu",
        1,
        [{"image": images(), "label": label}],
        network,
        optimizer,
        loss,
        erase_from_epoch=0,
        decollate=False,
        memory=0.0 if options.get("map_stride") else 0.3,
    )
    assert varying(trainer.run) == set()


@pytest.mark.parametrize("trunk", TRUNKS)
def test_trunk_step_has_no_varying_operation(trunk):
    network = MinMaxEntropyNetwork(trunk, weights="none", map_stride=8).train()
    assert varying(lambda: network.localize(images()).logits.sum().backward()) == set()


def _stage_two() -> Tensor:
    seeds = torch.full((2, 1, 64, 96), 128, dtype=torch.uint8)
    seeds[:, :, :20, :30], seeds[:, :, 40:] = 255, 0
    return PartialCrossEntropy()(RefinedNetwork(tiny_trunk(), decoder_width=8).train().mask_logits(images()), seeds)


OTHERS: dict[str, Callable[[], Tensor]] = {
    "decoder": _stage_two,
    **{
        pooling: lambda pooling=pooling: F.cross_entropy(
            ClassActivationNetwork(tiny_trunk(), pooling=pooling).train().logits(images()), torch.tensor([0, 1])
        )
        for pooling in ("average", "max", "lse", "wildcat")
    },
    "attention": lambda: F.cross_entropy(
        AttentionNetwork(tiny_trunk(), map_stride=8).train().logits(images()), torch.tensor([0, 1])
    ),
    # 70 is padded: of the image, which asks for no gradient
    "unet": lambda: SegmentationNetwork(tiny_trunk()).train().mask_logits(images()[..., :70]).square().mean(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_method_has_no_varying_operation(name):
    assert varying(lambda: OTHERS[name]().backward()) == set()
