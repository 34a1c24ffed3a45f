# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The best model and the state of a run: kept, restored, and never half written."""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from glas_wsol.errors import ConfigError, OutputError, WeightsError
from glas_wsol.handlers import EarlyStop, RunCheckpoint, write_model
from glas_wsol.handlers import run_checkpoint as checkpoint
from glas_wsol.networks.weights import read_state_dict
from glas_wsol.transforms import RandColorJitterd
from glas_wsol.utils import locks as lock
from glas_wsol.utils.digests import sha256_of
from tests.conftest import same


class Network(nn.Linear):
    def settings(self) -> dict[str, Any]:
        return {"modalities": 5}


class Run:
    """A small trainer with momentum and a schedule, an evaluator whose score follows a script, and the handler."""

    def __init__(
        self,
        folder: Path,
        scores: list[float],
        *,
        schedule: str = "step",
        patience: int = 0,
        val_interval: int = 1,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.network = Network(3, 2)
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        if schedule == "step":
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        else:
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=int(schedule))
        self.evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=[0],
            network=self.network,
            iteration_update=lambda engine, _: scores[engine.state.epoch - 1],
            key_val_metric={"score": Average()},
        )
        self.weights: dict[int, torch.Tensor] = {}

        def step(engine: Engine, batch: int) -> None:
            x = torch.tensor([1.0, float(engine.state.epoch), float(batch)])
            optimizer.zero_grad()
            self.network(x).square().sum().backward()
            optimizer.step()
            self.weights[engine.state.epoch] = self.network.weight.detach().clone()

        self.trainer = Engine(step)
        self.trainer.settings = lambda: {"counted": "alive"}
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: scheduler.step())
        validated = Events.EPOCH_COMPLETED(every=val_interval)
        self.trainer.add_event_handler(validated, lambda engine: self.evaluator.run(engine.state.epoch))
        stop = EarlyStop(patience, self.evaluator)
        self.handler = RunCheckpoint(folder, self.network, optimizer, scheduler, self.evaluator, stop, **options)
        self.handler.attach(self.trainer)

    def go(self, epochs: int) -> Run:
        self.trainer.run([0, 1], max_epochs=epochs)
        return self


def contents(folder: Path) -> dict[str, Any]:
    return {name: torch.load(folder / name, weights_only=True) for name in ("model.pt", "last.pt")}


def test_checkpoint_model_and_card_are_of_the_best_epoch(tmp_path):
    run = Run(tmp_path / "new" / "folder", [0.1, 0.5, 0.3, 0.5], card={"trunk": "resnet18", "classes": ["a", "b"]}).go(
        4
    )
    state = read_state_dict(run.handler.best_file)
    assert torch.equal(state["weight"], run.weights[2])
    assert not torch.equal(state["weight"], run.weights[4])
    card = json.loads((tmp_path / "new" / "folder" / "model.json").read_text())
    said = {"trunk": "resnet18", "classes": ["a", "b"], "epoch": 2, "validation": {"score": 0.5}}
    assert card.items() >= said.items()
    assert card["sha256"] == sha256_of(run.handler.best_file)


def test_the_model_is_written_only_when_it_is_better(tmp_path, monkeypatch):
    saved: list[str] = []
    save = checkpoint._save
    monkeypatch.setattr(checkpoint, "_save", lambda state, path: saved.append(path.name) or save(state, path))
    Run(tmp_path, [0.1, 0.5, 0.3, 0.5, 0.6]).go(5)
    assert saved == ["model.pt", "last.pt", "model.pt", "last.pt", "last.pt", "last.pt", "model.pt", "last.pt"]


@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path, interrupted_after):
    scores = [0.1, 0.5, 0.3, 0.4, 0.2]  # the best comes after the first interruption and before the second
    Run(tmp_path / "whole", scores).go(5)
    Run(tmp_path / "parts", scores).go(interrupted_after)
    resumed = Run(tmp_path / "parts", scores).go(5)
    assert list(resumed.weights) == list(range(interrupted_after + 1, 6)), "no epoch is run twice"
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "parts"))
    assert resumed.evaluator.state.best_metric_epoch == 2


def test_the_count_of_early_stopping_is_resumed_too(tmp_path):
    scores = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert list(Run(tmp_path / "whole", scores, patience=3).go(6).weights) == [1, 2, 3, 4]
    Run(tmp_path / "parts", scores, patience=3).go(3)
    assert list(Run(tmp_path / "parts", scores, patience=3).go(6).weights) == [4]


