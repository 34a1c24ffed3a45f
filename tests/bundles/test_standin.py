# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every shipped config on a stand-in for a GPU: nothing mixes devices, and who waits for the GPU is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from PIL import Image

from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.engines import MinMaxEntropyTrainer
from glas_wsol.errors import exception_chain
from glas_wsol.metrics.metric_base import RowMetric
from glas_wsol.networks import MinMaxEntropyNetwork
from glas_wsol.utils import background
from tests.bundles.conftest import BUNDLES, NO_DIAGRAM, Run, config, paper, workflow
from tests.standin import MixedDevicesError, StandIn, stand_in

STEP, IMAGE, METRICS = "a training step", "an image", "metrics"
ROTATIONS = "second_stage#component_inferer#rotations"  # three views less


@contextmanager
def watched() -> Iterator[tuple[StandIn, dict[str, int]]]:
    """The stand-in, and how often each phase began."""
    begun = dict.fromkeys((STEP, IMAGE, METRICS), 0)
    with pytest.MonkeyPatch.context() as patch, stand_in() as gpu:

        def of_phase(owner: Any, name: str, phase: str) -> None:
            original = getattr(owner, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                begun[phase] += 1
                with gpu.during(phase):
                    return original(*args, **kwargs)

            patch.setattr(owner, name, call)

        of_phase(MinMaxEntropyTrainer, "_iteration", STEP)
        of_phase(SupervisedTrainer, "_iteration", STEP)
        of_phase(SupervisedEvaluator, "_iteration", IMAGE)
        of_phase(RowMetric, "_rows", METRICS)
        patch.setattr(background, "read_ahead", lambda items, count: items)  # modes hold for one thread
        yield gpu, begun


def run(kind: str, trained: Run, files: list[str], output: Any, **settings: Any) -> tuple[StandIn, dict[str, int]]:
    """A run on the stand-in, of small data and a narrow trunk."""
    small = {"bundle_root": trained.settings["bundle_root"], "output_dir": str(output), "device": "cuda"}
    if kind == "inference":
        small |= {"prefetch": False}  # threads
    else:
        data = {"dataset_dir": str(trained.output / "phantom"), "data_device": "cpu"}
        small = {**trained.settings, "epochs": 1, **data, **small}
    small |= settings
    with watched() as (gpu, begun):
        made = workflow(kind, files, **small)
        made.run()
        made.finalize()
    assert gpu.operations > 0
    return gpu, begun


@pytest.mark.parametrize("recipe", ["train", "paper"])
def test_training_steps_never_wait_for_the_gpu(trained, recipe, tmp_path):
    files = paper(trained.bundle) if recipe == "paper" else [config(trained.bundle, "train")]
    second = {"refine_epochs": 1, "refine_rounds": 1, "scale": 1.0, ROTATIONS: False}
    gpu, begun = run("train", trained, files, tmp_path, **({"passes": 4} if recipe == "paper" else second))
    assert begun[STEP] >= 2
    assert not gpu.waits_of(STEP)
    assert gpu.waits_of(IMAGE).total() <= 2 * begun[IMAGE], gpu.waits_of(IMAGE)
    assert not gpu.waits_of(METRICS), gpu.waits_of(METRICS)


def test_evaluation_waits_twice_an_image(trained, tmp_path):
    files = [*paper(trained.bundle), config(trained.bundle, "evaluate")]
    gpu, begun = run("train", trained, files, tmp_path, checkpoint=str(trained.model), split="test", **NO_DIAGRAM)
    assert begun[IMAGE] > 1
    assert gpu.waits_of(IMAGE).total() <= 2 * begun[IMAGE], gpu.waits_of(IMAGE)
    assert not gpu.waits_of(METRICS), gpu.waits_of(METRICS)


def test_inference_waits_twice_an_image(trained, tmp_path):
    files = [config(trained.bundle, "inference")]
    for number in range(3):
        tile, _ = tissue_tile(np.random.default_rng(number), True, (66, 97), scale=0.25)
        Image.fromarray(tile).save(tmp_path / f"{number}.png")
    gpu, begun = run(
        "inference", trained, files, tmp_path / "out", checkpoint=str(trained.model), dataset_dir=str(tmp_path)
    )
    assert begun[IMAGE] > 1
    assert gpu.waits_of(IMAGE).total() <= 2 * begun[IMAGE], gpu.waits_of(IMAGE)


@pytest.mark.parametrize("trained", BUNDLES[:1], indirect=True)
def test_standin_refuses_a_tensor_left_on_the_cpu(trained, monkeypatch, tmp_path):
    localize = MinMaxEntropyNetwork.localize

    def faulty(self: Any, x: torch.Tensor, *args: Any) -> Any:
        found = localize(self, x, *args)
        return found._replace(mask=found.mask.cpu())

    monkeypatch.setattr(MinMaxEntropyNetwork, "localize", faulty)
    with pytest.raises(Exception, match=r".+") as caught:
        run("train", trained, paper(trained.bundle), tmp_path)
    (found,) = [one for one in exception_chain(caught.value) if isinstance(one, MixedDevicesError)]
    assert "erasing.py" in str(found)


@pytest.mark.parametrize("trained", BUNDLES[:1], indirect=True)
def test_standin_counts_a_value_that_is_asked_for(trained, monkeypatch, tmp_path):
    localize = MinMaxEntropyNetwork.localize

    def faulty(self: Any, x: torch.Tensor, *args: Any) -> Any:
        assert bool((x == x).all())
        return localize(self, x, *args)

    monkeypatch.setattr(MinMaxEntropyNetwork, "localize", faulty)
    gpu, begun = run("train", trained, paper(trained.bundle), tmp_path)
    waits = gpu.waits_of(STEP)
    assert waits.total() >= begun[STEP]
    assert all("test_standin.py" in place or "trainer.py" in place for place in waits)
