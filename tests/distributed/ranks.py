# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What one process and two do alike; run by torchrun as a module, it writes down what each of the two found."""

from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from glas_wsol.engines import MinMaxEntropyTrainer
from glas_wsol.errors import GlasWsolError
from glas_wsol.handlers import LocalizationSaver, SharedTraining, StopOnNonFiniteLoss
from glas_wsol.losses import MinMaxEntropyLoss
from glas_wsol.networks.trunks import TRUNKS
from glas_wsol.pseudo_labels.seeds import IGNORE, PartialCrossEntropy
from glas_wsol.utils import distributed
from tests.bundles.conftest import BUNDLES, DATA, NARROW, ROOT, SMALL, config, workflow
from tests.conftest import tiny_network

GLAS, CUB5 = BUNDLES
IMAGES = 8

# Options of the network and of the trainer. "parted": M names all classes of the first process's images, and none of
# the second's, which so die at once.
CASES: dict[str, dict[str, Any]] = {
    "no erasing": {"passes": 0},
    "erasing": {},
    "one process dies": {"parted": True},
    "one process dies, all forwards on all": {"parted": True, "alive_only": False},
    "one process dies, mean over steps": {"parted": True, "step_reduction": "mean"},
    "one process dies, all count": {"parted": True, "counted": "all"},
    "one process dies, its images are skipped": {"parted": True, "untrusted": "skip"},
    "its R_0 is kept": {"parted": True, "untrusted": "plain"},
    "constraints": {
        "network": {"differentiable_mask": True},
        "loss_function": MinMaxEntropyLoss(size=0.7, band=(0.1, 0.3), variation=0.3),
    },
    "several classes": {"network": {"num_classes": 3, "multi_label": True}, "untrusted": "skip"},
    "whole scale": {"network": {"classifier_scale": 1.0}},
}


def network_of(case: dict[str, Any]) -> nn.Module:
    options = {"batch_norm": "frozen", "pooling_options": {"dropout": 0.0}, **case.get("network", {})}
    return tiny_network(seed=5, **options).double()