def test_checkpoint_after_early_stop_trains_no_more_epoch(tmp_path, caplog):
    scores = [0.5, 0.4, 0.3, 0.2, 0.9, 0.9]
    first = Run(tmp_path, scores, patience=2).go(6)
    assert list(first.weights) == [1, 2, 3]
    before = {path.name: sha256_of(path) for path in tmp_path.iterdir()}
    with caplog.at_level(logging.INFO, "glas_wsol"):
        for _ in range(2):
            assert Run(tmp_path, scores, patience=2).go(6).weights == {}
    assert "stopped early after epoch 3" in caplog.text
    assert {path.name: sha256_of(path) for path in tmp_path.iterdir()} == before


def test_checkpoint_training_without_validation_is_an_error(tmp_path):
    run = Run(tmp_path, [0.1, 0.2], val_interval=3)
    with pytest.raises(ConfigError, match=r"no epoch was validated.*lower val_interval") as caught:
        run.go(2)
    assert "\n" not in str(caught.value)
    assert list(run.weights) == [1, 2]
    assert not (tmp_path / "model.pt").exists()
    Run(tmp_path / "once", [0.1, 0.2, 0.3], val_interval=3).go(3)
    assert (tmp_path / "once" / "model.pt").is_file()


def test_a_finished_run_is_left_as_it_is(tmp_path, caplog):
    Run(tmp_path, [0.1, 0.2]).go(2)
    before = {name: sha256_of(tmp_path / name) for name in ("model.pt", "last.pt", "model.json")}
    with caplog.at_level(logging.INFO, "glas_wsol"):
        again = Run(tmp_path, [0.1, 0.2]).go(2)
    assert again.weights == {}
    assert "nothing left to train" in caplog.text
    assert {name: sha256_of(tmp_path / name) for name in before} == before


def test_checkpoint_partial_file_of_killed_run_is_removed(tmp_path):
    Run(tmp_path, [0.1, 0.2]).go(1)
    (tmp_path / "seeds" / "of others").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "seeds", tmp_path / "seeds" / "of others"):
        (place / f".{'0a' * 16}.part").write_bytes(b"half")
    (tmp_path / ".mine.part").write_bytes(b"mine")
    Run(tmp_path, [0.1, 0.2]).go(2)
    assert sorted(path.parent.name for path in tmp_path.rglob("*.part")) == sorted([tmp_path.name, "of others"])
    assert (tmp_path / ".mine.part").is_file()


def test_checkpoint_without_locks_removes_no_partial_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    Run(tmp_path, [0.1, 0.2]).go(1)
    part = tmp_path / f".{'0a' * 16}.part"
    part.write_bytes(b"half")
    assert list(Run(tmp_path, [0.1, 0.2]).go(2).weights) == [2]
    assert part.read_bytes() == b"half"


@pytest.mark.parametrize(("then", "now"), [(True, False), (False, True), (True, None)])
def test_checkpoint_fused_steps_are_set_by_the_resuming_run(tmp_path, then, now):
    first = Run(tmp_path, [0.1, 0.2])
    first.handler.stateful["optimizer"].param_groups[0]["fused"] = then
    first.go(1)
    assert contents(tmp_path)["last.pt"]["optimizer"]["param_groups"][0]["fused"] is then
    resumed = Run(tmp_path, [0.1, 0.2])
    resumed.handler.stateful["optimizer"].param_groups[0]["fused"] = now
    assert list(resumed.go(2).weights) == [2]
    (group,) = resumed.handler.stateful["optimizer"].param_groups
    assert (group["fused"], group["momentum"]) == (now, 0.9)


def test_checkpoint_without_resume_leaves_an_earlier_run(tmp_path):
    Run(tmp_path, [0.1, 0.2]).go(1)
    before = sha256_of(tmp_path / "last.pt")
    with pytest.raises(OutputError, match="resume=true"):
        Run(tmp_path, [0.1, 0.2], resume=False).go(2)
    assert sha256_of(tmp_path / "last.pt") == before
    Run(tmp_path / "fresh", [0.1], resume=False).go(1)


