# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The min-max network: its contract, its options, its export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks import MinMaxEntropyNetwork
from glas_wsol.networks.minmax import Localized
from tests.conftest import tiny_network, tiny_trunk


def test_forward_is_a_distribution_at_every_pixel():
    network = tiny_network(num_classes=3).eval()
    image = torch.rand(2, 3, 96, 64)
    prediction = network(image)
    assert prediction.shape == (2, 4, 96, 64)
    assert float(prediction.min()) >= 0
    torch.testing.assert_close(prediction.sum(1), torch.ones(2, 96, 64))


def test_forward_is_mask_times_classifier_on_decidable_region():
    network = tiny_network().eval()
    image = torch.rand(2, 3, 96, 64)
    x = network.normalise(image)
    mask = network.localize(x).mask
    probabilities = network.classify(x * mask).softmax(1)
    prediction = network(image)
    torch.testing.assert_close(prediction[:, :1], 1 - mask)
    torch.testing.assert_close(prediction[:, 1:], mask * probabilities[:, :, None, None])


def test_localizer_and_classifier_share_only_the_trunk():
    network = tiny_network()
    trunk = {id(p) for p in network.trunk.parameters()}
    heads = [{id(p) for p in head.parameters()} for head in (network.localizer, network.classifier)]
    assert not heads[0] & heads[1]
    assert {id(p) for p in network.parameters()} == trunk | heads[0] | heads[1]
    groups = network.parameter_groups(1e-4, 1e-3)
    assert [g["lr"] for g in groups] == [1e-4, 1e-3]
    assert [{id(p) for p in g["params"]} for g in groups] == [trunk, heads[0] | heads[1]]


def test_the_mask_is_detached_unless_asked_for():
    x = torch.rand(1, 3, 64, 96)
    assert not tiny_network().localize(x).mask.requires_grad
    network = tiny_network(differentiable_mask=True)
    network.localize(x).mask.sum().backward()
    assert float(network.localizer.to_maps.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("differentiable_mask", [False, True])
def test_autocast_leaves_the_mask_in_float32(differentiable_mask):
    network = tiny_network(differentiable_mask=differentiable_mask).eval()
    x = network.normalise(torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0)))
    with torch.autocast("cpu", torch.bfloat16):
        low = network.localize(x)
    assert low.mask.dtype == torch.float32
    assert len(low.mask.unique()) > 2000, "bfloat16 has 128 values between 0.5 and 1"
    torch.testing.assert_close(low.mask, network.localize(x).mask, rtol=0, atol=0.1)


@pytest.mark.parametrize("mode", ["sample", "batch", "none"])
def test_mask_of_same_class_maps_under_autocast_is_bit_identical(mode):
    network = tiny_network(normalisation=mode, pooling_options={"dropout": 0.0})
    maps = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(1))
    network.class_maps = lambda _: maps
    x = torch.rand(2, 3, 96, 160)
    with torch.autocast("cpu", torch.bfloat16):
        low = network.localize(x).mask
    assert low.shape == (2, 1, 96, 160)
    assert torch.equal(low, network.localize(x).mask)


def test_frozen_batch_norm_in_training_updates_only_affine_part():
    network = tiny_network(batch_norm="frozen").train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    x = torch.rand(4, 3, 64, 64)
    together = network.trunk(x)
    alone = torch.cat([network.trunk(one[None]) for one in x])
    torch.testing.assert_close(together, alone)
    together.sum().backward()
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True))
    assert all(m.weight.grad is not None for m in norms)
    assert network.localizer.training, "only batch normalisation is frozen"


def test_classifier_scale_shrinks_image_to_at_least_one_position():
    sizes = []
    network = tiny_network().eval()
    network.trunk.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    for size in [(96, 64), (480, 128), (32, 32)]:
        network.classify(torch.rand(1, 3, *size))
    assert sizes == [(48, 32), (240, 64), (32, 32)]


def test_classifier_scale_with_differentiable_mask_is_the_same():
    x = torch.rand(1, 3, 96, 128)
    plain, other = tiny_network().eval(), tiny_network(differentiable_mask=True).eval()
    torch.testing.assert_close(plain.classify(x), other.classify(x))


