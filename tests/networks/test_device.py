# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Layout, compilation, fused steps and mixed precision change how a training step is computed, not what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from glas_wsol.engines import MinMaxEntropyTrainer
from glas_wsol.errors import ConfigError
from glas_wsol.networks import FixedMaskNetwork, fold_batch_norm, to_device
from tests.conftest import tiny_network

CONFIGS = Path(__file__).parents[2] / "bundles" / "glas_minmax_entropy" / "configs"


COMPILED: list[int] = []


@torch._dynamo.register_backend(name="counting")
def counting(graph: torch.fx.GraphModule, example: Any) -> Any:
    """A compiler that compiles nothing, and writes down how many convolutions each graph has."""
    COMPILED.append(sum("conv2d" in str(node.target) for node in graph.graph.nodes))
    return graph.forward


def gradients(**how: Any) -> dict[str, torch.Tensor]:
    """Of one step with erasing, in float64, on images that are not square."""
    network = to_device(tiny_network(batch_norm="frozen", pooling_options={"dropout": 0.0}).double(), "cpu", **how)
    image = torch.rand(3, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = {"image": image, "label": torch.tensor([0, 1, 1])}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    trainer = MinMaxEntropyTrainer("cpu", 1, [batch], network, optimizer, passes=2, erase_from_epoch=0, decollate=False)
    trainer.state.epoch = 1
    trainer.optim_set_to_none = False
    trainer._iteration(trainer, batch)
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("how", [{"channels_last": True}, {"channels_last": True, "compiler": "aot_eager"}], ids=str)
def test_the_gradient_of_a_step_is_the_same(how):
    expected, found = gradients(), gradients(**how)
    assert list(found) == list(expected), "weights keep their names"
    assert any(value.abs().max() > 0 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name].contiguous(), value, rtol=1e-10, atol=1e-13, msg=name)


def test_device_options_lay_out_weights_and_compile_trunk():
    torch._dynamo.reset()  # it remembers the sizes that other tests gave
    COMPILED.clear()
    network = to_device(tiny_network(), torch.device("cpu"), channels_last=True, compiler="counting")
    kernels = [p for p in network.trunk.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 96))
        assert COMPILED == [5, 5], "all stages at once, for the image and for the shrunk one"
        network.trunk.stages_of(torch.rand(2, 3, 64, 96))
    assert COMPILED == [5, 5, 5], "and for a decoder"
    fold_batch_norm(network)  # evaluation of a model that was trained so
    assert network(torch.rand(1, 3, 64, 96)).shape == (1, 3, 64, 96)
    floor = FixedMaskNetwork("all_ones", num_classes=2)
    assert to_device(floor, "cpu", compiler="eager") is floor, "it has no trunk"


def test_a_compiler_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"no compiler 'inductr'.*inductor"):
        to_device(tiny_network(), "cpu", compiler="inductr")


def test_the_settings_reach_the_step(tmp_path):
    """One step of paper.json in mixed precision, fused, channels last: gradients are float32."""
    for number in range(4):
        folder = tmp_path / "tiles" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        tile = np.random.default_rng(number).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(tile).save(folder / f"{number}.png")
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")])
    parser.update({"dataset_dir": str(tmp_path / "tiles"), "output_dir": str(tmp_path / "out"), "device": "cpu"})
    parser.update({"trunk": "resnet18", "weights": "none", "crop_size": 64, "batch_size": 2, "fold": "stratified-0"})
    parser.update({"amp": True, "fused": True, "channels_last": True})
    trainer = parser.get_parsed_content("train#trainer")
    assert trainer.amp_kwargs == {"dtype": torch.bfloat16}
    assert trainer.non_blocking
    assert all(group["fused"] for group in trainer.optimizer.param_groups)
    kernel = next(p for p in trainer.network.trunk.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    seen: list[torch.dtype] = []
    trainer.network.trunk.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    before = kernel.detach().clone()
    trainer.state.epoch = 2
    output = trainer._iteration(trainer, next(iter(trainer.data_loader)))
    assert set(seen) == {torch.bfloat16}
    assert output["loss"].isfinite()
    assert {p.grad.dtype for p in trainer.network.parameters()} == {torch.float32}
    assert not torch.equal(kernel, before)
    parser.update({"amp_dtype": "float16"})
    assert parser.get_parsed_content("train#trainer", reload=True).amp_kwargs == {"dtype": torch.float16}