def test_checkpoint_other_settings_are_refused_naming_each(tmp_path):
    then = {"passes": 4, "trunk": "resnet18", "classes": ("a", "b"), "seed": 0, "fold": "paper"}
    Run(tmp_path, [0.1, 0.2], recipe=then).go(1)
    Run(tmp_path, [0.1, 0.2], recipe=dict(then)).go(1)  # a tuple equals the list that JSON makes of it
    now = {k: v for k, v in then.items() if k != "fold"} | {"passes": 2, "trunk": "resnet101"}
    with pytest.raises(ConfigError) as caught:
        Run(tmp_path, [0.1, 0.2], recipe=now).go(2)
    said = str(caught.value)
    assert "passes was 4, is 2" in said
    assert "trunk was 'resnet18', is 'resnet101'" in said
    assert "fold was 'paper', is None" in said
    assert "seed" not in said
    assert "classes" not in said
    assert "\n" not in said


def test_checkpoint_compares_real_arguments_not_scheduled_values(tmp_path):
    Run(tmp_path, [0.1, 0.2, 0.3], schedule="6").go(1)
    Run(tmp_path, [0.1, 0.2, 0.3], schedule="6").go(2)  # the schedule has moved learning rate and momentum by now
    changed = Run(tmp_path, [0.1, 0.2, 0.3], schedule="6")
    changed.trainer.settings = lambda: {"counted": "all"}
    changed.network.settings = lambda: {"modalities": 3}
    changed.handler.stateful["optimizer"].param_groups[0]["weight_decay"] = 0.25
    with pytest.raises(ConfigError) as caught:
        changed.go(3)
    assert all(
        said in str(caught.value)
        for said in (
            "train#trainer#counted was 'alive', is 'all'",
            "network_def#modalities was 5, is 3",
            "optimizer#weight_decay of group 0 was 0, is 0.25",
        )
    )
    assert changed.weights == {}, "nothing is trained"


def test_a_schedule_of_another_length_is_refused(tmp_path):
    Run(tmp_path, [0.1, 0.2], schedule="6").go(1)
    with pytest.raises(ConfigError, match=r"schedule.* 6\b.* 8\b"):
        Run(tmp_path, [0.1, 0.2], schedule="8").go(1)


def test_a_schedule_that_follows_the_epochs_names_them(tmp_path):
    Run(tmp_path, [0.1, 0.2], schedule="4").go(2)
    with pytest.raises(ConfigError) as caught:
        Run(tmp_path, [0.1, 0.2], schedule="6").go(3)
    said = str(caught.value)
    assert "other settings: epochs was 2, is 3 [" in said
    assert said.endswith("the schedule spans them: give --epochs 2, or choose another output_dir")
    Run(tmp_path / "steps", [0.1, 0.2, 0.3]).go(2)
    assert Run(tmp_path / "steps", [0.1, 0.2, 0.3]).go(3).trainer.state.epoch == 3, "any other may be lengthened"


@pytest.mark.parametrize("size", [0, 100, -10])
def test_a_damaged_state_is_refused_in_one_line(tmp_path, size):
    Run(tmp_path, [0.1]).go(1)
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(WeightsError, match="damaged") as caught:
        Run(tmp_path, [0.1, 0.2]).go(2)
    assert "\n" not in str(caught.value)


