# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time of a training step: the erasing recursion beside plain classification and naive variants.

    python benchmarks/step.py [--device cpu] [--trunk resnet18] [--size 224] [--batch 4] [--rounds 7]

All variants run in turn in one process; trust is controlled, so that they do the same work, except in the row that
says otherwise. ``forwards`` are forwards of M per sample, as counted; ``model`` is ``n + 2 s^2``, what the step should
cost in plain classification steps. On a GPU also bfloat16 and ``torch.compile``, and the peak of memory.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from statistics import median

import torch
from steps import DECAYING, Step, make_network, plain_step, training_step
from timing import machine, print_table, round_robin, spread


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
        compiled = make_network(trunk, device).to(memory_format=torch.channels_last)
        compiled.trunk.compile()
        steps.append(training_step("the same compiled, all trusted", compiled, batch, 5, always, amp=True))
    return steps


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="of the square images, px")
    parser.add_argument("--batch", type=int, default=4, help="a multiple of 4")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(argv)
    if arguments.batch % 4:
        parser.error("--batch must be a multiple of 4: trust decays by quarters")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    steps = variants(arguments.trunk, arguments.size, arguments.batch, arguments.device)
    times = round_robin([step.run for step in steps], arguments.rounds, arguments.device, warm_up=2)
    peaks = [_peak(step) if arguments.device == "cuda" else None for step in steps]
    plain, rows = times[0], []
    for step, taken, peak in zip(steps, times, peaks, strict=True):
        # Each round's own ratio: neighbours in time are disturbed alike.
        ratio = median(one / other for one, other in zip(taken, plain, strict=True))
        row = [step.name, f"{step.forwards():.2f}", f"{step.model:.2f}", spread(taken), f"{ratio:.2f}"]
        row.append(f"{ratio / step.model:.2f}")
        rows.append(row if peak is None else [*row, f"{peak:.2f}"])
    print(f"{arguments.trunk}, {arguments.size} px, batch {arguments.batch}; median of {arguments.rounds}")
    print(machine(arguments.device))
    columns = ["step", "forwards", "model", "ms (range)", "ratio to plain", "ratio / model"]
    print_table(columns if arguments.device == "cpu" else [*columns, "peak GiB"], rows)
    full, alive = (times[[step.name for step in steps].index(f"5 passes, trust decays, {one}")] for one in _PAIR)
    print(f"alive only / full batch: {median(a / f for a, f in zip(alive, full, strict=True)):.3f}")
    return 0


_PAIR = ("full batch", "alive only")


def _peak(step: Step) -> float:
    torch.cuda.reset_peak_memory_stats()
    step.run()
    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    sys.exit(main())
