# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The benchmarks of speed and memory measure what they say: the same gradients, the forwards counted, bytes by hand."""

from __future__ import annotations

import argparse
import copy
import logging
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
    for name in ("memory", "steps", "timing"):
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
def test_variants_have_equal_gradients_and_counted_forwards(steps, four, shares, counted):
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
    assert "| trust decays: time on alive samples only / on all | at most 0.75 |" in printed
    floor, _, ratio, peak, more, share = (c.strip() for c in rows["5 passes, trust decays, alive only"][3:9])
    assert float(share.removesuffix(" %")) == pytest.approx(100 * float(floor) / float(ratio), abs=1)
    assert float(more) == pytest.approx(float(peak) / float(rows["plain classification, frozen"][6]), rel=0.1)
    naive = float(rows["naive (one graph, two C), all trusted"][7])
    assert naive > 2 * float(rows["5 passes, all trusted"][7]), "one graph holds all passes"
    with pytest.raises(SystemExit):
        step.main(["--batch", "6"])


def test_memory_of_more_passes_is_flat_unless_in_one_graph(steps, capsys):
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
    assert "| mask / torch-cam | at most 1.05 | - | not measured |" in printed
    assert "| mask and class / trunk | at most 1.3125 | " in printed


def test_the_table_of_threads(steps, capsys, monkeypatch):
    threads = script("threads")
    threads.make_network = steps.make_network
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(
        torch, "set_num_threads", lambda number, really=torch.set_num_threads: asked.append(really(number) or number)
    )
    try:
        assert threads.main(["--size", "64", "--batch", "4", "--tile", "64", "96", "--most", "2", "--rounds", "1"]) == 0
    finally:
        torch.set_num_threads(before)
        asked.pop()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines] == [
        (what, number)
        for what in (
            "step, 64 px, batch 4, planes",
            "step, 64 px, batch 4, channels last",
            "prediction, 64 x 96 px, folded",
        )
        for number in "12"
    ]
    assert {line.split("|")[4].strip() for line in lines if line.split("|")[2].strip() == "1"} == {"1.00"}
    assert sorted(set(asked)) == [1, 2]


def _refined(*args, **kwargs):
    from glas_wsol.networks import RefinedNetwork
    from tests.conftest import tiny_trunk

    return RefinedNetwork(tiny_trunk(), *args, decoder_width=8, **kwargs)


def test_goals_are_told_beside_the_figures(steps, capsys):
    import timing

    goal = timing.Goal
    timing.print_goals(
        [goal("a", 1.05, 1.05), goal("b", 1.051, 1.05), goal("c", 1.9, 2, at_least=True), goal("d", None, 1)]
    )
    cells = [line.split("|")[1:5] for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [[cell.strip() for cell in row] for row in cells] == [
        ["a", "at most 1.05", "1.050", "yes"],
        ["b", "at most 1.05", "1.051", "NO"],
        ["c", "at least 2", "1.900", "NO"],
        ["d", "at most 1", "-", "not measured"],
    ]
    assert timing.ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0


def test_a_ratio_comes_with_the_interval_of_its_median(steps, capsys):
    import timing

    # of nine numbers the second and the eighth bound the median with 1 - 2 (1 + 9) / 2^9 = 96 %
    times = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0]
    goal = timing.compared("a", times, [0.5] * 9, 4, per=2.0)
    assert goal == timing.Goal("a", 5.0, 4, interval=(2.0, 8.0))
    assert timing.compared("a", [1.0, 2.0, 3.0], [1.0] * 3, 4).interval is None, "too few rounds"
    timing.print_goals([goal])
    assert "| a | at most 4 | 5.000 (2.000 to 8.000) | NO |" in capsys.readouterr().out


def test_every_other_round_runs_backwards(steps):
    import timing

    called = []
    times = timing.round_robin([lambda one=one: called.append(one) for one in range(3)], 3, "cpu", warm_up=1)
    assert [len(one) for one in times] == [3] * 3
    assert called == [2, 0, 1, 2, 0, 2, 1, 0, 2, 0, 1, 2, 0, 2, 1, 0]
    assert all(one != other for one, other in pairwise(called)), "none runs in its own leavings"


def test_the_script_for_a_gpu_runs_on_a_cpu(steps, capsys, monkeypatch):
    # The script silences logs: set to what it is, it is so again after the test.
    monkeypatch.setattr(logging.root.manager, "disable", logging.root.manager.disable)
    gpu = script("gpu")
    gpu.make_network = steps.make_network
    with pytest.raises(SystemExit):
        gpu.main([])
    monkeypatch.setattr(gpu, "schedule", lambda arguments: [])
    assert gpu.main(["--device", "cpu", "--size", "64", "--batch", "4", "--passes", "3", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "a step of 3 passes waits for values 2 times" in printed, "once after each pass but the last"
    assert "| waits of a step | at most 2 | 2.000 | yes |" in printed
    assert "| one pass of M with its mask | " in printed
    rows = {line.split("|")[1].strip(): line.split("|") for line in printed.splitlines() if line.startswith("| ")}
    counted = {name: rows[f"ours, {name}, bf16"][2].strip() for name in ("all trusted", "trust decays")}
    assert counted == {"all trusted": "3.00", "trust decays": "2.75"}


def test_the_schedule_for_a_gpu_runs_on_a_cpu(steps, capsys, monkeypatch):
    gpu = script("gpu")
    monkeypatch.setattr(gpu, "TILE", (70, 90))
    names = argparse.Namespace(device="cpu", trunk="resnet18", size=64, batch=4, passes=2, images=10, budget=0.0)
    whole, loading = gpu.schedule(names)
    printed = capsys.readouterr().out
    assert "1 of 400 epochs of 2 steps measured, after 2 to warm up" in printed
    table = printed[printed.index("| of an epoch |") :].splitlines()[2:6]
    parts = [float(line.split("|")[2]) for line in table]
    assert parts[3] == pytest.approx(sum(parts[:3]), abs=0.03)
    assert min(parts) >= 0
    assert whole.found == pytest.approx(400 * parts[3] / 60, abs=400 * 0.0051 / 60), "printed to two decimals"
    assert loading.limit == 0.03


@pytest.mark.slow
def test_the_share_of_loading(steps, capsys):
    arguments = [
        "--images",
        "4",
        "--tile",
        "70",
        "97",
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