def test_batch_normalised_mask_in_evaluation_is_per_image():
    network = tiny_network(normalisation="batch", pooling_options={"dropout": 0.0}, batch_norm="frozen")
    x = torch.rand(3, 3, 64, 64)
    network.eval()
    together, alone = network.localize(x).mask[1:2], network.localize(x[1:2]).mask
    torch.testing.assert_close(together, alone)
    network.train()
    assert not torch.allclose(network.localize(x).mask[1:2], network.localize(x[1:2]).mask)


def test_the_seed_fixes_the_heads_whatever_was_drawn_before():
    first = MinMaxEntropyNetwork(tiny_trunk(), seed=3)
    torch.rand(100)
    second = MinMaxEntropyNetwork(tiny_trunk(), seed=3)
    assert torch.equal(first.localizer.to_maps.weight, second.localizer.to_maps.weight)
    state = torch.get_rng_state()
    MinMaxEntropyNetwork(tiny_trunk(), seed=4)
    assert torch.equal(
        MinMaxEntropyNetwork(tiny_trunk(), seed=3).classifier.to_maps.bias, first.classifier.to_maps.bias
    )
    assert state.shape == torch.get_rng_state().shape


@pytest.mark.parametrize("differentiable_mask", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_classifier_s_input_is_shrunk_with_corners_as_asked(align_corners, differentiable_mask):
    options = {"classifier_align_corners": align_corners, "differentiable_mask": differentiable_mask}
    network, whole = tiny_network(**options).eval(), tiny_network(classifier_scale=1.0).eval()
    assert network.settings()["classifier_align_corners"] is align_corners
    x = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(5)).requires_grad_(differentiable_mask)
    rows, columns = (
        torch.linspace(0, n - 1, n // 2) if align_corners else 2 * torch.arange(n // 2) + 0.5 for n in (96, 160)
    )
    down, right = (at.floor().clamp(max=n - 2).long() for at, n in ((rows, 96), (columns, 160)))
    a, b = (rows - down)[:, None], (columns - right)[None, :]
    small = torch.zeros(2, 3, 48, 80)
    for i, p in ((0, 1 - a), (1, a)):
        for j, q in ((0, 1 - b), (1, b)):
            small = small + p * q * x[:, :, down + i][..., right + j]
    torch.testing.assert_close(network.classify(x), whole.classify(small), rtol=1e-4, atol=1e-5)


def test_a_blank_image_gives_a_finite_answer():
    for value in (0.0, 0.5, 1.0):
        prediction = tiny_network().eval()(torch.full((1, 3, 64, 96), value))
        assert torch.isfinite(prediction).all()
        torch.testing.assert_close(prediction.sum(1), torch.ones(1, 64, 96))


@pytest.mark.parametrize("trunk", ["resnet18", "efficientnet_lite0"])
def test_the_scripted_network_equals_the_eager_one(trunk):
    network = MinMaxEntropyNetwork(trunk, weights="none", seed=0).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))


