# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The step of the trainer against one big retained graph, its memory, its events and what it refuses."""

from __future__ import annotations

import copy
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.engines.utils import IterationEvents
from scipy.ndimage import distance_transform_cdt
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.engines import MinMaxEntropyTrainer, erasing
from glas_wsol.engines import trainer as engines
from glas_wsol.errors import ConfigError
from glas_wsol.losses import LossKeys, MinMaxEntropyLoss
from tests.conftest import tiny_network


class CountingSGD(torch.optim.SGD):
    """Counts its steps and leaves the weights alone, so that gradients can be read afterwards."""

    steps = 0

    def step(self, closure: Any = None) -> None:
        self.steps += 1


def one_step(network, batch, *, epoch: int = 2, tries: int = 1, **options) -> tuple[dict, MinMaxEntropyTrainer]:
    optimizer = CountingSGD(network.parameters(), lr=0.0)
    trainer = MinMaxEntropyTrainer("cpu", epoch, [batch] * tries, network, optimizer, **{"decollate": False, **options})
    trainer.state.epoch = epoch - 1  # so that the one epoch run is the wanted one
    torch.manual_seed(11)
    trainer.run()
    return trainer.state.output, trainer


def beside(found: Tensor, radius: int) -> Tensor:
    """The prior of the memory, sample by sample, from a distance transform."""
    distance = [distance_transform_cdt(~one[0].numpy(), metric="chessboard") for one in found]
    near = torch.tensor(np.stack(distance)).unsqueeze(1)
    return torch.where(near == 0, 0.0, (1 - (near - 1) / radius).clamp(min=0)).double()


def retained_graph(
    network,
    batch,
    passes: int,
    *,
    untrusted="blank",
    counted="alive",
    weights=(1, 1, 1),
    sigma=10.0,
    constraint=None,
    memory=0.0,
    memory_radius=0.1,
    permanent_loss_test=True,
):
    """The method as one expression: every forward kept, one backward at the end. Written from the paper's equations."""
    network.train()
    x, y = network.normalise(batch["image"]), batch["label"]
    size = len(y)
    torch.manual_seed(11)
    erased, found = x, torch.zeros_like(x[:, :1])
    alive, ever, largest = torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool), None
    total, first_loss, first_mask, dropout, alive_at = 0.0, None, None, None, []
    trusted = alive
    for t in range(max(passes, 1)):
        if not trusted.any():
            break
        alive_at.append(int(alive.sum()))
        m = network.localize(erased, dropout)
        dropout = m.dropout
        losses = F.cross_entropy(m.logits, y, reduction="none")
        first_loss = losses.detach() if t == 0 else first_loss
        first_mask = m.mask if t == 0 else first_mask
        p = m.logits.softmax(1).detach()
        psi = torch.tensor(
            [
                math.exp(-t / sigma) * float(p[i, y[i]])
                if alive[i] and int(p[i].argmax()) == int(y[i]) and float(losses[i].detach()) <= float(first_loss[i])
                else 0.0
                for i in range(size)
            ],
            dtype=x.dtype,
        ).view(-1, 1, 1, 1)
        trusted = psi.flatten() > 0
        included = torch.ones(size, dtype=torch.bool) if t == 0 or counted == "all" else alive
        included = trusted if counted == "trusted" else included
        total = total + weights[2] * (losses * included).sum() / size
        mask = m.mask
        if memory and t > 0:  # back to the evidence: T = logit(R) / omega + sigma'
            evidence = torch.logit(mask) / network.omega + network.sigma
            known = (found.detach() >= 0.5 * largest) & (largest > 0)
            prior = torch.zeros_like(found)
            if known.any():
                some = known.flatten(1).any(1)
                prior[some] = memory * beside(known[some], round(memory_radius * min(x.shape[2:])))
            mask = torch.sigmoid(network.omega * (evidence + prior - network.sigma))
        largest = psi if largest is None else torch.maximum(largest, psi)
        found = torch.maximum(found, psi * mask)
        erased = torch.where(psi > 0, erased * (1 - found.detach()), erased)
        right = torch.tensor([int(p[i].argmax()) == int(y[i]) for i in range(size)])
        alive = trusted if permanent_loss_test else alive & right
        ever |= trusted
    if passes == 0:
        found, ever = first_mask, torch.ones_like(ever)
    if untrusted == "plain":
        found = torch.where(ever.view(-1, 1, 1, 1), found, first_mask)
    included = ever if untrusted == "skip" else torch.ones_like(ever)
    positive, negative = network.classify(x * found), network.classify(x * (1 - found))
    relevant = (F.cross_entropy(positive, y, reduction="none") * included).sum() / included.sum().clamp(min=1)
    irrelevant = (-F.log_softmax(negative, 1).mean(1) * included).sum() / included.sum().clamp(min=1)
    loss = total + weights[0] * relevant + weights[1] * irrelevant
    if constraint is not None:
        loss = loss + constraint(first_mask)
    loss.backward()
    return loss.detach(), alive_at


