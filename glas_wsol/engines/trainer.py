# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Train min-max entropy as a MONAI trainer: recursive erasing inside backpropagation (paper, algorithm 1)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.optim.optimizer import Optimizer

from glas_wsol.engines import erasing
from glas_wsol.engines.plain_trainer import loss_means, lower_is_better
from glas_wsol.engines.prepare_batch import ImageLabels
from glas_wsol.errors import ConfigError
from glas_wsol.losses import LossKeys, MinMaxEntropyLoss, cross_entropy
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.utils import distributed
from glas_wsol.utils.host_copy import AsyncHostCopy

__all__ = ["MinMaxEntropyTrainer"]

_LONE_VALUE = (
    "batch statistics of a single value: the last mini-batch holds one image, too small for the trunk",
    "change batch_size, enlarge crop_size, or set batch_norm=frozen",
)


class MinMaxEntropyTrainer(SupervisedTrainer):
    """Trains a :class:`~glas_wsol.networks.minmax.MinMaxEntropyNetwork` from image labels.

    One iteration is one optimiser step. The localizer is run up to ``passes`` times, each time on the image without
    what it found before; the gradient of each step is computed at once and its graph freed, so that the peak of memory
    does not grow with the depth. This is exact because the mask is detached: no step's graph reaches an earlier one.
    Then the classifier is run on the decidable and on the undecidable region. With a differentiable mask the gradient
    reaches M through the decidable region, not through the erased images, and one graph holds all steps: memory grows.

    Where an image may have several classes (``multi_label`` of the network), labels are ``[B, c]`` zeros and
    ones, every loss is binary per class, and trust, history and erasing are per sample and class, see
    :mod:`glas_wsol.engines.erasing`: a sample is alive while one of its classes is.

    Args:
        train_data_loader: batches of ``{"image": [B, 3, H, W] in [0, 1], "label": [B]}`` (``[B, c]`` where an image may
            have several classes); never masks.
        loss_function: weights of the terms. Defaults to 1, 1, 1 and no constraint on the mask, which would need a
            differentiable one.
        passes: largest number of forwards of M per step; 0 means no erasing: one forward, its mask untrusted. The
            published ``u = 4`` is 4 forwards. Defaults to 4.
        erase_from_epoch: epochs before this one (counted from 0) train without erasing. Defaults to 1.
        sigma: slope of the trust. Defaults to 10.
        step_reduction: gradients of the steps are summed (``"sum"``, default) or averaged (``"mean"``).
        counted: whose localizer loss counts at steps ``t >= 1``: samples ``"alive"`` before the step (default; of
            several classes those whose label holds, see ``ErasingState.sound``), or ``"all"`` (the reference run); or
            ``"trusted"``, at every step only those that this step trusts (algorithm 1 as printed): M learns nothing
            from a sample that it classifies wrongly at once.
        untrusted: see :func:`glas_wsol.engines.erasing.keep`. Defaults to ``"blank"``.
        rescale_trust: see :func:`glas_wsol.engines.erasing.keep`. Defaults to False.
        permanent_loss_test: see :func:`glas_wsol.engines.erasing.advance`. Defaults to True. Steps go on while
            any is trusted.
        alive_only: run steps ``t >= 1`` on the alive samples only. Exact only with frozen batch normalisation, a
            per-sample mask normalisation, a permanent loss test and without ``counted="all"``; None (default) does it
            exactly there. Without ``reuse_dropout`` it is exact in distribution only: fewer samples draw other noise.
        reuse_dropout: whether one dropout pattern of M serves all steps of a mini-batch (default), or each step
            draws afresh.
        memory: added to the normalised activation map at steps ``t >= 1`` beside what was found before, see
            :func:`glas_wsol.engines.erasing.remember`; inference has no memory. Defaults to 0, none.
        memory_radius: how far "beside" reaches, as a fraction of the image's shorter side. Defaults to 0.1.
        amp: mixed precision, bfloat16 unless ``amp_kwargs`` names another ``dtype``.

    Raises:
        ConfigError: if a value is out of range, ``alive_only`` is set where it would change the gradient, or a
            constraint where no gradient reaches the mask.
    """

    network: MinMaxEntropyNetwork

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: MinMaxEntropyNetwork,
        optimizer: Optimizer,
        loss_function: MinMaxEntropyLoss | None = None,
        passes: int = 4,
        erase_from_epoch: int = 1,
        sigma: float = 10.0,
        step_reduction: str = "sum",
        counted: str = "alive",
        untrusted: str = "blank",
        rescale_trust: bool = False,
        permanent_loss_test: bool = True,
        alive_only: bool | None = None,
        reuse_dropout: bool = True,
        memory: float = 0.0,
        memory_radius: float = 0.1,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _require(max_epochs >= 1, f"epochs={max_epochs}", "give at least 1")
        _require(passes >= 0, f"passes={passes}", "give 0 for no erasing, or a number of forwards of the localizer")
        whole = isinstance(erase_from_epoch, int) and erase_from_epoch >= 0
        _require(whole, f"erase_from_epoch={erase_from_epoch!r}", "give a whole number from 0")
        _require(sigma > 0, f"sigma={sigma}", "give a positive number")
        _require(step_reduction in ("sum", "mean"), f"step_reduction={step_reduction!r}", "choose sum or mean")
        _require(counted in ("alive", "all", "trusted"), f"counted={counted!r}", "choose alive, all or trusted")
        _require(untrusted in ("blank", "plain", "skip"), f"untrusted={untrusted!r}", "choose blank, plain or skip")
        switches = {"rescale_trust": rescale_trust, "permanent_loss_test": permanent_loss_test}
        for name, value in {**switches, "reuse_dropout": reuse_dropout}.items():  # a text such as "false" is true
            _require(isinstance(value, bool), f"{name}={value!r}", "give True or False")
        _require(0 <= memory <= 1, f"memory={memory}", "give 0 for none, or a number up to 1")
        _require(0 < memory_radius <= 1, f"memory_radius={memory_radius}", "give a fraction above 0, at most 1")
        _require(
            kwargs.get("accumulation_steps", 1) == 1 and not kwargs.get("compile", False),
            "accumulation_steps and compile do not go with the erasing recursion",
            "leave them out: memory does not grow with passes",
        )
        exact = network.batch_norm == "frozen" and network.normalisation != "batch"
        exact = exact and counted != "all" and permanent_loss_test
        _require(
            exact or not alive_only,
            "alive_only would change the gradient",
            "it needs batch_norm=frozen, normalisation=sample, permanent_loss_test=true and counted=alive or trusted",
        )
        loss_function = MinMaxEntropyLoss() if loss_function is None else loss_function
        _require(
            network.differentiable_mask or not loss_function.constraints,
            "a constraint on a mask without gradient trains nothing",
            "set differentiable_mask=true, or the weights size and variation of the loss to 0",
        )
        if network.batch_norm == "frozen" and not network.trunk.weights_sha256:
            warnings.warn(
                "frozen batch normalisation on random weights normalises nothing: give weights, or batch_norm=batch",
                stacklevel=2,
            )
        terms = [f"loss_{name}" for name in ("relevant", "irrelevant", "localizer", *loss_function.constraints)]
        defaults = {"prepare_batch": ImageLabels(), "key_train_metric": loss_means(device)}
        defaults |= {"metric_cmp_fn": lower_is_better, "decollate": False}
        kwargs["additional_metrics"] = {**loss_means(device, *terms), **(kwargs.get("additional_metrics") or {})}
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            amp=amp,
            amp_kwargs={"dtype": torch.bfloat16, **(amp_kwargs or {})},
            optim_set_to_none=True,
            **{**defaults, **kwargs},
        )
        self.passes = passes
        self.erase_from_epoch = erase_from_epoch
        self.sigma = sigma
        self.step_reduction = step_reduction
        self.counted = counted
        self.untrusted = untrusted
        self.rescale_trust = rescale_trust
        self.permanent_loss_test = permanent_loss_test
        self.alive_only = exact if alive_only is None else alive_only
        self.reuse_dropout = reuse_dropout
        self.memory = memory
        self.memory_radius = memory_radius
        self.scaler: torch.amp.GradScaler | None = None

    def settings(self) -> dict[str, Any]:
        """What must be the same for an interrupted run to go on as it began, as JSON values."""
        return {
            **self.loss_function.settings(),
            "passes": self.passes,
            "erase_from_epoch": self.erase_from_epoch,
            "sigma": self.sigma,
            "step_reduction": self.step_reduction,
            "counted": self.counted,
            "untrusted": self.untrusted,
            "rescale_trust": self.rescale_trust,
            "permanent_loss_test": self.permanent_loss_test,
            "alive_only": self.alive_only,
            "reuse_dropout": self.reuse_dropout,
            "memory": self.memory,
            "memory_radius": self.memory_radius,
            "differentiable_mask": self.network.differentiable_mask,
        }

    def run(self) -> None:
        """Train; called again, go on from where it stopped."""
        # Not super().run(): MONAI's scaler is for CUDA only. bfloat16 has float32's range and needs no scaling.
        scale = self.amp and self.amp_kwargs["dtype"] == torch.float16
        self.scaler = torch.amp.GradScaler(self.state.device.type) if scale else None
        Workflow.run(self)

    def _iteration(self, engine: MinMaxEntropyTrainer, batchdata: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One optimiser step.

        Returns:
            ``image``, ``label``; ``pred``: ``[B, c]`` class probabilities of C on X+; ``loss``: the loss that was
            optimised, the exact sum of its terms, which :class:`~glas_wsol.losses.LossKeys` names.

        Raises:
            ConfigError: if the labels do not fit the network's ``multi_label``.
        """
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        image, label = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        _require(
            (label.ndim == 2) == engine.network.multi_label,
            f"labels of shape {tuple(label.shape)} with multi_label={engine.network.multi_label}",
            "give the network and the data the same multi_label",
        )
        output: dict[str, Tensor] = {Keys.IMAGE: image, Keys.LABEL: label}
        engine.state.output = output
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        try:
            with torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs):
                kept, localizer_loss, first_region = self._localize(engine.network.normalise(image), label)
                size, variation = engine.loss_function.mask_terms(first_region, engine.state.epoch - 1)
                # Normalised again: held through the recursion, it would be one more mini-batch at the peak.
                x = engine.network.normalise(image)
                logits, relevant, irrelevant = self._classify(x, label, kept, localizer_loss + size + variation)
        except ValueError as error:
            _require("more than 1 value per channel" not in str(error), *_LONE_VALUE)
            raise
        terms = {
            LossKeys.RELEVANT: relevant.detach(),
            LossKeys.IRRELEVANT: irrelevant.detach(),
            LossKeys.LOCALIZER: localizer_loss.detach(),
            LossKeys.SIZE: size.detach(),
            LossKeys.VARIATION: variation.detach(),
        }
        output.update(terms)
        output[Keys.LOSS] = cast("Tensor", sum(terms.values()))
        output[Keys.PRED] = engine.network.probabilities(logits.detach())
        for event in (
            IterationEvents.FORWARD_COMPLETED,
            IterationEvents.LOSS_COMPLETED,
            IterationEvents.BACKWARD_COMPLETED,
        ):
            engine.fire_event(event)
        if self.scaler is None:
            engine.optimizer.step()
        else:
            self.scaler.step(engine.optimizer)
            self.scaler.update()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    def _localize(self, x: Tensor, label: Tensor) -> tuple[erasing.KeptRegion, Tensor, Tensor]:
        """The recursion: forwards of M, each backpropagated at once; the region they found together, Hs and R_0."""
        erase = self.passes > 0 and self.state.epoch > self.erase_from_epoch  # Ignite counts epochs from 1
        state = erasing.start(x, label > 0 if self.network.multi_label else None)
        total, dropout, index = x.new_zeros(()), None, None
        count = len(x)
        del x  # the state holds it as long as it is needed
        forwards = self.passes if erase else 1
        for step in range(forwards):
            self.fire_event(IterationEvents.INNER_ITERATION_STARTED)
            localized = self.network.localize(_part(state.erased, index), _part(dropout, index))
            if step == 0:
                dropout = localized.dropout if self.reuse_dropout else None
                first_region = self.network.decidable(localized)
            losses = cross_entropy(localized.logits, _part(label, index))
            judged = erasing.judged(state, localized.logits, losses, label, index, self.sigma)
            if self.counted == "trusted":
                counts = judged.sound
            else:
                counts = torch.ones_like(state.alive) if step == 0 or self.counted == "all" else state.sound
            loss = self.loss_function.localizer_term(losses, _part(counts, index), count)
            # Copied before the backward pass is queued and read after it: the device does not wait.
            asked = AsyncHostCopy(judged.samples)
            total = total + self._backward(loss)
            mask = localized.mask
            if self.memory > 0:
                mask = erasing.remember(mask, state, self.memory, self.memory_radius, self.network.omega, index)
            state = erasing.advance(
                state, localized.logits, losses, mask, label, index, self.sigma, self.permanent_loss_test
            )
            self.fire_event(IterationEvents.INNER_ITERATION_COMPLETED)
            if step + 1 == forwards:
                break
            survivors = asked.get().nonzero().squeeze(1).to(label.device, non_blocking=True)
            if not self._goes_on(survivors.shape[0] > 0):
                break
            index = survivors if self.alive_only and survivors.shape[0] < count else None
        if self.step_reduction == "mean":
            steps = distributed.all_reduce_max(state.step)
            total = total / steps
            if not self.network.differentiable_mask:
                for parameter in self.network.parameters():
                    if parameter.grad is not None:
                        parameter.grad /= steps
        if erase:
            return erasing.keep(state, self.untrusted, self.rescale_trust), total, first_region
        return erasing.KeptRegion(first_region, torch.ones_like(state.alive)), total, first_region

    def _goes_on(self, alive: bool) -> bool:
        """Whether another step is run: by all samples while any of the mini-batch is alive, in whatever process."""
        return alive if self.alive_only else distributed.any_rank(alive)

    def _classify(
        self, x: Tensor, label: Tensor, kept: erasing.KeptRegion, held: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """C on both regions of the *original* image, and their gradients, with those of ``held``."""
        network, loss = self.network, self.loss_function
        if network.differentiable_mask:  # one graph holds all: memory grows with passes
            positive, negative = network.classify(x * kept.mask), network.classify(x * (1 - kept.mask))
            relevant, irrelevant = loss(positive, negative, label, kept.counted)
            self._scaled(held + relevant + irrelevant).backward()
        elif network.batch_norm == "frozen" and network.classifier_scale <= 0.5:
            # Samples do not meet in frozen layers: one forward for both, and at half scale no higher peak.
            both = network.classify(torch.cat([x * kept.mask, x * (1 - kept.mask)]))
            positive, negative = both.chunk(2)
            relevant, irrelevant = loss(positive, negative, label, kept.counted)
            self._scaled(relevant + irrelevant).backward()
        else:  # batch statistics of X+ and X- must not mix, and one graph at a time keeps the peak low
            positive = network.classify(x * kept.mask)
            relevant = self._backward(loss.relevant_term(positive, label, kept.counted))
            irrelevant = self._backward(loss.irrelevant_term(network.classify(x * (1 - kept.mask)), kept.counted))
        return positive, relevant, irrelevant

    def _backward(self, loss: Tensor) -> Tensor:
        """Backpropagate now and return the value; with a differentiable mask return the graph, to be used later."""
        if self.network.differentiable_mask:
            return loss
        self._scaled(loss).backward()
        return loss.detach()

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)


_Part = TypeVar("_Part", Tensor, "Tensor | None")


def _part(values: _Part, index: Tensor | None) -> _Part:
    return values if values is None or index is None else values[index]


def _require(condition: bool, what: str, fix: str) -> None:
    if not condition:
        raise ConfigError(what, "MinMaxEntropyTrainer", fix)