@pytest.mark.parametrize(
    "options",
    [
        {"normalisation": "no"},
        {"batch_norm": "sync"},
        {"num_classes": 1},
        {"classifier_scale": 0},
        {"classifier_align_corners": "false"},
        {"differentiable_mask": "false"},
        {"pooling": "no"},
        {"multi_label": "many"},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        MinMaxEntropyNetwork(tiny_trunk(), **options)


def multi_label_network(**options):
    return tiny_network(num_classes=3, multi_label=True, **options)


def test_multi_label_regions_are_normalised_per_class():
    network = multi_label_network(pooling_options={"dropout": 0.0}, normalisation="sample").eval()
    maps = torch.randn(2, 3, 3, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 5, 0.1]).view(3, 1, 1)
    network.class_maps = lambda _: maps
    localized = network.localize(torch.rand(2, 3, 96, 160))
    assert localized.mask.shape == (2, 3, 96, 160)
    for i in range(2):
        for k in range(3):
            t = nn.functional.interpolate(maps[i, k][None, None], size=(96, 160), mode="bilinear", align_corners=True)
            expected = torch.sigmoid(8 * ((t - t.min()) / (t.max() - t.min() + 1e-6) - 0.5))[0, 0]
            torch.testing.assert_close(localized.mask[i, k], expected, rtol=0, atol=1e-4)


def test_multi_label_region_at_any_threshold_is_union_of_named():
    mask = torch.rand(3, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([[1.0, 0.0, -0.1], [-3.0, -2.0, -2.5], [0.2, -1.0, 3.0]])
    region = multi_label_network().decidable(Localized(logits, mask, None))
    assert region.shape == (3, 1, 5, 7)
    for i, named in enumerate([[0, 1], [1], [0, 2]]):  # p = 0.5 is named; of none, the most probable is
        for threshold in (0.2, 0.5, 0.9):
            union = torch.stack([mask[i, k] >= threshold for k in named]).any(0)
            assert torch.equal(region[i, 0] >= threshold, union)
    one = tiny_network().decidable(Localized(logits[:, :2], mask[:, :1], None))
    assert one.data_ptr() == mask.data_ptr(), "of one class, it is the mask itself"


def test_multi_label_forward_shares_region_by_p_and_own_region():
    network = multi_label_network().eval()
    network.localizer.to_maps.bias.data.fill_(0.3)
    image = torch.rand(4, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        prediction, x = network(image), network.normalise(image)
        localized = network.localize(x)
        region = network.decidable(localized)
        p_of_m, p_of_c = localized.logits.sigmoid(), network.classify(x * region).sigmoid()
        assert torch.equal(network.presence(image), p_of_c)
    torch.testing.assert_close(prediction.sum(1), torch.ones(4, 96, 64))
    torch.testing.assert_close(prediction[:, :1], 1 - region)
    counts = []
    for i in range(4):
        named = [k for k in range(3) if p_of_m[i, k] >= 0.5 or p_of_m[i, k] == p_of_m[i].max()]
        counts.append(len(named))
        weight = {k: p_of_c[i, k] * localized.mask[i, k] for k in named}
        for k in range(3):
            expected = region[i, 0] * weight[k] / sum(weight.values()) if k in named else torch.zeros(96, 64)
            torch.testing.assert_close(prediction[i, 1 + k], expected)
    assert max(counts) > 1, "some image must have several named classes"


@pytest.mark.parametrize("normalisation", ["sample", "none"])
def test_forward_zero_probability_and_empty_region_is_finite(normalisation):
    network = multi_label_network(normalisation=normalisation).eval()
    with torch.no_grad():
        network.classifier.to_maps.bias.fill_(-300.0)
        network.localizer.to_maps.weight.zero_()
        network.localizer.to_maps.bias.fill_(-50.0)
        prediction = network(torch.rand(1, 3, 64, 96))
    assert torch.isfinite(prediction).all()
    torch.testing.assert_close(prediction.sum(1), torch.ones(1, 64, 96))


def test_probabilities_sum_to_one_unless_multi_label():
    logits = torch.tensor([[0.0, 2.0, 2.0]])
    torch.testing.assert_close(tiny_network(num_classes=3).probabilities(logits), logits.softmax(1))
    torch.testing.assert_close(multi_label_network().probabilities(logits), 1 / (1 + (-logits).exp()))


def test_settings_record_multi_label_and_default_to_single_label():
    image = torch.rand(1, 3, 64, 96)
    default, one = tiny_network().eval(), tiny_network(multi_label=False).eval()
    assert torch.equal(default(image), one(image))
    assert default.settings()["multi_label"] is False
    assert multi_label_network().settings()["multi_label"] is True
    torch.testing.assert_close(
        default.presence(image), default(image)[:, 1:].sum((2, 3)) / (1 - default(image)[:, 0]).sum()
    )


def test_multi_label_scripted_network_equals_eager():
    network = MinMaxEntropyNetwork("resnet18", num_classes=3, weights="none", seed=0, multi_label=True).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))