def gradients(network) -> Tensor:
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in network.parameters()]
    )


MEMORY = {"memory": 0.3, "memory_radius": 0.125}  # 8 px
READINGS = (
    {"counted": "all"},
    {"counted": "trusted"},
    {"permanent_loss_test": False},
    {"counted": "all", "permanent_loss_test": False},
)


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
@pytest.mark.parametrize("passes", [0, 1, 4])
@pytest.mark.parametrize("options", [{}, {"untrusted": "plain"}, {"untrusted": "skip"}, *READINGS, MEMORY])
def test_gradient_equals_that_of_one_retained_graph(batch, batch_norm, passes, options):
    # weights of the seed chosen so that samples die at different depths (asserted below)
    network = tiny_network(seed=5, batch_norm=batch_norm, pooling_options={"dropout": 0.5}).double()
    reference = copy.deepcopy(network)
    output, trainer = one_step(network, batch, passes=passes, **options)
    loss, alive_at = retained_graph(reference, batch, passes, **options)
    if passes == 4:
        assert len(alive_at) > 1, "the recursion must go deeper than one step for this test to mean anything"
        assert alive_at[1] < alive_at[0], "some sample must be out"
    expected, got = gradients(reference), gradients(network)
    assert expected.norm() > 1e-3
    assert float((got - expected).norm() / expected.norm()) < 1e-12
    assert float(abs(output["loss"] - loss)) < 1e-12
    for own, other in zip(network.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    assert trainer.optimizer.steps == 1


@pytest.mark.parametrize("options", [{}, MEMORY])
def test_differentiable_mask_has_gradient_of_retained_graph(batch, options):
    network = tiny_network(seed=5, differentiable_mask=True, pooling_options={"dropout": 0.0}).double()
    detached = copy.deepcopy(network)
    detached.differentiable_mask = False
    reference = copy.deepcopy(network)
    one_step(network, batch, passes=4, **options)
    one_step(detached, batch, passes=4, **options)
    retained_graph(reference, batch, 4, **options)
    torch.testing.assert_close(gradients(network), gradients(reference), rtol=1e-10, atol=1e-13)
    assert (gradients(network) - gradients(detached)).norm() > 1e-4, "the mask's gradient must reach M"


def constraint(mask: Tensor, t: float, low: float, high: float) -> Tensor:
    """0.7 of the band of sizes and 0.3 of the total variation, pixel by pixel."""
    total = 0.0
    for image in mask[:, 0]:
        height, width = image.shape
        for z in (low - image.sum() / (height * width), image.sum() / (height * width) - high):
            total = total + 0.7 * (-torch.log(-z) / t if z <= -1 / t**2 else t * z + 2 * math.log(t) / t + 1 / t)
        rows = sum((image[:, j + 1] - image[:, j]).abs().sum() for j in range(width - 1))
        columns = sum((image[i + 1] - image[i]).abs().sum() for i in range(height - 1))
        total = total + 0.3 * (rows / height + columns / width)
    return total / len(mask)


CONSTRAINED = {"size": 0.7, "band": (0.45, 0.95), "barrier": 4.0, "barrier_growth": 1.25, "variation": 0.3}


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
@pytest.mark.parametrize("passes", [0, 4])
def test_constraints_act_on_first_mask_and_are_logged(batch, batch_norm, passes):
    options = {"batch_norm": batch_norm, "differentiable_mask": True, "pooling_options": {"dropout": 0.5}}
    networks = [tiny_network(seed=5, **options).double() for _ in "abc"]
    output, _ = one_step(networks[0], batch, passes=passes, loss_function=MinMaxEntropyLoss(**CONSTRAINED))
    free, _ = one_step(networks[1], batch, passes=passes)
    # epoch 1, counted from 0: t = 4 * 1.25
    loss, _ = retained_graph(networks[2], batch, passes, constraint=lambda mask: constraint(mask, 5.0, 0.45, 0.95))
    expected, got = gradients(networks[2]), gradients(networks[0])
    assert float((got - expected).norm() / expected.norm()) < 1e-12
    assert (got - gradients(networks[1])).norm() > 1e-2 * expected.norm(), "the constraints' gradient must be in it"
    torch.testing.assert_close(output["loss"], loss, rtol=1e-13, atol=0)
    keys = ("RELEVANT", "IRRELEVANT", "LOCALIZER", "SIZE", "VARIATION")
    assert output["loss"] == sum(output[getattr(LossKeys, key)] for key in keys)
    assert output[LossKeys.SIZE] > 0
    assert output[LossKeys.VARIATION] > 0
    assert free[LossKeys.SIZE] == free[LossKeys.VARIATION] == 0


@pytest.mark.parametrize("counted", ["alive", "all", "trusted"])
@pytest.mark.parametrize("permanent", [True, False])
def test_each_reading_of_the_erasing_has_its_own_gradient(batch, counted, permanent):
    # weights of the seed chosen so that a sample fails the loss test and passes it again
    options = {"counted": counted, "permanent_loss_test": permanent}
    networks = [tiny_network(seed=9, pooling_options={"dropout": 0.5}).double() for _ in "abcd"]
    one_step(networks[0], batch, passes=4, **options)
    retained_graph(networks[1], batch, 4, **options)
    one_step(networks[2], batch, passes=4, **{**options, "permanent_loss_test": not permanent})
    one_step(networks[3], batch, passes=4, **{**options, "counted": "trusted" if counted == "all" else "all"})
    own, reference, *others = map(gradients, networks)
    assert float((own - reference).norm() / reference.norm()) < 1e-12
    assert all((own - other).norm() > 1e-2 for other in others)


def test_a_constraint_moves_the_area_into_its_band(batch):
    network = tiny_network(seed=5, differentiable_mask=True, pooling_options={"dropout": 0.0}).double()
    loss = MinMaxEntropyLoss(0, 0, 0, size=1.0, band=(0.1, 0.3), barrier=20.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    trainer = MinMaxEntropyTrainer("cpu", 30, [batch], network, optimizer, loss, passes=0, decollate=False)

    def areas() -> Tensor:
        return network.train().localize(network.normalise(batch["image"])).mask.mean(dim=(1, 2, 3)).detach()

    assert (areas() > 0.3).any()
    trainer.run()
    assert ((areas() > 0.1) & (areas() < 0.3)).all()


@pytest.mark.parametrize("weight", ["size", "variation"])
def test_a_constraint_on_a_mask_without_gradient_is_refused(batch, weight):
    with pytest.raises(ConfigError, match="differentiable_mask"):
        one_step(tiny_network().double(), batch, loss_function=MinMaxEntropyLoss(**{weight: 0.1}))


def test_constraints_where_given_are_averaged_over_epoch(batch):
    network = tiny_network(differentiable_mask=True).double()
    own = {"key_train_metric": {"loss": Average(lambda output: output["loss"])}}
    loss = MinMaxEntropyLoss(size=1.0)
    _, trainer = one_step(network, batch, loss_function=loss, additional_metrics={"own": Average(len)}, **own)
    terms = {f"loss_{term}" for term in ("relevant", "irrelevant", "localizer", "size")}
    assert set(trainer.state.metrics) == {"loss", "own", *terms}
    assert trainer.state.metrics["loss_size"] == pytest.approx(float(trainer.state.output[LossKeys.SIZE]))
    _, trainer = one_step(network, batch, key_train_metric={"loss": Average(lambda output: output["loss"])})
    assert set(trainer.state.metrics) == {"loss", *terms - {"loss_size"}}


def test_memory_changes_later_steps_only_and_zero_none(batch):
    def gradient(**options) -> Tensor:
        network = tiny_network(seed=5, pooling_options={"dropout": 0.5}).double()
        one_step(network, batch, **options)
        return gradients(network)

    assert torch.equal(gradient(passes=4, memory=0.0, memory_radius=0.5), gradient(passes=4))
    assert torch.equal(gradient(passes=1, **MEMORY), gradient(passes=1))
    assert (gradient(passes=4, **MEMORY) - gradient(passes=4)).norm() > 1e-6


def test_memory_second_step_grows_next_to_first_region(batch):
    # M always names class 0, finds a block first, and then the same weak evidence everywhere: T = 0.4.
    network = sure_network()
    block = torch.zeros(1, 1, 96, 64, dtype=torch.float64)
    block[..., 40:60, 10:30] = 1
    evidence = [block, torch.full_like(block, 0.4)]
    localize, seen = network.localize, []

    def stub(x, dropout=None):
        localized = localize(x, dropout)
        mask = torch.sigmoid(8 * (evidence[len(seen) % 2] - 0.5)).expand(len(x), -1, -1, -1)
        seen.append(x)
        return localized._replace(mask=mask)

    def kept(**options) -> Tensor:
        seen.clear()
        inputs: list[Tensor] = []
        network.classify = lambda x: inputs.append(x) or type(network).classify(network, x)
        right = {"image": batch["image"], "label": torch.zeros(6, dtype=torch.long)}
        one_step(network, right, passes=2, rescale_trust=True, sigma=1e9, **options)
        assert len(seen) == 2
        return (inputs[0] / network.normalise(batch["image"]))[:, :1]

    network.localize = stub
    forgetful, remembering = kept(), kept(memory=0.3, memory_radius=0.125)
    ring = torch.zeros_like(block, dtype=torch.bool)
    ring[..., 38:62, 8:32] = True  # 2 px: T = 0.4 + 0.3 * (1, 7 / 8) is above the threshold
    ring &= block == 0
    assert (forgetful[ring.expand(6, -1, -1, -1)] < 0.5).all()
    assert (remembering[ring.expand(6, -1, -1, -1)] > 0.5).all()
    beyond = torch.ones_like(ring)
    beyond[..., 32:68, 2:38] = False  # 8 px
    for where in (beyond, block > 0):
        region = where.expand(6, -1, -1, -1)
        torch.testing.assert_close(remembering[region], forgetful[region], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_mean_over_steps_divides_the_localizer_gradient(batch, batch_norm):
    networks = [tiny_network(seed=5, batch_norm=batch_norm, pooling_options={"dropout": 0.0}).double() for _ in "abc"]
    loss = {"loss_function": MinMaxEntropyLoss(relevant=0, irrelevant=0)}
    summed, _ = one_step(networks[0], batch, passes=4, **loss)
    averaged, _ = one_step(networks[1], batch, passes=4, step_reduction="mean", **loss)
    _, alive_at = retained_graph(networks[2], batch, 4)
    torch.testing.assert_close(gradients(networks[1]) * len(alive_at), gradients(networks[0]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(averaged["loss"] * len(alive_at), summed["loss"])


@pytest.mark.parametrize("options", [{}, {"counted": "trusted"}, MEMORY])
def test_alive_samples_only_where_allowed_changes_nothing(batch, options):
    networks = [tiny_network(seed=5, batch_norm="frozen", pooling_options={"dropout": 0.5}).double() for _ in "ab"]
    part, _ = one_step(networks[0], batch, passes=4, alive_only=True, **options)
    full, _ = one_step(networks[1], batch, passes=4, alive_only=False, **options)
    torch.testing.assert_close(gradients(networks[0]), gradients(networks[1]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(part["loss"], full["loss"], rtol=1e-13, atol=0)


def test_alive_samples_only_differentiable_mask_changes_nothing(batch):
    options = {"batch_norm": "frozen", "pooling_options": {"dropout": 0.5}, "differentiable_mask": True}
    networks = [tiny_network(seed=5, **options).double() for _ in "abc"]
    networks[2].differentiable_mask = False
    part, _ = one_step(networks[0], batch, passes=4, alive_only=True)
    full, _ = one_step(networks[1], batch, passes=4, alive_only=False)
    one_step(networks[2], batch, passes=4)
    torch.testing.assert_close(gradients(networks[0]), gradients(networks[1]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(part["loss"], full["loss"], rtol=1e-13, atol=0)
    assert (gradients(networks[0]) - gradients(networks[2])).norm() > 1e-4, "the mask's gradient is in it"


@pytest.mark.parametrize(
    ("network_options", "options"),
    [
        ({"batch_norm": "batch"}, {}),
        ({"normalisation": "batch"}, {}),
        ({}, {"counted": "all"}),
        ({}, {"permanent_loss_test": False}),
    ],
)
def test_alive_samples_only_where_wrong_is_refused(batch, network_options, options):
    network = tiny_network(**{"batch_norm": "frozen", **network_options}).double()
    with pytest.raises(ConfigError, match="change the gradient"):
        one_step(network, batch, alive_only=True, **options)


def test_logged_loss_is_exact_weighted_sum_of_terms(batch):
    network = tiny_network(seed=5).double()
    reference = copy.deepcopy(network)
    output, _ = one_step(network, batch, passes=4, loss_function=MinMaxEntropyLoss(0.5, 2.0, 0.25))
    assert output["loss"] == output[LossKeys.RELEVANT] + output[LossKeys.IRRELEVANT] + output[LossKeys.LOCALIZER]
    loss, _ = retained_graph(reference, batch, 4, weights=(0.5, 2.0, 0.25))
    torch.testing.assert_close(output["loss"], loss)
    torch.testing.assert_close(gradients(network), gradients(reference), rtol=1e-12, atol=1e-14)


def sure_network(batch_norm: str = "batch"):
    """Always says class 0 and is never less sure when erased, so that with label 0 every step is really taken."""
    network = tiny_network(seed=5, batch_norm=batch_norm, pooling_options={"dropout": 0.0}).double()
    torch.nn.init.zeros_(network.localizer.to_maps.weight)
    network.localizer.to_maps.bias.data = torch.tensor([2.0] * 5 + [-2.0] * 5).double()
    return network


def count_inner_steps(network, batch, **options) -> tuple[list[str], MinMaxEntropyTrainer]:
    fired: list[str] = []
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    trainer = MinMaxEntropyTrainer("cpu", 2, [batch], network, optimizer, decollate=False, **options)
    trainer.state.epoch = 1
    for event in IterationEvents:
        trainer.add_event_handler(event, lambda _, name: fired.append(name), event.name)
    trainer.run()
    return fired, trainer


def test_the_loop_stops_when_all_trust_is_zero(batch):
    network = sure_network()
    always_wrong = {"image": batch["image"], "label": torch.ones(6, dtype=torch.long)}  # M says 0, whatever it sees
    always_right = {"image": batch["image"], "label": torch.zeros(6, dtype=torch.long)}
    fired, _ = count_inner_steps(copy.deepcopy(network), always_wrong, passes=8)
    assert fired.count("INNER_ITERATION_COMPLETED") == 1
    fired, trainer = count_inner_steps(network, always_right, passes=3)
    assert fired.count("INNER_ITERATION_COMPLETED") == 3
    assert trainer.state.output["pred"].shape == (6, 2)


@pytest.mark.parametrize(("passes", "steps"), [(0, 1), (1, 1), (3, 3)])
def test_every_event_of_monai_is_fired_in_order(batch, passes, steps):
    right = {"image": batch["image"], "label": torch.zeros(6, dtype=torch.long)}
    fired, _ = count_inner_steps(sure_network(), right, passes=passes)
    assert fired == [
        *["INNER_ITERATION_STARTED", "INNER_ITERATION_COMPLETED"] * steps,
        "FORWARD_COMPLETED",
        "LOSS_COMPLETED",
        "BACKWARD_COMPLETED",
        "MODEL_COMPLETED",
    ]


def test_erasing_starts_at_epoch_one(batch):
    network = tiny_network(seed=5, pooling_options={"dropout": 0.0}).double()
    twin = copy.deepcopy(network)
    one_step(network, batch, epoch=1, passes=4)
    one_step(twin, batch, epoch=1, passes=0)
    assert torch.equal(gradients(network), gradients(twin))
    one_step(network, batch, epoch=1, passes=4, erase_from_epoch=0)
    assert not torch.equal(gradients(network), gradients(twin))


def test_the_dropout_pattern_is_reused_at_every_step(batch):
    network = tiny_network(seed=5, pooling_options={"dropout": 0.5}).double()
    patterns: list[Tensor] = []
    localize = network.localize

    def recording(x, dropout=None):
        result = localize(x, dropout)
        patterns.append(result.dropout)
        return result

    network.localize = recording
    one_step(network, batch, passes=4, alive_only=False)
    assert len(patterns) > 1
    assert all(torch.equal(pattern, patterns[0]) for pattern in patterns)
    patterns.clear()
    one_step(network, batch, passes=4, reuse_dropout=False)
    assert len(patterns) > 1
    assert not torch.equal(patterns[0], patterns[1])


class SavedBytes:
    """Bytes of the tensors that autograd keeps for backward, now and at most; freed storages are subtracted."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> Any:
        meter, size = self, tensor.numel() * tensor.element_size()

        class Held:
            def __init__(self) -> None:
                self.tensor = tensor
                meter.now += size
                meter.peak = max(meter.peak, meter.now)

            def __del__(self) -> None:
                meter.now -= size

        return Held()

    def measure(self, network, batch, passes: int) -> int:
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.tensor):
            fired, _ = count_inner_steps(network, batch, passes=passes, sigma=1e9)
        self.steps = fired.count("INNER_ITERATION_COMPLETED")
        return self.peak


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_live_tensor_bytes_do_not_grow_with_passes(batch, batch_norm):
    right = {"image": batch["image"], "label": torch.zeros(6, dtype=torch.long)}
    shallow, deep = SavedBytes(), SavedBytes()
    one = shallow.measure(sure_network(batch_norm), right, 1)
    eight = deep.measure(sure_network(batch_norm), right, 8)
    assert (shallow.steps, deep.steps) == (1, 8)
    assert one > 100_000
    assert eight <= 1.01 * one
    assert deep.now == 0, "every graph must have been freed"


def test_bfloat16_runs_and_accumulates_gradients_in_float32(batch):
    network = tiny_network(seed=5)
    single = {"image": batch["image"].float(), "label": batch["label"]}
    output, trainer = one_step(network, single, passes=4, amp=True)
    assert trainer.scaler is None, "bfloat16 has float32's range"
    assert output["loss"].dtype == torch.float32
    assert torch.isfinite(output["loss"])
    assert all(p.grad.dtype == torch.float32 for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("step_reduction", ["sum", "mean"])
def test_float16_scaled_loss_has_gradients_of_float32(batch, step_reduction):
    single = {"image": batch["image"].float(), "label": batch["label"]}
    networks = [tiny_network(seed=5, pooling_options={"dropout": 0.0}) for _ in "ab"]
    options = {"passes": 4, "step_reduction": step_reduction}
    one_step(networks[0], single, **options)
    # The scaler halves its scale until nothing overflows, and unscales in place just before it lets the step be taken.
    output, trainer = one_step(networks[1], single, tries=8, amp=True, amp_kwargs={"dtype": torch.float16}, **options)
    assert trainer.scaler.is_enabled()
    assert trainer.optimizer.steps >= 1, "the last try at least must have been taken"
    expected, got = gradients(networks[0]), gradients(networks[1])
    assert expected.norm() > 1e-3
    assert float((got - expected).norm() / expected.norm()) < 0.05
    assert torch.isfinite(output["loss"])
    assert all(p.grad.dtype == torch.float32 for p in networks[1].parameters() if p.grad is not None)


def test_frozen_batch_norm_on_random_weights_is_warned_of(batch):
    network = tiny_network(batch_norm="frozen").double()
    with pytest.warns(UserWarning, match="frozen batch normalisation on random weights"):
        one_step(network, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_step(tiny_network(batch_norm="batch").double(), batch)
        network.trunk.weights_sha256 = "0" * 64
        one_step(network, batch)


@pytest.mark.parametrize(
    "options",
    [
        {"passes": -1},
        {"sigma": 0},
        {"untrusted": "no"},
        {"counted": "no"},
        *({name: "false"} for name in ("permanent_loss_test", "rescale_trust", "reuse_dropout")),
        {"step_reduction": "no"},
        *({"memory": value} for value in (-0.1, 1.1)),
        *({"memory_radius": value} for value in (0, 1.1)),
        {"accumulation_steps": 2},
        {"compile": True},
    ],
)
def test_bad_options_are_refused_in_one_line(batch, options):
    with pytest.raises(ConfigError) as caught:
        one_step(tiny_network().double(), batch, **options)
    assert "\n" not in str(caught.value)


def test_settings_tell_every_option_apart(batch):
    def settings(**options: Any) -> str:
        network = tiny_network(differentiable_mask=True, seed=0)
        return json.dumps(
            MinMaxEntropyTrainer("cpu", 1, [batch], network, CountingSGD(network.parameters()), **options).settings()
        )

    changed: list[dict[str, Any]] = [
        *({"loss_function": MinMaxEntropyLoss(**{name: 0.25})} for name in ("relevant", "size", "variation")),
        *({name: 0.25} for name in ("memory", "memory_radius", "sigma")),
        *(
            {"passes": 2},
            {"erase_from_epoch": 0},
            {"step_reduction": "mean"},
            {"counted": "all"},
            {"counted": "trusted"},
            {"permanent_loss_test": False},
            {"untrusted": "skip"},
        ),
        *({"rescale_trust": True}, {"reuse_dropout": False}),
    ]
    assert len({settings(**options) for options in [{}, *changed]}) == len(changed) + 1


def test_batch_statistics_single_value_is_refused_in_one_line():
    lone = {"image": torch.rand(1, 3, 32, 32), "label": torch.tensor([0])}
    with pytest.raises(ConfigError, match="batch statistics of a single value"):
        one_step(tiny_network(), lone)


def test_trainer_learns_a_class_carried_by_a_patch():
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(16) % 2
    image = 0.5 + 0.05 * torch.randn(16, 3, 64, 96, generator=generator)
    for i, y in enumerate(label.tolist()):
        image[i, y, 32:, 48:] += 0.4
    network = tiny_network(seed=1, pooling_options={"dropout": 0.0})
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loader = [{"image": image.clamp(0, 1), "label": label}] * 4
    trainer = MinMaxEntropyTrainer("cpu", 20, loader, network, optimizer, decollate=False, passes=2)
    history: list[float] = []
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: history.append(float(e.state.output[LossKeys.RELEVANT]))
    )
    trainer.run()
    assert history[-1] < 0.3 * history[0]


def test_alive_flags_are_copied_before_backward_and_read_after(batch, monkeypatch):
    """On a GPU the wait is then for the forward pass only, while the device works on the backward pass."""
    told: list[str] = []

    class AsyncHostCopy:
        def __init__(self, values):
            told.append("asked")
            self.values = values

        def get(self):
            told.append("read")
            return self.values

    backward = MinMaxEntropyTrainer._backward
    monkeypatch.setattr(engines, "AsyncHostCopy", AsyncHostCopy)
    monkeypatch.setattr(
        MinMaxEntropyTrainer, "_backward", lambda self, loss: told.append("backward") or backward(self, loss)
    )
    monkeypatch.setattr(erasing, "trust", lambda step, logits, *rest: torch.ones(len(logits), dtype=logits.dtype))
    one_step(tiny_network(batch_norm="frozen").double(), batch, passes=3)
    assert told[:7] == ["asked", "backward", "read"] * 2 + ["backward"]
    assert told.count("asked") == 2, "after the last pass nobody reads them"
