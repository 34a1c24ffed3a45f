# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""How many threads, and which layout, are quickest on a CPU: the wall time of a training step and of a prediction.

    python benchmarks/threads.py [--trunk efficientnet_lite0] [--size 256] [--batch 8] [--rounds 9]

With 1, 2, 4, ... threads, in turn in one process, on random images: a step without erasing, as in the recommended
recipe, its convolutions laid out plane by plane or with their channels last (``channels_last``), and the prediction of
a folded network for a tile. Wall time, for processor time does not say how long one waits: it needs a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from steps import make_network, training_step
from timing import machine, print_table, ratio, round_robin, spread

from glas_wsol.inferers.class_score_inferer import predict_with_scores
from glas_wsol.networks import fold_batch_norm


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=256, help="of the square crops, px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tile", type=int, nargs=2, default=(544, 800), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--most", type=int, default=torch.get_num_threads(), help="threads; as many as torch takes")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    drawn = torch.Generator().manual_seed(0)
    image = torch.rand(arguments.batch, 3, arguments.size, arguments.size, generator=drawn)
    batch = {"image": image, "label": torch.arange(arguments.batch) % 2}
    tile = torch.rand(1, 3, *arguments.tile, generator=drawn)
    layouts = {"planes": torch.contiguous_format, "channels last": torch.channels_last}
    networks = {name: make_network(arguments.trunk, "cpu").to(memory_format=layout) for name, layout in layouts.items()}
    folded = fold_batch_norm(make_network(arguments.trunk, "cpu"))

    @torch.inference_mode()
    def predict() -> object:
        return predict_with_scores(folded, tile)

    def with_threads(number: int, run: Callable[[], object]) -> Callable[[], object]:
        def run_so() -> object:
            torch.set_num_threads(number)
            return run()

        return run_so

    whole = f"step, {arguments.size} px, batch {arguments.batch}"
    works = {f"{whole}, {name}": training_step(name, net, batch, 0, None).run for name, net in networks.items()}
    works[f"prediction, {arguments.tile[0]} x {arguments.tile[1]} px, folded"] = predict
    numbers = sorted({min(2**power, arguments.most) for power in range(arguments.most)})
    named = [(name, number) for name in works for number in numbers]
    print(f"{arguments.trunk}; median of {arguments.rounds}; wall time")
    print(machine("cpu"))
    runs = [with_threads(number, works[name]) for name, number in named]
    times = round_robin(runs, arguments.rounds, "cpu", warm_up=2, clock=time.perf_counter)
    alone = {name: taken for (name, number), taken in zip(named, times, strict=True) if number == 1}
    rows = [
        [name, number, spread(taken), f"{ratio(alone[name], taken):.2f}"]
        for (name, number), taken in zip(named, times, strict=True)
    ]
    print_table(["what", "threads", "ms (range)", "times as quick as with one"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
