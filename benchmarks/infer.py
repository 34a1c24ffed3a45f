# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time of a prediction: masks with and without the class, beside the trunk alone and beside Grad-CAM libraries.

    python benchmarks/infer.py [--device cpu] [--trunk resnet18] [--size 544 800] [--batch 1] [--rounds 40]

All run in turn in one process, on the same trunk and the same image. torch-cam and grad-cam are measured where
they are installed (``pip install --no-deps torchcam grad-cam``); the second needs torchvision only for pictures, and
is given an empty one if there is none. Their model is the same trunk and head, their layer the trunk's last.
"""

from __future__ import annotations

import argparse
import sys
import types
import warnings
from collections.abc import Callable, Sequence

import torch
from steps import make_network
from timing import Goal, compared, machine, print_goals, print_table, ratio, round_robin, spread
from torch import Tensor, nn

from glas_wsol.inferers.class_score_inferer import predict_with_scores
from glas_wsol.networks import RefinedNetwork, fold_batch_norm

Run = Callable[[], object]

_TORCHVISION = {  # what grad-cam imports of it, and does not use here
    "torchvision": [],
    "torchvision.transforms": ["Compose", "Normalize", "ToTensor"],
    "torchvision.transforms.functional": ["resize", "to_pil_image"],
}


class Scores(nn.Module):
    """The trunk and the localizer's head as a plain classification network: what the other libraries explain."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, H, W]``, normalised, to ``[B, c]``."""
        return self.head([self.trunk(x)])


def torch_cam(model: Scores, x: Tensor) -> Run | None:
    """torch-cam's Grad-CAM; None where it is not installed."""
    try:
        from torchcam.methods import GradCAM
    except ImportError:
        return None

    def run() -> object:
        with GradCAM(model, target_layer=model.trunk.stages[-1]) as cam:
            scores = model(x)
            return cam(scores[0].argmax().item(), scores)

    return run


def grad_cam(model: Scores, x: Tensor) -> Run | None:
    """pytorch-grad-cam's Grad-CAM; None where it is not installed."""
    try:
        import torchvision  # noqa: F401 - is it there
    except ImportError:
        for name, members in _TORCHVISION.items():
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__dict__.update(dict.fromkeys(members), __path__=[])
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError:
        return None
    return lambda: GradCAM(model=model, target_layers=[model.trunk.stages[-1]])(input_tensor=x, targets=None)


_FOLDED = "trunk, folded, channels last"


def runs(trunk: str, size: Sequence[int], batch: int, device: str) -> dict[str, Run | None]:
    """What is measured, by name; the first is the trunk's forward."""
    network = make_network(trunk, device).eval()
    folded = fold_batch_norm(make_network(trunk, device))
    first = make_network(trunk, device)
    refined = RefinedNetwork(trunk, 2, "none", base=first.settings(), seed=0).to(device).eval()
    quick = fold_batch_norm(RefinedNetwork(trunk, 2, "none", base=first.settings(), seed=0).to(device))
    image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    x = network.normalise(image)
    laid_out = x.contiguous(memory_format=torch.channels_last)
    model = Scores(network.trunk, network.localizer)

    def asked(of: nn.Module, what: str) -> Run:
        @torch.inference_mode()
        def run() -> object:
            return predict_with_scores(of, image, what)

        return run

    def plain(of: nn.Module, given: Tensor) -> Run:
        @torch.inference_mode()
        def run() -> object:
            return of(given)

        return run

    return {
        "trunk": plain(network.trunk, x),
        _FOLDED: plain(folded.trunk, laid_out),
        "mask": asked(network, "localizer"),
        "mask and class": asked(network, "class"),
        "mask, class, and what C says of the rest": asked(network, "all"),
        "mask, folded": asked(folded, "localizer"),
        "mask and class, folded": asked(folded, "class"),
        "mask, class, and what C says of the rest, folded": asked(folded, "all"),
        "refined mask": asked(refined, "localizer"),
        "refined mask and class": asked(refined, "class"),
        "refined mask, folded": asked(quick, "localizer"),
        "refined mask and class, folded": asked(quick, "class"),
        "refined mask, class, and what C says of both parts, folded": asked(quick, "all"),
        "torch-cam, Grad-CAM": torch_cam(model, x),
        "grad-cam, Grad-CAM": grad_cam(model, x),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--size", type=int, nargs=2, default=(544, 800), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    every = runs(arguments.trunk, arguments.size, arguments.batch, arguments.device)
    scale = make_network(arguments.trunk, "cpu").classifier_scale
    known = {name: run for name, run in every.items() if run is not None}
    times = dict(
        zip(known, round_robin(list(known.values()), arguments.rounds, arguments.device, warm_up=2), strict=True)
    )

    def cell(name: str, to: str) -> str:
        return f"{ratio(times[name], times[to]):.2f}" if name in times and to in times else "not installed"

    def goal(said: str, name: str, to: str, limit: float, at_least: bool = False) -> Goal:
        if name in times and to in times:
            return compared(said, times[name], times[to], limit, at_least)
        return Goal(said, None, limit, at_least)

    height, width = arguments.size
    print(f"{arguments.trunk}, {height} x {width} px, batch {arguments.batch}; median of {arguments.rounds}")
    print(machine(arguments.device))
    cam, other = "torch-cam, Grad-CAM", "grad-cam, Grad-CAM"
    print_table(
        ["prediction", "ms (range)", "ratio to trunk", "ratio to torch-cam"],
        [[n, spread(times[n]) if n in times else "not installed", cell(n, "trunk"), cell(n, cam)] for n in every],
    )
    both = 1.05 * (1 + scale**2)
    print_goals(
        [
            goal("mask / trunk", "mask", "trunk", 1.03),
            goal("mask, folded / trunk, folded", "mask, folded", _FOLDED, 1.03),
            goal("mask / torch-cam", "mask", cam, 1.05),
            goal("mask and class / trunk", "mask and class", "trunk", both),
            goal("mask, class, folded / trunk, folded", "mask and class, folded", _FOLDED, both),
            goal("mask, class, folded / trunk", "mask and class, folded", "trunk", 1.1),
            goal("grad-cam / mask and class", other, "mask and class", 2.0, at_least=True),
        ]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
