# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Everything that is to be known of training on a GPU, in one call of less than nine minutes.

    python benchmarks/gpu.py [--device cuda] [--trunk resnet101] [--size 480] [--batch 8] [--passes 4] [--budget 200]

Steps in bfloat16 beside the naive one in float32; how busy the device is; what waits for it; what CUDA graphs would
bring; then the paper's schedule by paper.json itself on as many images as GlaS has, validation and checkpoints
included, for ``--budget`` seconds, from which the whole is extrapolated; and how much of it is loading. With
``--device cpu`` and small numbers the same runs on a CPU, where its figures mean nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from steps import DECAYING, Step, make_network, plain_step, training_step
from timing import Goal, compared, machine, print_goals, print_table, ratio, round_robin, spread
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "glas_minmax_entropy" / "configs"
EPOCHS, IMAGES, TILE = 400, 85, (522, 775)
"""Of the paper's schedule; images of GlaS, and their usual height and width in px."""


def steps_of(trunk: str, batch: dict[str, Tensor], passes: int) -> list[Step]:
    """Plain classification and ours in bfloat16, and the naive step in float32."""
    device = str(batch["image"].device)
    quick = make_network(trunk, device).to(memory_format=torch.channels_last)
    naive = {"naive": True, "alive_only": False}
    return [
        plain_step("plain classification, bf16", quick, batch, amp=True),
        training_step("ours, all trusted, bf16", quick, batch, passes, (1.0,), amp=True),
        training_step("ours, trust decays, bf16", quick, batch, passes, DECAYING, amp=True),
        training_step(
            "naive (one graph, two C), all trusted, float32",
            make_network(trunk, device),
            batch,
            passes,
            (1.0,),
            **naive,
        ),
    ]


def measure_steps(steps: Sequence[Step], device: str, rounds: int) -> list[Goal]:
    """Time and peak of each."""
    times = round_robin([step.run for step in steps], rounds, device, warm_up=3)
    rows = []
    for step, taken in zip(steps, times, strict=True):
        found = ratio(taken, times[0])
        rows.append(
            [
                step.name,
                f"{step.forwards():.2f}",
                spread(taken),
                f"{found:.2f}",
                f"{found / step.model:.2f}",
                _peak(step, device),
            ]
        )
    print_table(["step", "forwards", "ms (range)", "ratio to plain", "ratio / floor", "peak GiB"], rows)
    return [
        Goal("ours, bf16: ms", 1000 * median(times[1]), 72),
        compared("naive float32 / ours bf16", times[3], times[1], 2, at_least=True),
        compared("ours / floor", times[1], times[0], 1.15, per=steps[1].model),
    ]


def _peak(step: Step, device: str) -> str:
    if device != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    step.run()
    torch.cuda.synchronize()
    return f"{torch.cuda.max_memory_allocated() / 2**30:.2f}"


def busy_share(run: Callable[[], object], device: str, count: int) -> float:
    """Share of the time in which the device computes, by the profiler: a GPU's kernels, or a CPU's operations."""
    run()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    _synchronise(device)
    with torch.profiler.profile(activities=kinds) as profiler:
        start = time.perf_counter()
        for _ in range(count):
            run()
        _synchronise(device)
        seconds = time.perf_counter() - start
    which = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    return sum(getattr(event, which) for event in profiler.key_averages()) / 1e6 / seconds


