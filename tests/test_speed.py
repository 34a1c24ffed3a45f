# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The benchmarks of speed and memory measure what they say: the same gradients, the forwards counted, bytes by hand."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from types import ModuleType

import pytest
import torch

from tests.conftest import tiny_network
from tests.test_benchmarks import ROOT, script


@pytest.fixture
def steps(monkeypatch) -> ModuleType:
    """The module of steps, its networks tiny."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("steps", "timing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import steps

    def small(trunk, device, batch_norm="frozen", dtype=torch.float32):
        del trunk, device
        network = tiny_network(batch_norm=batch_norm, pooling_options={"dropout": 0.0})
        return network if dtype == torch.float32 else network.to(dtype)  # tensors without values cannot be moved

    monkeypatch.setattr(steps, "make_network", small)
    return steps


@pytest.fixture
def four() -> dict[str, torch.Tensor]:
    """Four non-square images."""
    image = torch.rand(4, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return {"image": image, "label": torch.tensor([0, 1, 1, 0])}


def gradients(steps: ModuleType, batch, shares, passes=5, **options) -> tuple[list[torch.Tensor], float]:
    network = steps.make_network("tiny", "cpu", dtype=torch.float64)
    before = copy.deepcopy(network.state_dict())
    step = steps.training_step("", network, batch, passes, shares, **options)
    step.run()
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items()), "it learnt"
    return [p.grad for p in network.parameters()], step.forwards()


@pytest.mark.parametrize(("shares", "counted"), [((1.0,), 5.0), ((1.0, 0.75, 0.5, 0.25), 3.5), ((0.5, 0.0), 1.5)])
def test_all_variants_have_one_gradient_and_their_forwards_are_counted(steps, four, shares, counted):
    naive, _ = gradients(steps, four, shares, naive=True, alive_only=False)
    full, whole = gradients(steps, four, shares, alive_only=False)
    alive, part = gradients(steps, four, shares)
    assert part == counted
    assert whole == (5.0 if shares[-1] else 2.0)
    for one, other, reference in zip(alive, full, naive, strict=True):
        torch.testing.assert_close(other, reference, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(one, reference, rtol=1e-12, atol=1e-14)


def test_the_network_s_own_trust_is_left_alone(steps, four):
    _, forwards = gradients(steps, four, None, passes=3)
    assert 1.0 <= forwards <= 3.0


def test_the_table_of_steps(steps, capsys):
    step = script("step")
    step.make_network = steps.make_network
    assert step.main(["--size", "64", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|") for line in printed.splitlines() if line.startswith("| ")}
    assert rows["5 passes, all trusted"][2:4] == [" 5.00 ", " 5.50 "]
    assert rows["5 passes, trust decays, alive only"][2:4] == [" 3.50 ", " 4.00 "]
    assert rows["5 passes, trust decays, full batch"][2:4] == [" 5.00 ", " 5.50 "]
    assert rows["no erasing"][2:4] == [" 1.00 ", " 1.50 "]
    assert "alive only / full batch: " in printed
    with pytest.raises(SystemExit):
        step.main(["--batch", "6"])


def test_memory_is_flat_in_the_number_of_passes_and_that_of_one_graph_is_not(steps, capsys):
    memory = script("memory")
    memory.make_network = steps.make_network
    assert memory.main(["--size", "96", "--batch", "4", "--passes", "1", "2", "4", "8"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:3] in ("| 1", "| 2", "| 4", "| 8")]
    ratios = [[float(cell) for cell in line.strip("|").split("|")[3:]] for line in lines]
    assert len(ratios) == 4
    assert ratios[3][0] < 1.1 * ratios[1][0], "hardly more with 8 passes than with 2"
    growth = [later[1] - earlier[1] for earlier, later in pairwise(ratios)]
    assert growth[2] == pytest.approx(2 * growth[1], rel=0.05), "one graph grows by the same with every pass"
    assert growth[1] > 0.3


def test_bytes_are_counted_while_they_live(steps):
    memory = script("memory")
    known = torch.zeros(1000)
    with memory.LiveBytes([known]) as counter:
        first = torch.ones(256)  # 1024 bytes
        known.add_(1)  # was there before
        view = first.view(16, 16)
        second = first * 2
        assert counter.live == 2048
        del second
        assert counter.live == 1024
        del first
        assert counter.live == 1024, "the view keeps the storage"
        del view
        assert counter.live == 0
        assert counter.peak == 2048


def test_the_table_of_predictions(steps, capsys):
    infer = script("infer")
    infer.make_network = steps.make_network
    infer.torch_cam = infer.grad_cam = lambda model, x: None
    infer.RefinedNetwork = lambda trunk, *args, **kwargs: _refined(*args, **kwargs)
    assert infer.main(["--size", "64", "96", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| trunk | " in printed
    assert "| refined mask and class, folded | " in printed
    assert "| torch-cam, Grad-CAM | not installed | not installed | not installed |" in printed


def _refined(*args, **kwargs):
    from glas_wsol.networks import RefinedNetwork
    from tests.conftest import tiny_trunk

    return RefinedNetwork(tiny_trunk(), *args, decoder_width=8, **kwargs)


@pytest.mark.slow
def test_the_share_of_loading(steps, capsys):
    arguments = [
        "--images",
        "4",
        "--rounds",
        "1",
        "--set",
        "trunk=resnet18",
        "weights=none",
        "crop_size=64",
        "batch_size=2",
    ]
    assert script("data").main(arguments) == 0
    assert "loading / step: " in capsys.readouterr().out
