# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Finer class maps: equal to the hypercolumn built and convolved, fine where stride 32 is not, exported."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.networks import convert_to_onnx
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks import (
    TRUNKS,
    AttentionNetwork,
    ClassActivationNetwork,
    MinMaxEntropyNetwork,
    TileNetwork,
    build_network,
    build_trunk,
)
from glas_wsol.networks.grad_cam import grad_cam_pp
from glas_wsol.networks.hypercolumn import attended, join, project, rescale, widen
from glas_wsol.networks.weights import load_strictly
from tests.conftest import tiny_trunk

ROWS = {
    "minmax": MinMaxEntropyNetwork,
    "cam": ClassActivationNetwork,
    "wildcat": partial(ClassActivationNetwork, pooling="wildcat", modalities=5),
    "deep_mil": AttentionNetwork,
}


def stages() -> list[Tensor]:
    """Features at strides 32, 16 and 8 of an image of 64 x 96 px, float64."""
    sizes = ((7, 2, 3), (5, 4, 6), (3, 8, 12))
    return [torch.randn(2, *size, dtype=torch.float64) for size in sizes]


def built(features: list[Tensor]) -> Tensor:
    """The hypercolumn by torch's own interpolation."""
    size = features[-1].shape[2:]
    return torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in features], dim=1)