class Waits(TorchDispatchMode):
    """Counts the operations that must wait for values of a device: sizes and numbers that depend on them."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        waiting = (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default)
        self.count += function in waiting and args[0].device.type == self.device
        return function(*args, **(kwargs or {}))


def waits(run: Callable[[], object], device: str) -> tuple[int, list[str]]:
    """How often one step waits for the device: operations that must, and on a GPU what CUDA says of all.

    On a GPU there should be none: the erasing waits for an event, behind which the backward pass is queued already.
    """
    with Waits(device) as counter:
        run()
    if device != "cuda":
        return counter.count, []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return counter.count, [f"{Path(one.filename).name}:{one.lineno}" for one in said if "synchron" in str(one.message)]


def graphs(trunk: str, batch: dict[str, Tensor], rounds: int) -> None:
    """What a CUDA graph would bring to a plain step without its optimiser, and to one pass of M."""
    device = batch["image"].device.type
    network = make_network(trunk, str(batch["image"].device)).to(memory_format=torch.channels_last).train()
    x = network.normalise(batch["image"])

    def plain() -> None:
        scores = network.localizer.pooling(network.class_maps(x), None)
        F.cross_entropy(scores, batch["label"]).backward()

    def one_pass() -> None:
        localized = network.localize(x)
        F.cross_entropy(localized.logits, batch["label"]).backward()

    rows = []
    for name, work in (("plain classification", plain), ("one pass of M with its mask", one_pass)):

        def eager(work: Callable[[], None] = work) -> None:
            # No cache of cast weights: a graph must cast them each time.
            with torch.autocast(device, torch.bfloat16, cache_enabled=False):
                work()

        runs = [eager]
        try:
            runs += [_captured(eager)] if device == "cuda" else []
        except RuntimeError as error:
            print(f"{name}: no graph can be made of it ({error})")
        times = round_robin(runs, rounds, device, warm_up=2)
        rows.append(
            [
                name,
                spread(times[0]),
                *([spread(times[1]), f"{ratio(times[1], times[0]):.2f}"] if times[1:] else ["-", "-"]),
            ]
        )
    print_table(["forward and backward, bf16", "eager, ms", "as a CUDA graph, ms", "ratio"], rows)


def _captured(run: Callable[[], None]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def schedule(arguments: argparse.Namespace) -> list[Goal]:
    """paper.json on images like those of GlaS, for some seconds: whole epochs, their parts, and loading."""
    height, width = TILE
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.images):
            place = Path(folder, "tiles", "ab"[number % 2])
            place.mkdir(parents=True, exist_ok=True)
            blocks = np.random.default_rng(number).integers(
                0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8
            )
            Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width]).save(place / f"{number}.bmp")
        run = ConfigWorkflow(
            config_file=[str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")],
            logging_file=False,
            workflow_type="train",
            bundle_root=str(CONFIGS.parent),
            dataset_dir=str(Path(folder, "tiles")),
            output_dir=str(Path(folder, "out")),
            device=arguments.device,
            fold="stratified-0",
            weights="none",
            amp=arguments.device == "cuda",
            trunk=arguments.trunk,
            crop_size=arguments.size,
            batch_size=arguments.batch,
            passes=arguments.passes,
            epochs=EPOCHS,
        )
        run.initialize()
        return _run_schedule(run.parser.get_parsed_content("train#trainer"), run.parser, arguments)


def _run_schedule(trainer: Any, parser: Any, arguments: argparse.Namespace) -> list[Goal]:
    begun, ended, validating = [], [], [0.0]
    clock, start = time.perf_counter, time.perf_counter()
    evaluator = parser.get_parsed_content("validate#evaluator")
    evaluator.add_event_handler("STARTED", lambda _: validating.__setitem__(0, validating[0] - clock()))
    evaluator.add_event_handler("COMPLETED", lambda _: validating.__setitem__(0, validating[0] + clock()))
    lasted: list[float] = []  # of the steps of an epoch, with loading

    @trainer.on("EPOCH_STARTED")
    def _(_: Any) -> None:
        if len(begun) == 2:  # the first epoch does not erase, the second warms up
            validating[0] = 0.0
        begun.append(clock())

    @trainer.on("ITERATION_COMPLETED")
    def _(engine: Any) -> None:
        if engine.state.iteration % engine.state.epoch_length == 0:
            _synchronise(arguments.device)
            lasted.append(clock() - begun[-1])

    @trainer.on("EPOCH_STARTED")
    def _(engine: Any) -> None:
        if len(begun) > 3 and clock() - start > arguments.budget:
            ended.append(begun[-1])
            engine.terminate()

    trainer.run()
    counted = max(1, len(begun) - 3)
    epoch = (begun[2 + counted] - begun[2]) / counted
    steps = sum(lasted[2 : 2 + counted]) / counted
    number = len(trainer.data_loader)
    whole = EPOCHS * epoch / 60
    rows = [
        ["steps, with loading", f"{steps:.2f}"],
        ["validation", f"{validating[0] / counted:.2f}"],
        ["checkpoints and the rest", f"{epoch - steps - validating[0] / counted:.2f}"],
        ["epoch", f"{epoch:.2f}"],
    ]
    print(f"{counted} of {EPOCHS} epochs of {number} steps measured, after 2 to warm up")
    print_table(["of an epoch", "s"], rows)
    fixed = next(iter(trainer.data_loader))
    alone = median(round_robin([lambda: trainer._iteration(trainer, fixed)], 2 * number, arguments.device, 1)[0])
    goals = [Goal(f"{EPOCHS * number} steps with validation, extrapolated: minutes", whole, 9)]
    return [*goals, Goal("loading / step: what steps with loading take more", steps / number / alone - 1, 0.03)]


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--trunk", default="resnet101")
    parser.add_argument("--size", type=int, default=480, help="of the square images, px")
    parser.add_argument("--batch", type=int, default=8, help="a multiple of 4")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=IMAGES, help="of the schedule")
    parser.add_argument("--budget", type=float, default=200.0, help="seconds of the schedule")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu tries the script out, with small numbers")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.backends.cudnn.benchmark = True
    print(f"{arguments.trunk}, {arguments.size} px, batch {arguments.batch}, {arguments.passes} passes")
    print(machine(arguments.device))
    drawn = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(arguments.batch, 3, arguments.size, arguments.size, generator=drawn).to(arguments.device),
        "label": torch.randint(2, (arguments.batch,), generator=drawn).to(arguments.device),
    }
    steps = steps_of(arguments.trunk, batch, arguments.passes)
    goals = measure_steps(steps, arguments.device, arguments.rounds)
    goals.append(Goal("busy share of ours", busy_share(steps[1].run, arguments.device, 5), 0.95, at_least=True))
    count, others = waits(steps[1].run, arguments.device)
    print(f"a step of {arguments.passes} passes waits for values {count} times; what CUDA says of it: {others or '-'}")
    goals.append(Goal("waits of a step", float(count), max(0, arguments.passes - 1)))
    del steps
    graphs(arguments.trunk, batch, arguments.rounds)
    print_goals([*goals, *schedule(arguments)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
