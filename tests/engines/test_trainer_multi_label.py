# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The trainer where an image may have several classes: against one retained graph written class by class."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from glas_wsol.engines import MinMaxEntropyTrainer
from glas_wsol.errors import ConfigError
from glas_wsol.losses import LossKeys, MinMaxEntropyLoss
from tests.conftest import tiny_network
from tests.engines.test_trainer import MEMORY, READINGS, beside, gradients, one_step

LABELS = [[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]]


def multi_label_network(seed: int = 3, dropout: float = 0.5, **options):
    return tiny_network(
        seed=seed, num_classes=3, multi_label=True, pooling_options={"dropout": dropout}, **options
    ).double()


@pytest.fixture
def batch(batch) -> dict[str, Tensor]:
    """The six images with one, two or all of three classes."""
    return {"image": batch["image"], "label": torch.tensor(LABELS, dtype=torch.float32)}


def retained_graph(
    network,
    batch,
    passes: int,
    *,
    untrusted="blank",
    counted="alive",
    weights=(1, 1, 1),
    sigma=10.0,
    variation=0.0,
    memory=0.0,
    memory_radius=0.1,
    permanent_loss_test=True,
):
    """The method pair by pair of sample and class: every forward kept, one backward at the end."""
    network.train()
    x, y = network.normalise(batch["image"]), batch["label"].tolist()
    samples, classes = range(len(y)), range(len(y[0]))
    torch.manual_seed(11)
    erased = [x[i] for i in samples]
    found = {(i, k): torch.zeros_like(x[i, 0]) for i in samples for k in classes}
    alive = {(i, k): y[i][k] == 1 for i in samples for k in classes}
    best = dict.fromkeys(found, 0.0)
    total, first_loss, first, dropout, history, trust = 0.0, {}, None, None, [], {}
    for t in range(max(passes, 1)):
        if t and not any(trust.values()):
            break
        history.append(dict(alive))
        m = network.localize(torch.stack(erased), dropout)
        first, dropout = m if t == 0 else first, m.dropout
        awake = [any(alive[i, k] for k in classes) for i in samples]
        trust, right = {}, {}
        for i, k in found:
            p = 1 / (1 + torch.exp(-m.logits[i, k]))
            loss = -torch.log(p if y[i][k] else 1 - p)
            first_loss.setdefault((i, k), float(loss.detach()))
            holds = alive[i, k] or (y[i][k] == 0 and awake[i])
            if counted != "trusted" and (t == 0 or counted == "all" or holds):
                total = total + weights[2] * loss / (len(y) * len(classes))
            right[i, k] = alive[i, k] and float(p.detach()) >= 0.5
            trusted = right[i, k] and float(loss.detach()) <= first_loss[i, k]
            trust[i, k] = math.exp(-t / sigma) * float(p.detach()) if trusted else 0.0
        for i, k in found:  # of a class that is absent, if a class of that image is trusted
            if counted == "trusted" and (trust[i, k] if y[i][k] else any(trust[i, j] for j in classes)):
                p = 1 / (1 + torch.exp(-m.logits[i, k]))
                total = total - weights[2] * torch.log(p if y[i][k] else 1 - p) / (len(y) * len(classes))
        for (i, k), psi in trust.items():
            mask = m.mask[i, k]
            if memory and t > 0 and best[i, k] > 0:
                known = found[i, k].detach() >= 0.5 * best[i, k]
                evidence = torch.logit(mask) / network.omega + network.sigma
                prior = memory * beside(known[None, None], round(memory_radius * min(x.shape[2:])))[0, 0]
                mask = torch.sigmoid(network.omega * (evidence + prior - network.sigma))
            alive[i, k] = psi > 0 if permanent_loss_test else right[i, k]
            best[i, k] = max(best[i, k], psi)
            found[i, k] = torch.maximum(found[i, k], psi * mask)
        for i in samples:
            taken = [found[i, k].detach() for k in classes if trust[i, k] > 0]
            if taken:
                erased[i] = erased[i] * (1 - torch.stack(taken).amax(0))

    def named(i: int) -> list[Tensor]:
        p = first.logits[i].sigmoid()
        return [first.mask[i, k] for k in classes if p[k] >= 0.5 or p[k] == p.max()]

    regions = [torch.stack(named(i)).amax(0) for i in samples]  # R_0
    first_region = torch.stack(regions).unsqueeze(1)
    if passes:
        for i in samples:
            mine = [
                first.mask[i, k] if untrusted == "plain" and y[i][k] and not best[i, k] else found[i, k]
                for k in classes
            ]
            regions[i] = torch.stack(mine).amax(0)
    kept = torch.stack(regions).unsqueeze(1)
    positive, negative = network.classify(x * kept).sigmoid(), network.classify(x * (1 - kept)).sigmoid()
    relevant, irrelevant, count = 0.0, 0.0, 0
    for i, k in found:
        missed = y[i][k] == 1 and best[i, k] == 0
        if passes and untrusted == "skip" and (missed or not any(best[i, j] for j in classes)):
            continue
        relevant = relevant - torch.log(positive[i, k] if y[i][k] else 1 - positive[i, k])
        irrelevant = irrelevant - 0.5 * (torch.log(negative[i, k]) + torch.log(1 - negative[i, k]))
        count += 1
    loss = total + (weights[0] * relevant + weights[1] * irrelevant) / max(count, 1)
    if variation:
        rows = (first_region[..., 1:, :] - first_region[..., :-1, :]).abs().sum() / x.shape[3]
        columns = (first_region[..., 1:] - first_region[..., :-1]).abs().sum() / x.shape[2]
        loss = loss + variation * (rows + columns) / len(y)
    loss.backward()
    return loss.detach(), history, best