def drawn(network: TileNetwork) -> TileNetwork:
    """With weights for the finer stages, which start at 0, of the order of those of the last."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("trunk.") and parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return network


def maps_of(network: TileNetwork, x: Tensor) -> Tensor:
    return network.attention(x) if isinstance(network, AttentionNetwork) else network.class_maps(x)


def scores_of(network: TileNetwork, x: Tensor) -> Tensor:
    return network.localize(x).logits if isinstance(network, MinMaxEntropyNetwork) else network.logits(x)


@pytest.mark.parametrize("bias", [True, False])
def test_projecting_each_stage_is_convolving_the_concatenation(bias):
    features = [f.requires_grad_() for f in stages()]
    conv = nn.Conv2d(15, 4, 1, bias=bias).double()
    found, expected = project(features, conv.weight, conv.bias), conv(built(features))
    assert found.shape == (2, 4, 8, 12)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(join(features), built(features))
    of = [*features, *conv.parameters()]
    weights = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), of),
        torch.autograd.grad((expected * weights).sum(), of),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sides", [((2, 3), (4, 5), (7, 9)), ((1, 1), (1, 2), (2, 4)), ((3, 3), (3, 3), (3, 3))])
def test_grids_of_any_sides_are_joined(sides):
    features = [torch.randn(1, 2, *side, dtype=torch.float64) for side in sides]
    weight = torch.randn(3, 6, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(project(features, weight), F.conv2d(built(features), weight))


def test_the_attended_mean_is_that_of_the_concatenation():
    features = stages()
    attention = torch.rand(2, 1, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(attended(features, attention), (attention * built(features)).sum((2, 3)))


def test_rescaled_features_have_unit_norm_and_zero_stays_zero():
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64) * torch.tensor([1e-1, 50.0]).view(2, 1, 1, 1)
    found = rescale(x, norm=3.0, eps=0)
    torch.testing.assert_close(found.square().sum(1), torch.full((2, 4, 5), 9.0).double())
    torch.testing.assert_close(found / found[:, :1], x / x[:, :1])
    torch.testing.assert_close(rescale(x)[1], found[1] * (20 / 3), rtol=1e-2, atol=0)
    assert torch.equal(rescale(torch.zeros(1, 2, 3, 3)), torch.zeros(1, 2, 3, 3))
    assert float(rescale(torch.full((1, 2, 1, 1), 1e-4)).max()) < 0.01, "next to nothing is not blown up"
    changed = x.clone()
    changed[:, :, :2] *= 7
    assert torch.equal(rescale(changed)[:, :, 2:], rescale(x)[:, :, 2:]), "no position has a say in another's"


@pytest.mark.parametrize("map_stride", [32, 16, 8])
@pytest.mark.parametrize("trunk", list(TRUNKS))
def test_class_maps_are_as_fine_as_asked_on_every_trunk(trunk, map_stride):
    network = ClassActivationNetwork(trunk, weights="none", map_stride=map_stride, seed=0).eval()
    channels = network.trunk.stage_channels()
    assert network.feature_channels() == channels[::-1][: {32: 1, 16: 2, 8: 3}[map_stride]]
    with torch.no_grad():
        maps = network.class_maps(torch.randn(1, 3, 64, 96))
    assert maps.shape == (1, 2, 64 // map_stride, 96 // map_stride)
    assert network.head.to_maps.in_channels == network.head.to_maps.weight.shape[1] == sum(network.feature_channels())


@pytest.mark.parametrize("map_stride", [16, 8])
@pytest.mark.parametrize("row", [*ROWS])
def test_networks_finer_strides_give_distribution_and_gradients(row, map_stride):
    network = drawn(ROWS[row](tiny_trunk(), num_classes=3, map_stride=map_stride, seed=1)).train()
    x = torch.rand(2, 3, 70, 97)  # sides that are no multiples of 32
    maps = maps_of(network, x)
    assert maps.shape[2:] == (-(-70 // map_stride), -(-97 // map_stride))
    score = scores_of(network, x).square().sum()
    if row == "minmax":
        score = score + network.classify(x).square().sum()
    score.backward()
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    prediction = network.eval()(x)
    assert prediction.shape == (2, 4, 70, 97)
    torch.testing.assert_close(prediction.sum(1), torch.ones(2, 70, 97))


@pytest.mark.parametrize("row", [*ROWS])
def test_scores_send_a_gradient_to_the_finer_stages_directly(row):
    network = drawn(ROWS[row](tiny_trunk(), map_stride=8, seed=1))
    features = [f.detach().requires_grad_() for f in network.trunk.stages_of(torch.randn(2, 3, 64, 96))]
    network.trunk.stages_of = lambda _: features
    scores_of(network, torch.zeros(2, 3, 64, 96)).square().sum().backward()
    assert [f.grad is not None and float(f.grad.abs().sum()) > 0 for f in features] == [False, False, True, True, True]


@pytest.mark.parametrize("row", [*ROWS])
def test_weights_of_finer_stages_start_at_zero_and_learn_at_once(row):
    plain, finer = (ROWS[row](tiny_trunk(), map_stride=s, seed=5) for s in (32, 8))
    before = plain.state_dict()
    widened = []
    for name, tensor in finer.state_dict().items():
        if name.startswith("trunk."):
            continue
        n = before[name].shape[1] if tensor.dim() > 1 else None
        assert torch.equal(tensor[:, :n] if n else tensor, before[name]), "the same seed, the same weights"
        if tensor.shape != before[name].shape:
            assert not tensor[:, n:].any()
            widened.append(name)
    assert len(widened) == (3 if row == "deep_mil" else 1)
    assert list(before) == list(finer.state_dict())
    scores_of(finer, torch.randn(2, 3, 64, 96)).square().sum().backward()
    for name in widened:
        gradient = finer.get_parameter(name).grad[:, before[name].shape[1] :]
        assert (gradient.abs().sum(1) > 0).any(), name


@pytest.mark.parametrize("row", [*ROWS])
def test_at_first_finer_maps_are_those_of_stride_32_resized(row):
    plain, finer = (ROWS[row](tiny_trunk(), map_stride=s, seed=5).eval() for s in (32, 8))
    finer.trunk.load_state_dict(plain.trunk.state_dict())
    x = torch.randn(1, 3, 96, 160)
    if row == "deep_mil":  # its softmax is not linear: what it gates is
        found, expected = (project(n.features(x), n.value.weight) for n in (finer, plain))
    else:
        found, expected = maps_of(finer, x), maps_of(plain, x)
    expected = F.interpolate(expected, (12, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_classifiers_head_stays_at_stride_32():
    network = MinMaxEntropyNetwork(tiny_trunk(), map_stride=8)
    assert network.localizer.to_maps.in_channels == 24
    assert network.classifier.to_maps.in_channels == 8
    x = torch.randn(1, 3, 64, 96)
    small = F.interpolate(x, (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.eval().classify(x), network.classifier([network.trunk(small)]))


def checkerboard(network: TileNetwork) -> Tensor:
    """Truth [64, 96] of squares of 16 px, of which only the stage at stride 8 of the network's trunk knows."""
    network.eval()
    rows, columns = (torch.arange(n) // 2 % 2 for n in (8, 12))
    squares = (rows[:, None] != columns[None]).double()
    deep = [torch.zeros(1, 8, 64 // s, 96 // s, dtype=torch.float64) for s in (2, 4, 8, 16, 32)]
    deep[2][:, 0] = squares
    deep[2][:, 1] = 1 - squares  # the same mean square everywhere
    network.trunk.stages_of = lambda _: deep
    network.trunk.forward = lambda _: deep[-1]
    return squares.repeat_interleave(8, 0).repeat_interleave(8, 1).bool()


def overlap(mask: Tensor, truth: Tensor) -> float:
    """Dice of [64, 96] masks, borders of squares left out: there linear interpolation decides."""
    inner = torch.zeros(16, 16, dtype=torch.bool)
    inner[4:12, 4:12] = True
    inner = inner.repeat(4, 6)
    mask, truth = mask[inner], truth[inner]
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()).clamp(min=1))


@pytest.mark.parametrize("row", [*ROWS])
def test_mask_at_finer_stride_follows_details_below_stride_32(row):
    found = {}
    for map_stride in (32, 8):
        network = ROWS[row](tiny_trunk(), map_stride=map_stride, seed=0).double()
        truth = checkerboard(network)
        with torch.no_grad():
            if row == "deep_mil":
                network.gate.weight.zero_()  # a half
                network.value.weight.zero_()
                network.value.weight[0, -8] = 3.0  # the first channel of the finest stage: in the last 8
                network.score.weight.fill_(4.0)
            else:
                head = network.localizer if row == "minmax" else network.head
                head.to_maps.weight.zero_()
                head.to_maps.weight[:, -8] = 1.0
            mask = 1 - network(torch.rand(1, 3, 64, 96, dtype=torch.float64))[0, 0] >= 0.5
        found[map_stride] = overlap(mask, truth)
    assert found[8] > 0.95, found
    assert found[32] < 0.7, "one value for four squares"


def test_gradients_explain_the_hypercolumn():
    network = drawn(ClassActivationNetwork(tiny_trunk(), num_classes=3, map_stride=8, seed=2)).eval()
    image = torch.rand(2, 3, 64, 96)
    x = network.normalise(image)
    with torch.no_grad():
        hypercolumn, labels = join(network.features(x)), network.logits(x).argmax(1)
        weights = network.head.to_maps.weight[labels].clone()
        network.explanation = "grad_cam"
        with_average = 1 - network(image)[:, 0]
    evidence = (weights * hypercolumn).sum(1, keepdim=True).relu()  # average pooling: the gradient is the weight
    big = F.interpolate(evidence, (64, 96), mode="bilinear", align_corners=True)[:, 0]
    low, high = big.amin((1, 2), keepdim=True), big.amax((1, 2), keepdim=True)
    torch.testing.assert_close(with_average, (big - low) / (high - low), rtol=1e-4, atol=1e-4)
    network.explanation = "grad_cam++"
    prediction = network(image)
    assert torch.isfinite(prediction).all()
    torch.testing.assert_close(prediction.sum(1), torch.ones(2, 64, 96))


def test_grad_cam_pp_of_signed_features_equals_its_two_halves():
    network = drawn(ClassActivationNetwork(tiny_trunk(), map_stride=16, explanation="grad_cam++", seed=2)).eval()
    signed = torch.randn(1, 16, 4, 6)
    found = network._from_gradient(signed, torch.tensor([1]))
    weight = network.head.to_maps.weight[1].view(1, 16, 1, 1) / 24  # average pooling over 24 positions

    class Halves(nn.Module):
        """The same score as a function of activations that are all at least 0."""

        def forward(self, halves: Tensor) -> Tensor:
            return ((halves[:, :16] - halves[:, 16:]) * weight).sum()

    halves = torch.cat([signed.clamp(min=0), (-signed).clamp(min=0)], 1).requires_grad_()
    (gradient,) = torch.autograd.grad(Halves()(halves), halves)
    expected = grad_cam_pp(halves.detach(), gradient)
    assert float(expected.detach().max()) > 0
    torch.testing.assert_close(found, expected / expected.max(), rtol=1e-4, atol=1e-6)


def test_autocast_rounds_features_but_no_position():
    features, attention = [f.float() for f in stages()], torch.rand(2, 1, 8, 12)
    with torch.autocast("cpu", torch.bfloat16):
        joined, bag = join(features), attended(features, attention)
        assert project(features, torch.randn(2, 15, 1, 1)).dtype == torch.float32
    assert torch.equal(joined, join(features))
    assert torch.equal(bag, attended(features, attention))


@pytest.mark.parametrize("map_stride", [16, 8])
@pytest.mark.parametrize("row", [*ROWS])
def test_the_scripted_network_equals_the_eager_one(row, map_stride, tmp_path):
    network = drawn(ROWS[row](tiny_trunk(), map_stride=map_stride, seed=0)).eval()
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "network.ts")(image), network(image))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ["minmax", "deep_mil"])
def test_the_exported_onnx_equals_the_eager_network(row, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = drawn(ROWS[row](tiny_trunk(), map_stride=8, seed=0)).eval()
    image = torch.rand(1, 3, 64, 96)
    convert_to_onnx(network, [image], filename=str(tmp_path / "network.onnx"), use_trace=False)  # as bundles do
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", [*ROWS])
def test_the_stride_is_a_setting_and_without_it_it_is_32(row):
    network = ROWS[row](tiny_trunk(), map_stride=16)
    settings = network.settings()
    assert settings["map_stride"] == 16
    assert build_network(settings, trunk=tiny_trunk()).map_stride == 16
    old = build_network({k: v for k, v in settings.items() if k != "map_stride"}, trunk=tiny_trunk())
    assert old.map_stride == 32
    with pytest.raises(WeightsError):
        load_strictly(old, network.state_dict(), "model.pt", "")
    for bad in (64, 4, 0):
        with pytest.raises(ConfigError, match="32, 16, 8"):
            ROWS[row](tiny_trunk(), map_stride=bad)


def test_gradient_on_real_trunk_reaches_layers_of_finer_stages():
    network = drawn(ClassActivationNetwork(build_trunk("efficientnet_lite0", "none"), map_stride=8, seed=0))
    features = network.features(torch.rand(2, 3, 64, 96))
    network.head([features[0].detach(), *features[1:]]).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in network.trunk.stages[2].parameters())
    assert all(p.grad is None for p in network.trunk.stages[4].parameters())


def test_widening_by_nothing_changes_nothing():
    layer = nn.Linear(4, 2)
    weight = layer.weight
    widen(layer, [4])
    assert layer.weight is weight
    widen(layer, [4, 3, 2])
    assert (layer.in_features, layer.weight.shape) == (9, (2, 9))