def no_space(error: Exception) -> Any:
    def save(_: Any, file: Any) -> None:
        file.write(b"half of a ")
        raise error

    return save


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (RuntimeError("the writer failed"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("file", ["model.pt", "last.pt"])
def test_a_failure_while_writing_leaves_the_old_files_whole(tmp_path, monkeypatch, error, seen, file):
    run = Run(tmp_path, [0.1, 0.2]).go(1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(torch, "save", no_space(error))
    with pytest.raises(seen):
        run.handler.keep_best(run.evaluator) if file == "model.pt" else run.handler.keep_last(run.trainer)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert list(Run(tmp_path, [0.1, 0.2]).go(2).weights) == [2]


def test_a_disk_that_fills_up_leaves_the_old_model_whole(tmp_path):
    resource = pytest.importorskip("resource")
    run = Run(tmp_path, [0.1]).go(1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run.handler.network = Network(300, 300)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes a file may have
    try:
        with pytest.raises((OutputError, RuntimeError)):
            run.handler.keep_best(run.evaluator)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_floor_does_not_take_the_place_of_a_trained_model(tmp_path):
    Run(tmp_path, [0.1], card={"method": "cam_avg"}).go(1)
    before = sha256_of(tmp_path / "model.pt")
    with pytest.raises(OutputError, match="trained as 'cam_avg' is here"):
        write_model(Network(3, 2), tmp_path, {"method": "all_ones"})
    assert sha256_of(tmp_path / "model.pt") == before
    write_model(Network(3, 2), tmp_path / "other", {"method": "all_ones"})
    write_model(Network(3, 2), tmp_path / "other", {"method": "stain"})  # nothing was trained there
    assert json.loads((tmp_path / "other" / "model.json").read_text())["method"] == "stain"


def test_checkpoint_writes_the_measured_temperature(tmp_path):
    run = Run(tmp_path, [0.1])
    run.network.register_buffer("temperature", torch.tensor(1.5))
    run.evaluator.state.metrics["temperature"] = 2.0
    run.evaluator.state.best_metric_epoch = run.evaluator.state.epoch = 1
    run.handler.keep_best(run.evaluator)
    assert float(read_state_dict(tmp_path / "model.pt")["temperature"]) == 3.0
    assert float(run.network.temperature) == 1.5
    assert json.loads((tmp_path / "model.json").read_text())["validation"]["temperature"] == 2.0


def test_checkpoint_changed_component_is_named_on_resuming(tmp_path):
    def made_with(brightness: float, tolerance: float = 0.1) -> dict[str, Any]:
        jitter = RandColorJitterd("image", brightness=brightness)
        return {"augmentation": Compose([jitter]), "second_stage": {"tolerance": tolerance}}

    Run(tmp_path, [0.1, 0.2, 0.3], made_with=made_with(0.5)).go(1)
    assert list(Run(tmp_path, [0.1, 0.2, 0.3], made_with=made_with(0.5)).go(2).weights) == [2]
    changes = {
        "augmentation#transforms#0#brightness was 0.5, is 0.4": made_with(0.4),
        "second_stage#tolerance was 0.1, is 0.2": made_with(0.5, 0.2),
        "augmentation was 'Compose', is None": {},
    }
    for said, now in changes.items():
        with pytest.raises(ConfigError, match=re.escape(f"made with other settings: {said}")):
            Run(tmp_path, [0.1, 0.2, 0.3], made_with=now).go(3)


def scheduled(run: Run, schedule: Callable[[Any], Any]) -> Run:
    optimizer = run.handler.stateful["optimizer"]
    handler = RunCheckpoint(run.handler.directory, run.network, optimizer, schedule(optimizer), run.evaluator)
    run.handler.made_with = handler.made_with
    return run


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        ({"pct_start": 0.3}, {"pct_start": 0.5}, "lr_scheduler#schedule_phases#0#end_step was "),
        ({"final_div_factor": 1e4}, {"final_div_factor": 1e3}, "lr_scheduler#min_lr was "),
        ({"anneal_strategy": "cos"}, {"anneal_strategy": "linear"}, "lr_scheduler#anneal_func_type was 'cos'"),
    ],
)
def test_checkpoint_changed_schedule_is_named_on_resuming(tmp_path, then, now, named):
    def cycle(options: dict[str, Any]) -> Callable[[Any], Any]:
        return lambda optimizer: OneCycleLR(deepcopy(optimizer), 0.1, total_steps=10, **options)

    scheduled(Run(tmp_path, [0.1, 0.2]), cycle(then)).go(1)
    with pytest.raises(ConfigError, match=f"made with other settings: .*{named}"):
        scheduled(Run(tmp_path, [0.1, 0.2]), cycle(now)).go(2)
    assert list(scheduled(Run(tmp_path, [0.1, 0.2]), cycle(then)).go(2).weights) == [2]


def test_checkpoint_changed_function_of_the_schedule_is_named(tmp_path):
    scheduled(Run(tmp_path, [0.1, 0.2]), lambda one: LambdaLR(deepcopy(one), lambda epoch: 0.1**epoch)).go(1)
    with pytest.raises(ConfigError, match=r"other settings: lr_scheduler#lr_lambdas was \['"):
        scheduled(Run(tmp_path, [0.1, 0.2]), lambda one: LambdaLR(deepcopy(one), lambda epoch: 0.2**epoch)).go(2)
    again = scheduled(Run(tmp_path, [0.1, 0.2]), lambda one: LambdaLR(deepcopy(one), lambda epoch: 0.1**epoch))
    assert list(again.go(2).weights) == [2]


def test_checkpoint_of_an_earlier_version_is_resumed(tmp_path):
    Run(tmp_path, [0.1, 0.2]).go(1)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["made_with"]
    torch.save(state, tmp_path / "last.pt")
    assert list(Run(tmp_path, [0.1, 0.2], made_with={"second_stage": {"tolerance": 0.1}}).go(2).weights) == [2]