def assert_goes_deep(history: list[dict], best: dict) -> None:
    """The cases the test is about have been met."""
    assert len(history) > 2, "the recursion must go deeper than two steps"
    samples = {i for i, _ in best}
    mixed = [
        i for i in samples if 0 < sum(history[1][i, k] for k in range(3)) < sum(history[0][i, k] for k in range(3))
    ]
    assert mixed, "a class of a sample lost its trust and another of its classes did not"
    assert any(not any(history[-1][i, k] for k in range(3)) for i in samples), "a whole sample was lost"
    assert any(history[0][pair] and not best[pair] for pair in best), "a present class was never trusted"


@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
@pytest.mark.parametrize("passes", [0, 1, 4])
@pytest.mark.parametrize("options", [{}, {"untrusted": "plain"}, {"untrusted": "skip"}, *READINGS, MEMORY])
def test_gradient_equals_that_of_one_retained_graph(batch, batch_norm, passes, options):
    network = multi_label_network(batch_norm=batch_norm)
    reference = copy.deepcopy(network)
    output, _ = one_step(network, batch, passes=passes, **options)
    loss, history, best = retained_graph(reference, batch, passes, **options)
    if passes == 4:
        assert_goes_deep(history, best)
    expected, got = gradients(reference), gradients(network)
    assert expected.norm() > 1e-3
    assert float((got - expected).norm() / expected.norm()) < 1e-12
    assert float(abs(output["loss"] - loss)) < 1e-12
    for own, other in zip(network.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    assert output["pred"].shape == (6, 3)
    assert float((output["pred"].sum(1) - 1).abs().min()) > 1e-3, "one sigmoid per class, no distribution over them"


def test_differentiable_mask_with_constraint_on_first_region(batch):
    network = multi_label_network(differentiable_mask=True, dropout=0.0)
    reference = copy.deepcopy(network)
    output, _ = one_step(network, batch, passes=4, loss_function=MinMaxEntropyLoss(variation=0.3))
    loss, _, _ = retained_graph(reference, batch, 4, variation=0.3)
    torch.testing.assert_close(gradients(network), gradients(reference), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(output["loss"], loss, rtol=1e-13, atol=0)
    assert output[LossKeys.VARIATION] > 0


@pytest.mark.parametrize("options", [{}, {"untrusted": "skip"}, MEMORY])
def test_alive_samples_only_where_allowed_changes_nothing(batch, options):
    networks = [multi_label_network(batch_norm="frozen") for _ in "ab"]
    sizes: list[int] = []
    localize = networks[0].localize
    networks[0].localize = lambda x, dropout=None: sizes.append(len(x)) or localize(x, dropout)
    part, _ = one_step(networks[0], batch, passes=4, alive_only=True, **options)
    full, _ = one_step(networks[1], batch, passes=4, alive_only=False, **options)
    assert min(sizes) < 6, "some samples were left out"
    torch.testing.assert_close(gradients(networks[0]), gradients(networks[1]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(part["loss"], full["loss"], rtol=1e-13, atol=0)


def test_what_is_not_several_classes_takes_the_way_of_one_class(batch):
    one = {"image": batch["image"], "label": torch.tensor([0, 1, 2, 2, 1, 0])}
    networks = [tiny_network(seed=5, num_classes=3, **options).double() for options in ({}, {"multi_label": False})]
    outputs = [one_step(network, one, passes=4)[0] for network in networks]
    assert torch.equal(gradients(networks[0]), gradients(networks[1]))
    assert torch.equal(outputs[0]["loss"], outputs[1]["loss"])


def test_labels_of_the_other_kind_are_refused_in_one_line(batch):
    with pytest.raises(ConfigError, match=r"labels of shape \(6, 3\) with multi_label=False"):
        one_step(tiny_network(num_classes=3).double(), batch)
    with pytest.raises(ConfigError, match=r"labels of shape \(6,\) with multi_label=True"):
        one_step(multi_label_network(), {"image": batch["image"], "label": torch.zeros(6, dtype=torch.long)})


def test_classes_and_regions_are_learnt_from_labels_alone():
    # Red above makes class 0, blue below class 1; images have one of them or both.
    image = 0.5 + 0.04 * torch.randn(6, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] * 2)
    image[label[:, 0] > 0, 0, :64, 32:96] += 0.4
    image[label[:, 1] > 0, 2, 64:, 32:96] += 0.4
    network = tiny_network(seed=0, num_classes=2, multi_label=True, pooling_options={"dropout": 0.0})
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
    data = [{"image": image, "label": label}] * 2
    MinMaxEntropyTrainer("cpu", 20, data, network, optimizer, passes=2, decollate=False).run()
    network.eval()
    with torch.no_grad():
        assert torch.equal((network.presence(image) >= 0.5).float(), label)
        region = 1 - network(image)[:, 0, :, 32:96]
    above, below = region[:, :64].mean(dim=(1, 2)), region[:, 64:].mean(dim=(1, 2))
    for i, (red, blue) in enumerate(label.tolist()):
        if red and blue:
            assert min(above[i], below[i]) > 0.5, "the region of an image of both is the union of both"
        else:
            assert (above[i] - below[i]) * (red - blue) > 0.2
