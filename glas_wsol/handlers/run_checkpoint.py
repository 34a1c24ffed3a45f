# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Saves the best model and the state to resume from; each file is written atomically."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events

from glas_wsol.errors import ConfigError, OutputError, WeightsError, count
from glas_wsol.utils import distributed
from glas_wsol.utils.atomic_files import atomic_write, remove_unfinished
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import read_json, write_json
from glas_wsol.utils.locks import claim, release
from glas_wsol.utils.settings import Fingerprint, described, settings_of

__all__ = ["RunCheckpoint", "write_model"]

logger = logging.getLogger(__name__)

_STEPS = "lr_scheduler#total_steps"
_OWN_NAMES = {"initial_lr": "lr"}  # the schedule keeps the rate the user set under another name


class _Stop(Protocol):
    """What may end a training early: :class:`~glas_wsol.handlers.EarlyStop`, or the rounds of self-training."""

    @property
    def reached(self) -> bool: ...
    def attach(self, engine: Engine) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class RunCheckpoint:
    """Writes ``model.pt`` (the best model's plain state dict), ``model.json`` (what it is), ``last.pt`` (to resume).

    Of several processes of one training the first writes, and all take up what it wrote.

    MONAI's ``CheckpointSaver`` forgets the best metric on resuming, removes the old best model before the new one is
    whole, and makes a circle of references in a config when the trainer is saved too: hence this one.

    Args:
        network: the plain network, without any wrapper.
        evaluator: the engine that validates; its ``best_metric`` decides. Where it measures a ``temperature``
            (:class:`~glas_wsol.metrics.Temperature`), the model is written with it; training continues without.
        early_stop: attached before this, saved and restored with the run; or None.
        card: entries of ``model.json``, JSON values only.
        recipe: settings that must be the same when the run is taken up again, JSON values only; what the trainer, the
            network and the optimiser were made with is added.
        resume: take up an interrupted run found in ``directory`` (default); else refuse to touch it.
        made_with: further components, by their ids, that must be the same when the run is taken up again, such as the
            augmentation; all they were made with is compared, as it is of what the engines read and infer with.
    """

    def __init__(
        self,
        directory: str | Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Engine,
        early_stop: _Stop | None = None,
        card: Mapping[str, Any] | None = None,
        recipe: Mapping[str, Any] | None = None,
        resume: bool = True,
        made_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.stateful = {"network": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler}
        if early_stop is not None:
            self.stateful["early_stop"] = early_stop
        self.network, self.resume = network, resume
        self.evaluator: Any = evaluator  # MONAI adds to Ignite's state
        self.card, self.recipe = dict(card or {}), dict(recipe or {})
        self.made_with = dict(described({**(made_with or {}), "lr_scheduler": _as_made(lr_scheduler)}))
        self._trained_with: dict[str, Any] = {}

    @property
    def best_file(self) -> Path:
        """The best model's plain state dict."""
        return self.directory / "model.pt"

    @property
    def last_file(self) -> Path:
        """Everything needed to resume after the last whole epoch."""
        return self.directory / "last.pt"

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, as the last of its handlers: what it saves must be the state after the others."""
        if "early_stop" in self.stateful:
            self.stateful["early_stop"].attach(engine)
        engine.add_event_handler(Events.STARTED, self.restore)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self.keep_best)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.keep_last)
        engine.add_event_handler(Events.COMPLETED, self.require_best)

    def require_best(self, _: Engine) -> None:
        """Let others write here again; a ConfigError if no validation has chosen a model."""
        distributed.wait()  # for the one that writes
        release(self.last_file)
        if not self.best_file.is_file():
            raise ConfigError("no epoch was validated, so there is no model", self.directory, "lower val_interval")

    def keep_best(self, evaluator: Any) -> None:
        """Save the model if the validation that just ended was the best so far."""
        if evaluator.state.best_metric_epoch != evaluator.state.epoch:
            return
        metrics = {k: v for k, v in evaluator.state.metrics.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        card = {**self.card, "epoch": evaluator.state.epoch, "validation": metrics, "recipe": self._trained_with}
        with _at_temperature(self.network, metrics.get("temperature", 1.0)):
            write_model(self.network, self.directory, card)

    def keep_last(self, trainer: Engine) -> None:
        """Save the state after a whole epoch."""
        if distributed.not_main():
            return
        state: dict[str, Any] = {name: one.state_dict() for name, one in self.stateful.items()}
        state["trainer"] = {"epoch": trainer.state.epoch, "iteration": trainer.state.iteration}
        best = self.evaluator.state
        state["best"] = {"best_metric": best.best_metric, "best_metric_epoch": best.best_metric_epoch}
        state["recipe"] = dict(self._settings(trainer))  # a file holds plain values
        state["made_with"] = self.made_with
        self.directory.mkdir(parents=True, exist_ok=True)
        _save(state, self.last_file)

    def restore(self, trainer: Engine) -> None:
        """Take up an interrupted run, if there is one.

        Raises:
            ConfigError: if that run was made with other settings.
            OutputError: if there is one and it is not to be resumed, or it is going on in another process.
            WeightsError: if its file is damaged.
        """
        self._trained_with = self._settings(trainer)
        self.made_with |= described({"train": _parts(trainer), "validate": _parts(self.evaluator)})
        self._claim()
        if not self.last_file.is_file():
            return
        if not self.resume:
            raise OutputError("a run is here already", self.directory, "set resume=true, or choose another output_dir")
        try:
            state = torch.load(self.last_file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise WeightsError("damaged state of a run", self.last_file, "choose another output_dir") from error
        if not isinstance(state, dict) or not {"trainer", "best", "recipe", *self.stateful} <= state.keys():
            raise WeightsError("not the state of a run", self.last_file, "choose another output_dir")
        self._check(state, self._settings(trainer))
        groups = zip(self.stateful["optimizer"].param_groups, state["optimizer"]["param_groups"], strict=True)
        for now, then in groups:  # of this device, not of that; torch also places what it loads by it
            if "fused" in now:
                then["fused"] = now["fused"]
        for name, one in self.stateful.items():
            one.load_state_dict(state[name])
        trainer.state.epoch, trainer.state.iteration = state["trainer"]["epoch"], state["trainer"]["iteration"]
        self.evaluator.state.best_metric = state["best"]["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best"]["best_metric_epoch"]
        done, wanted = trainer.state.epoch, trainer.state.max_epochs
        early_stop = self.stateful.get("early_stop")
        if early_stop is not None and early_stop.reached:
            logger.info("%s holds a run that stopped early after epoch %d", self.directory, done)
            trainer.terminate()
        elif done >= wanted:
            logger.info("%s holds a finished run of %s: nothing left to train", self.directory, count(done, "epoch"))
        else:
            logger.info("resuming %s after epoch %d of %d", self.directory, done, wanted)

    def _claim(self) -> None:
        """Keep others from writing here; of several processes of one run the first does."""
        if distributed.not_main():
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make the folder of checkpoints ({error.strerror})"
            raise OutputError(what, self.directory, "choose another output_dir") from error
        if claim(self.last_file):
            remove_unfinished(self.directory)

    def _settings(self, trainer: Engine) -> Fingerprint:
        """The recipe, with what the trainer, the network and the optimiser were really made with."""
        optimizer = self.stateful["optimizer"]
        # A schedule moves the learning rate and may move the momentum; the device decides whether steps are fused.
        free = {"params", "lr", "momentum", "betas", "max_lr", "min_lr", "max_momentum", "base_momentum", "fused"}
        groups = [{k: v for k, v in g.items() if k not in free} for g in optimizer.param_groups]
        settings = {
            "epochs": trainer.state.max_epochs,
            **self.recipe,
            "amp": getattr(trainer, "amp", False),  # not every Ignite engine has it
            "optimizer": type(optimizer).__name__,
            **{f"optimizer#{_OWN_NAMES.get(k, k)} of group {i}": v for i, g in enumerate(groups) for k, v in g.items()},
            "lr_scheduler": type(self.stateful["lr_scheduler"]).__name__,
            _STEPS: getattr(self.stateful["lr_scheduler"], "total_steps", None),
        }
        return Fingerprint.of(settings, {"train#trainer": trainer, "network_def": self.network})

    def _check(self, state: Mapping[str, Any], now: Fingerprint) -> None:
        then, fix = Fingerprint(state["recipe"]), "restore them, or choose another output_dir"
        if then.get(_STEPS) != now[_STEPS] and then.get("epochs") != now["epochs"]:  # the steps follow the epochs
            then[_STEPS] = now[_STEPS]
            fix = f"the schedule spans them: give --epochs {then['epochs']}, or choose another output_dir"
        elif "epochs" not in self.recipe:  # any other schedule has no fixed end
            then["epochs"] = now["epochs"]
        changed = then.changes(now) or self._changed_components(Fingerprint(state.get("made_with", {})))
        if changed:
            what = "the run to resume was made with other settings: " + ", ".join(changed)
            raise ConfigError(what, self.directory, fix)

    def _changed_components(self, then: Fingerprint) -> list[str]:
        """Of those that the run to resume has recorded: an earlier version recorded fewer."""
        recorded = {name.partition("#")[0] for name in then}
        return then.changes({k: v for k, v in self.made_with.items() if k.partition("#")[0] in recorded})


def _parts(engine: Any) -> dict[str, Any]:
    """What an engine reads and infers with, by their ids in a config; None where it has none."""
    loader = getattr(engine, "data_loader", None)
    dataset, sampler = getattr(loader, "dataset", None), getattr(loader, "sampler", None)
    return {
        "preprocessing": getattr(dataset, "transform", None),
        "inferer": getattr(engine, "inferer", None),
        "dataset": {"seed": getattr(dataset, "seed", None)},
        "dataloader": {"seed": getattr(sampler, "seed", None)},
    }


def write_model(network: torch.nn.Module, directory: str | Path, card: Mapping[str, Any]) -> None:
    """Write ``model.pt``, a plain state dict, and ``model.json``, which describes it.

    Of several processes the first does.

    Args:
        network: the plain network, without any wrapper.
        card: entries of ``model.json`` besides the network's settings and the digest of the weights, JSON values only.

    Raises:
        OutputError: if another method was trained there.
    """
    if distributed.not_main():
        return
    folder = Path(directory)
    if (folder / "last.pt").is_file() and (folder / "model.json").is_file():
        with suppress(ValueError, AttributeError):  # a damaged card protects nothing
            trained = read_json(folder / "model.json").get("method")
            if trained != card.get("method"):
                raise OutputError(f"a model trained as {trained!r} is here", folder, "choose another output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    _save(network.state_dict(), folder / "model.pt")
    local = bool(getattr(network, "local", False))
    card = {**card, "local": local, "network": settings_of(network), "sha256": sha256_of(folder / "model.pt")}
    write_json(folder / "model.json", card)


@contextmanager
def _at_temperature(network: torch.nn.Module, factor: float) -> Iterator[None]:
    """The network whose class scores are divided by a factor more, for as long as it is written."""
    temperature = getattr(network, "temperature", None)
    if temperature is None:
        yield
        return
    before = temperature.clone()
    temperature.mul_(factor)
    try:
        yield
    finally:
        temperature.copy_(before)


def _as_made(schedule: Any) -> dict[str, Any]:
    """All that a schedule which has not begun was made with; a function by a digest of its code."""
    codes = [one.__code__ for one in getattr(schedule, "lr_lambdas", ()) if hasattr(one, "__code__")]
    functions = [hashlib.sha256(f"{code.co_code!r} {code.co_consts!r}".encode()).hexdigest()[:8] for code in codes]
    state = {name.lstrip("_"): value for name, value in schedule.state_dict().items()}
    groups = schedule.optimizer.param_groups  # where a cycle keeps its bounds
    bounds = {name: [group.get(name) for group in groups] for name in ("max_lr", "min_lr") if name in groups[0]}
    return {**state, **bounds, "lr_lambdas": functions}


def _save(state: Mapping[str, Any], path: Path) -> None:
    with atomic_write(path) as file:
        whole = io.BytesIO()  # in memory first: torch hides why a write fails, a full disk for one
        torch.save(state, whole)
        file.write(whole.getbuffer())