def batch_of(case: dict[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """Non-square asymmetric images, and labels; this process's part of them."""
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(IMAGES, 3, 96, 64, generator=generator, dtype=torch.float64)
    image[:, :, :20, :30] *= 0.3
    if network.multi_label:
        label = torch.randint(0, 2, (IMAGES, 3), generator=generator).float()
        label[:, 0] = 1
    else:
        with torch.no_grad():
            named = network.train().localize(network.normalise(image)).logits.argmax(dim=1)
        wrong = torch.arange(IMAGES) % 2 if case.get("parted") else torch.arange(IMAGES) % 3 == 2
        label = torch.where(wrong > 0, 1 - named, named)
    mine = slice(distributed.rank(), None, distributed.world_size())  # as the sampler deals them out
    return {"image": image[mine], "label": label[mine]}


def step_of(name: str) -> dict[str, Any]:
    """One optimiser step: its gradients, the forwards of M that this process ran, and the weights after it."""
    case = CASES[name]
    network = network_of(case)
    batch = batch_of(case, network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    options = {key: value for key, value in case.items() if key not in ("network", "parted")}
    shared = SharedTraining(network, optimizer)
    trainer = MinMaxEntropyTrainer(
        "cpu", 2, [batch], network, optimizer, decollate=False, train_handlers=[shared], **{"passes": 4, **options}
    )
    forwards: list[int] = []
    trainer.add_event_handler(IterationEvents.INNER_ITERATION_COMPLETED, lambda: forwards.append(1))
    trainer.state.epoch = 1  # from which on it erases
    trainer.run()
    gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    return {"gradients": gradients, "forwards": len(forwards), "loss": distributed.mean(trainer.state.output["loss"])}


def seeds_gradient() -> Tensor:
    """Of the second stage's loss, where one process has many seeds, and none of one side."""
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(4, 3, 16, 24, generator=generator, dtype=torch.float64)
    seeds = torch.full((4, 1, 16, 24), IGNORE)
    seeds[0, :, :9, :7], seeds[2, :, 3:, 5:] = 200, 131  # the first process: R+ alone
    seeds[1, :, 2:4, :5], seeds[3, :, 9:, :20], seeds[3, :, 0, 0] = 10, 90, 255
    weight = nn.Parameter(torch.ones(1, 3, 1, 1, dtype=torch.float64))
    mine = slice(distributed.rank(), None, distributed.world_size())
    PartialCrossEntropy()(nn.functional.conv2d(image[mine], weight), seeds[mine]).backward()
    distributed.average_gradients([weight])
    return weight.grad


def half_floats() -> dict[str, Any]:
    """Three steps in float16; the gradient of the second overflows, of two processes in the second only."""
    network = tiny_network(seed=5, batch_norm="frozen")
    batch = batch_of({}, copy.deepcopy(network).double())
    batch["image"] = batch["image"].float()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    half = {"amp": True, "amp_kwargs": {"dtype": torch.float16}}
    half["loss_function"] = MinMaxEntropyLoss(
        0.01, 0.01, 0.01
    )  # small: nothing else overflows at the scaler's first scale
    shared = SharedTraining(network, optimizer)
    trainer = MinMaxEntropyTrainer(
        "cpu", 1, [batch] * 3, network, optimizer, decollate=False, train_handlers=[shared], passes=1, **half
    )
    weights: list[Tensor] = []

    def overflow(engine: Any) -> None:
        if engine.state.iteration == 2 and distributed.rank() == distributed.world_size() - 1:
            next(network.parameters()).grad[0] = torch.inf

    trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, overflow)
    trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED, lambda: weights.append(nn.utils.parameters_to_vector(network.parameters()))
    )
    trainer.run()
    return {"weights": torch.stack(weights).detach(), "scale": trainer.scaler.get_scale()}


def told(work: Callable[[], Any]) -> str:
    """What a process is told when it is refused."""
    try:
        work()
    except GlasWsolError as error:
        return str(error)
    return ""


def refusals() -> dict[str, str]:
    """Of what several processes cannot do; the same in all of them."""

    def train(break_at: int | None = None, **options: Any) -> None:
        network = tiny_network(**{"batch_norm": "frozen", **options})
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        batches = [{"image": torch.rand(2, 3, 64, 96), "label": torch.tensor([0, 1])} for _ in range(3)]
        handlers = [SharedTraining(network, optimizer)]

        def nudge(engine: Any) -> None:
            if engine.state.iteration == break_at and distributed.not_main():
                with torch.no_grad():
                    next(network.parameters()).view(-1)[3] += 1e-7

        trainer = MinMaxEntropyTrainer(
            "cpu", 1, batches, network, optimizer, decollate=False, train_handlers=handlers, passes=1
        )
        trainer.add_event_handler(Events.ITERATION_STARTED, nudge)
        trainer.run()

    def diverge() -> None:
        engine = SimpleNamespace(state=SimpleNamespace(epoch=1, iteration=1))
        engine.state.output = {"loss": torch.tensor(float("nan") if distributed.not_main() else 1.0)}
        StopOnNonFiniteLoss()(engine)

    return {
        "batch size": told(lambda: distributed.local_share(3, "refine_batch_size")),
        "too few images": told(lambda: distributed.rank_slice([0])),
        "batch statistics": told(lambda: train(batch_norm="batch")),
        "mask normalisation": told(lambda: train(normalisation="batch")),
        "other seeds": told(lambda: train(seed=distributed.rank())),
        "another weight": told(lambda: train(break_at=2)),
        "nothing wrong": told(train),
        "not a number": told(diverge),
        "record": told(lambda: LocalizationSaver("nowhere", record=object())),  # type: ignore[arg-type]
    }


def settings(bundle: str, data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Of a run of a second or two: no dropout, which every process draws by itself."""
    own = {"dataset_dir": str(data), "output_dir": str(output), "bundle_root": str(ROOT / "bundles" / bundle)}
    return {**SMALL, **DATA[bundle], "dropout": 0.0, **own, **changes}


STAGES = {
    "epochs": 1,
    "refine_epochs": 1,
    "refine_rounds": 2,
    "refine_batch_size": 4,
    "decoder_width": 8,
    "teachers": {"components": 0.0, "stage_one": 1.0, "stain": 0.5},
    "second_stage#tolerance": -1.0,  # what an untrained decoder sees may stay the same
}


def bundle_runs(folder: Path, shared: bool) -> dict[str, Tensor]:
    """Every recipe trained and evaluated, below ``folder``, on the data that are there; by several processes or one.

    Returns:
        The state of this process's refined network.
    """
    train, evaluate = (["multi_gpu_train"], ["multi_gpu_evaluate"]) if shared else ([], [])

    def run(bundle: str, names: list[str], output: Path, **changes: Any) -> ConfigWorkflow:
        made = workflow(
            "train",
            [config(bundle, name) for name in names],
            **settings(bundle, folder / "data" / bundle, output, **changes),
        )
        made.run()
        made.finalize()
        return made

    where = folder / ("two" if shared else "one")
    for epochs in (1, 2) if shared else (2,):  # interrupted and taken up again
        run(GLAS, ["train", "paper", *train], where / "paper", epochs=epochs)
    model = str(folder / "one" / "paper" / "models" / "model.pt")
    run(GLAS, ["train", "paper", "evaluate", *evaluate], where / "evaluation", split="test", checkpoint=model)
    stages = run(GLAS, ["train", *train], where / "stages", **STAGES)
    early = {"epochs": 4, "patience": 1, "optimizer#lr": 0.0}  # nothing rises
    run(CUB5, ["train", "paper", *train], where / "early", **early)
    if shared:  # of all recipes, that none is left that has not run
        model = str(where / "early" / "models" / "model.pt")
        run(CUB5, ["train", "paper", *train, "evaluate", *evaluate], where / "birds", checkpoint=model)
    return dict(stages.parser.get_parsed_content("refined_network").state_dict())


@contextmanager
def writes_below(folder: Path) -> Iterator[set[str]]:
    """Files below a folder that this process opens to write, or makes by renaming."""
    found: set[str] = set()

    def hear(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(mode) & set("wax+")
        elif event == "os.rename":
            path, writes = arguments[1], True
        else:
            return
        if writes and isinstance(path, (str, bytes, os.PathLike)) and Path(os.fsdecode(path)).is_relative_to(folder):
            found.add(Path(os.fsdecode(path)).relative_to(folder).as_posix())

    sys.addaudithook(hear)
    yield found


def main(folder: Path) -> None:
    """In each of two processes."""
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays
    TRUNKS[SMALL["trunk"]] = NARROW
    distributed.begin("cpu", minutes=20)
    end, distributed.end = distributed.end, distributed.wait  # one group for all that follows
    found: dict[str, Any] = {"steps": {name: step_of(name) for name in CASES}, "seeds": seeds_gradient()}
    found |= {"half": half_floats(), "refused": refusals()}
    found["gathered"] = distributed.all_gather([distributed.rank()] * (3 if distributed.is_main() else 1))
    found["portion"] = list(distributed.rank_slice(range(7)))
    with writes_below(folder) as written:
        found["refined"] = bundle_runs(folder, shared=True)
        found["written"] = sorted(written)
    torch.save(found, folder / f"{distributed.rank()}.pt")
    end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
