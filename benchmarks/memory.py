# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Peak memory of a training step, exactly: every tensor's bytes while it lives, of any size, in seconds.

    python benchmarks/memory.py [--trunk resnet101] [--size 480] [--batch 8] [--passes 0 1 2 4 8]

Nothing is computed: tensors have shapes and no values (PyTorch's FakeTensor), and the bytes of storages are added as
they are made and subtracted as they are freed. Counted is what a step needs beside the weights and the images. All
samples stay trusted, so that every pass is run.
"""

from __future__ import annotations

import argparse
import sys
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from steps import Step, make_network, plain_step, training_step
from timing import Goal, print_goals, print_table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages made inside, while they live.

    Args:
        known: tensors that were there before, whose storages do not count.

    Attributes:
        peak: the largest sum so far.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self._kept = list(known)
        self.live = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and look at what it made."""
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def _all_indices(values: Tensor) -> Tensor:
    """Stands for ``nonzero`` of "who is alive", all of them: a shape without values cannot tell."""
    return torch.empty(len(values), 1)


def peak(step: Step, network: torch.nn.Module, batch: dict[str, Tensor]) -> float:
    """GiB that one step needs at most, beside weights, gradients and images.

    Gradients stand throughout: they do so from the second backward of a step on, whoever frees them between steps.

    Args:
        step: to be run.
        network: that it trains.
        batch: that it trains on.
    """
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [*network.parameters(), *(p.grad for p in network.parameters()), *network.buffers(), *batch.values()]
    with LiveBytes(before) as counter:
        step.run()
    return counter.peak / 2**30


@contextmanager
def without_values(
    trunk: str, size: int, count: int, batch_norm: str = "frozen"
) -> Iterator[tuple[torch.nn.Module, dict[str, Tensor]]]:
    """A network and a mini-batch of which there are shapes only; inside, everyone stays alive.

    Args:
        trunk: its name.
        size: of the square images, px.
        count: of the images.
        batch_norm: of the network.
    """
    everyone = mock.patch.object(Tensor, "nonzero", _all_indices)
    with FakeTensorMode(allow_non_fake_inputs=True), everyone:
        network = make_network(trunk, "cpu", batch_norm)
        image = torch.empty(count, 3, size, size)
        yield network, {"image": image, "label": torch.zeros(count, dtype=torch.int64)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", default="resnet101")
    parser.add_argument("--size", type=int, default=480, help="of the square images, px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--passes", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    rows, ours = [], {}
    with without_values(arguments.trunk, arguments.size, arguments.batch) as (network, batch):
        plain = peak(plain_step("", network, batch), network, batch)
        for passes in tqdm(arguments.passes, "passes"):
            found = [
                peak(training_step("", network, batch, passes, None, naive, alive_only=False), network, batch)
                for naive in (False, True)
            ]
            ours[passes] = found[0]
            rows.append([passes, *(f"{one:.3f}" for one in found), *(f"{one / plain:.3f}" for one in found)])
    print(f"{arguments.trunk}, {arguments.size} px, batch {arguments.batch}, float32; plain: {plain:.3f} GiB")
    print_table(["passes", "ours, GiB", "one graph, GiB", "ours / plain", "one graph / plain"], rows)
    most = max(ours)
    goals = [Goal(f"peak of {most} passes / of plain classification", ours[most] / plain, 1.05)]
    if 1 in ours:
        goals.append(Goal(f"peak of {most} passes / of 1 pass", ours[most] / ours[1], 1.01))
    print_goals(goals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
