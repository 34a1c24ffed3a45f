# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time of a training step: the erasing recursion beside plain classification and naive variants.

    python benchmarks/step.py [--device cpu] [--trunk resnet18] [--size 480] [--batch 4] [--rounds 7]

All variants run in turn in one process; trust is controlled, so that they do the same work, except in the row that
says otherwise. ``forwards`` are forwards of M per sample, as counted; the floor is ``n + 2 s^2``, what the step should
cost in plain classification steps, and the share of the floor is that divided by the ratio. The peak is of memory
beside weights, gradients and images, every pass run: on a CPU counted (memory.py), on a GPU as the allocator says,
where bfloat16 and ``torch.compile`` are measured too.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

import torch
from memory import peak as counted_peak
from memory import without_values
from steps import DECAYING, Step, make_network, plain_step, training_step
from timing import Goal, compared, machine, print_goals, print_table, ratio, round_robin, spread

from glas_wsol.networks import to_device


def variants(trunk: str, size: int, batch_size: int, device: str) -> list[Step]:
    """All steps to measure; the first is plain classification with frozen batch normalisation."""
    drawn = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(batch_size, 3, size, size, generator=drawn).to(device),
        "label": torch.randint(2, (batch_size,), generator=drawn).to(device),
    }
    frozen = make_network(trunk, device)
    on_batch = make_network(trunk, device, "batch")
    always, decaying = (1.0,), DECAYING
    steps = [
        plain_step("plain classification, frozen", frozen, batch),
        plain_step("plain classification, batch statistics", on_batch, batch),
        training_step("no erasing", frozen, batch, 0, None),
        training_step("5 passes, all trusted", frozen, batch, 5, always),
        training_step("5 passes, all trusted, batch statistics", on_batch, batch, 5, always),
        training_step("5 passes, trust decays, full batch", frozen, batch, 5, decaying, alive_only=False),
        training_step("5 passes, trust decays, alive only", frozen, batch, 5, decaying),
        training_step("5 passes, the network's own trust", frozen, batch, 5, None),
        training_step("naive (one graph, two C), all trusted", frozen, batch, 5, always, naive=True, alive_only=False),
        training_step(
            "naive (one graph, two C), trust decays", frozen, batch, 5, decaying, naive=True, alive_only=False
        ),
    ]
    if device == "cuda":
        last = make_network(trunk, device).to(memory_format=torch.channels_last)
        steps += [
            plain_step("plain classification, bf16, channels last", last, batch, amp=True),
            training_step("5 passes, all trusted, bf16, channels last", last, batch, 5, always, amp=True),
            training_step("5 passes, trust decays, bf16, channels last", last, batch, 5, decaying, amp=True),
        ]
        compiled = to_device(make_network(trunk, device), device, channels_last=True, compiler="inductor")
        steps.append(training_step("the same compiled, all trusted", compiled, batch, 5, always, amp=True))
    return steps


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--size", type=int, default=480, help="of the square images, px; the paper's crops")
    parser.add_argument("--batch", type=int, default=4, help="a multiple of 4")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", nargs="*", default=[""], help="only those with one of these texts, and the first")
    arguments = parser.parse_args(argv)
    if arguments.batch % 4:
        parser.error("--batch must be a multiple of 4: trust decays by quarters")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    plain, *others = variants(arguments.trunk, arguments.size, arguments.batch, arguments.device)
    steps = [plain, *(one for one in others if any(text in one.name for text in arguments.rows))]
    times = round_robin([step.run for step in steps], arguments.rounds, arguments.device, warm_up=2)
    if arguments.device == "cuda":
        peaks = [_peak_of_gpu(step) for step in steps]
    else:
        peaks = _counted_peaks(steps, arguments.trunk, arguments.size, arguments.batch)
    rows = []
    for step, taken, peak in zip(steps, times, peaks, strict=True):
        found = ratio(taken, times[0])
        row = [step.name, f"{step.forwards():.2f}", f"{step.model:.2f}", spread(taken), f"{found:.2f}"]
        row += [f"{1024 * peak:.1f}", f"{peak / peaks[0]:.3f}", f"{100 * step.model / found:.0f} %"]
        rows.append(row)
    print(f"{arguments.trunk}, {arguments.size} px, batch {arguments.batch}; median of {arguments.rounds}")
    print(machine(arguments.device))
    print_table(_COLUMNS, rows)
    allowed = 1.05 if arguments.device == "cpu" else 1.15
    named = {step.name: number for number, step in enumerate(steps)}
    ours = [name for name in _OURS if name in named]
    goals = [
        compared(f"{name}: time / floor", times[named[name]], times[0], allowed, per=steps[named[name]].model)
        for name in ours
    ]
    if set(_PAIR) <= named.keys():
        alive, full = (times[named[name]] for name in _PAIR)
        goals.append(compared("trust decays: time on alive samples only / on all", alive, full, 0.75))
    if ours:
        most = max(peaks[named[name]] for name in ours)
        goals.append(Goal("largest peak of these / of plain classification", most / peaks[0], 1.05))
    print_goals(goals)
    return 0


_COLUMNS = ("step", "forwards", "floor", "ms (range)", "ratio to plain", "peak MiB", "ratio of peaks", "share of floor")
_PAIR = ("5 passes, trust decays, alive only", "5 passes, trust decays, full batch")
_OURS = (
    *(
        "no erasing",
        "5 passes, all trusted",
        "5 passes, trust decays, full batch",
        "5 passes, trust decays, alive only",
    ),
    "5 passes, the network's own trust",
)


def _counted_peaks(steps: Sequence[Step], trunk: str, size: int, count: int) -> list[float]:
    """GiB beside weights, gradients and images, counted without computing (see memory.py)."""
    found = []
    for step in steps:
        with without_values(trunk, size, count, step.batch_norm) as (network, batch):
            found.append(counted_peak(step.again(network, batch), network, batch))
    return found


def _peak_of_gpu(step: Step) -> float:
    """GiB beside what is there between two steps."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step.run()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


if __name__ == "__main__":
    sys.exit(main())
