# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""CAM against its definition, Grad-CAM against MONAI's, Grad-CAM++ against its formula by automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from monai.visualize import GradCAM, GradCAMpp
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks import ClassActivationNetwork, Head
from glas_wsol.networks.grad_cam import grad_cam, grad_cam_pp
from glas_wsol.results.postprocessing import LocalizePredictiond
from tests.conftest import tiny_trunk

POOLINGS = ("average", "max", "lse", "wildcat")


def tiny_cam(**options) -> ClassActivationNetwork:
    return ClassActivationNetwork(tiny_trunk(), **{"num_classes": 3, "seed": 2, **options}).eval()


def images(batch: int = 3) -> Tensor:
    x = torch.rand(3, 3, 96, 160, generator=torch.Generator().manual_seed(5))
    x[0, :, :40, 90:] *= 0.1
    x[1, 1, 50:, :60] = 1.0
    return x[:batch]


def with_features(network: ClassActivationNetwork) -> ClassActivationNetwork:
    """A network whose maps have both signs everywhere: features and weights as drawn, of order 1."""
    features = torch.randn(3, 8, 3, 5).relu()
    network.trunk.forward = lambda _: features
    with torch.no_grad():
        network.head.to_maps.weight.normal_()
    return network


def expected_mask(evidence: Tensor) -> Tensor:
    """``[B, h, w]`` to masks of 96 x 160, by torch's own interpolation and one image at a time."""
    masks = []
    for one in evidence:
        big = F.interpolate(one[None, None], (96, 160), mode="bilinear", align_corners=True)[0, 0]
        masks.append((big - big.min()) / (big.max() - big.min()))
    return torch.stack(masks)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_mask_is_the_predicted_classs_map(pooling):
    network = tiny_cam(pooling=pooling)
    with torch.no_grad():
        network.head.to_maps.weight.mul_(20)
        maps = network.class_maps(network.normalise(images()))
        logits = network.logits(network.normalise(images()))
        prediction = network(images())
    labels = logits.argmax(1).tolist()
    mask = expected_mask(torch.stack([maps[i, k] for i, k in enumerate(labels)]))
    torch.testing.assert_close(1 - prediction[:, 0], mask, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        prediction[:, 1:], mask[:, None] * logits.softmax(1)[:, :, None, None], rtol=0, atol=1e-4
    )


def test_each_image_has_its_own_class():
    network = tiny_cam(num_classes=2)
    maps = torch.tensor([[[[4.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]], [[[1.0, 0.0, 0.0]], [[0.0, 0.0, 4.0]]]])
    network.head.class_maps = lambda _: maps
    mask = 1 - network(torch.rand(2, 3, 32, 66))[:, 0]
    assert mask.argmax(dim=2).float().mean(1).tolist() == [0, 65]
    # [4 0 0] linearly over 66 columns: 4 at column 0, 0 from column 32.5 on, 2 at column 16.25
    assert (mask >= 0.5).sum(dim=2).unique().tolist() == [17]
    assert (mask[1] >= 0.5)[0].nonzero().flatten().tolist() == list(range(49, 66))


@pytest.mark.parametrize("value", [0.0, -7.25, 3e4])
def test_a_constant_map_still_tells_the_class(value):
    network = tiny_cam(num_classes=5)
    maps = torch.full((1, 5, 2, 3), value)
    maps += torch.tensor([0.0, 0.5, -0.25, 1.0, 0.25]).view(1, 5, 1, 1)
    network.head.class_maps = lambda _: maps
    expected = maps[0, :, 0, 0].double().softmax(0)
    prediction = network(images(1))
    torch.testing.assert_close(prediction.sum(1), torch.ones(1, 96, 160), rtol=0, atol=1e-6)
    mass = prediction[0, 1:].double().sum((1, 2))
    assert float(mass.min()) > 0
    torch.testing.assert_close(mass / mass.sum(), expected, rtol=1e-5, atol=0)
    item = LocalizePredictiond("abcde")({"pred": prediction[0], "image": images(1)[0]})
    assert int(item["probabilities"].argmax()) == 3
    assert not item["localization"].mask.any(), "a constant map has no mask"


@pytest.mark.parametrize("explanation", ["grad_cam", "grad_cam++"])
def test_no_gradient_to_go_by_gives_an_empty_mask_and_the_class(explanation):
    network = tiny_cam(explanation=explanation)
    with torch.no_grad():
        network.head.to_maps.weight.zero_()
        network.head.to_maps.bias.copy_(torch.tensor([0.0, 2.0, 1.0]))
        prediction = network(images())
    assert float(1 - prediction[:, 0].min()) < 1e-5
    assert prediction[:, 1:].double().sum((2, 3)).argmax(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("modalities", [1, 4])
def test_grad_cam_average_pooling_is_clipped_cam_without_bias(modalities):
    network = with_features(tiny_cam(explanation="grad_cam", modalities=modalities))
    x = network.normalise(images())
    with torch.no_grad():
        maps, labels = network.class_maps(x), network.logits(x).argmax(1)
        bias = network.head.to_maps.bias.view(3, modalities).mean(1)
        evidence = torch.stack([(maps[i, k] - bias[k]).relu() for i, k in enumerate(labels)])
        prediction = network(images())
    assert (evidence.amax((1, 2)) > 1e-3).all()
    assert (evidence == 0).any(), "something is cut"
    torch.testing.assert_close(1 - prediction[:, 0], expected_mask(evidence), rtol=1e-4, atol=1e-4)


class FromFeatures(nn.Module):
    """What MONAI wraps: features through a layer that has a name, then the head."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.last = nn.Identity()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return self.head([self.last(features)])


def features_and_gradient(pooling: str, scale: float = 1.0, sparse: bool = True) -> tuple[Head, Tensor, Tensor, int]:
    torch.manual_seed(4)
    head, label = Head(6, 3, 2, pooling).double().eval(), 1
    features = scale * torch.randn(1, 6, 3, 5, dtype=torch.float64)
    features = (features.relu() if sparse else features.abs()).requires_grad_()
    (gradient,) = torch.autograd.grad(head([features])[0, label], features)
    return head, features.detach(), gradient, label


@pytest.mark.parametrize("pooling", POOLINGS)
def test_grad_cam_equals_monais(pooling):
    head, features, gradient, label = features_and_gradient(pooling)
    theirs = GradCAM(FromFeatures(head), "last").compute_map(features.requires_grad_(), class_idx=label)
    assert float(theirs.detach().max()) > 0
    torch.testing.assert_close(grad_cam(features, gradient), theirs)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_grad_cam_pp_equals_formula_of_derivatives_per_position(pooling):
    head, features, gradient, label = features_and_gradient(pooling)

    def raised(channel: int, row: int, column: int) -> list[float]:
        """exp(score)'s first three derivatives with respect to one activation."""
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        place = torch.zeros_like(features)
        place[0, channel, row, column] = 1
        value, values = head([features + shift * place])[0, label].exp(), []
        for _ in range(3):
            (value,) = torch.autograd.grad(value, shift, create_graph=True)
            values.append(float(value))
        return values

    places = torch.ones(6, 3, 5).nonzero().tolist()
    derivatives = {tuple(place): raised(*place) for place in places}
    if pooling == "lse":  # equation 19 takes the score to be piecewise linear, which log-sum-exp is not
        y = float(head([features])[0, label].exp())
        derivatives = {(c, i, j): [y * float(gradient[0, c, i, j]) ** n for n in (1, 2, 3)] for c, i, j in places}
    total = features[0].sum((1, 2))
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for channel in range(6):
        weight = 0.0
        for row in range(3):
            for column in range(5):
                first, second, third = derivatives[channel, row, column]
                if first > 0:  # equation 10 times the ReLU of equation 5
                    weight += second / (2 * second + float(total[channel]) * third) * first
        expected += weight * features[0, channel]
    found = grad_cam_pp(features, gradient)[0, 0]
    assert float(expected.max()) > 0
    torch.testing.assert_close(found / found.max(), expected / expected.max())


def test_grad_cam_pp_even_gradients_equals_monai():
    head, features, gradient, label = features_and_gradient(
        "average", scale=1e-3
    )  # gradients of 1e-1 squared, not 1e-7
    with torch.no_grad():
        head.to_maps.weight.mul_(100)
    theirs = GradCAMpp(FromFeatures(head), "last").compute_map(features.requires_grad_(), class_idx=label).detach()
    ours = grad_cam_pp(features, 100 * gradient).detach()
    torch.testing.assert_close(ours / ours.max(), theirs / theirs.max(), rtol=1e-4, atol=1e-6)


def test_small_gradients_do_not_underflow():
    features = torch.rand(1, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    gradient = torch.tensor([1.0, -2.0, 3.0, 0.5]).view(1, 4, 1, 1).expand(1, 4, 3, 5) * 1e-12
    found = grad_cam_pp(features, gradient)
    weights = torch.tensor([1.0, 0.0, 3.0, 0.5]).view(1, 4, 1, 1)  # alpha is 1 / 2 for all
    expected = (weights * features).sum(1, keepdim=True)
    torch.testing.assert_close(found / found.max(), expected / expected.max(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("explanation", ["grad_cam", "grad_cam++"])
def test_an_explanation_by_gradients_leaves_nothing_behind(explanation, guard):
    network = tiny_cam(explanation=explanation, pooling="lse")
    given = [torch.full_like(p, 2.0) if i % 2 else None for i, p in enumerate(network.parameters())]
    for parameter, gradient in zip(network.parameters(), given, strict=True):
        parameter.grad = gradient
    before = {k: v.clone() for k, v in network.state_dict().items()}
    alone = torch.cat([network(one[None]).detach() for one in images()])
    with guard():
        prediction = network(images())
        assert torch.is_grad_enabled() == (guard is torch.enable_grad)
    torch.testing.assert_close(prediction.detach().clone(), alone, rtol=0, atol=1e-5)
    assert [p.grad is g for p, g in zip(network.parameters(), given, strict=True)] == [True] * len(given)
    assert all(g is None or bool((g == 2).all()) for g in given)
    assert all(p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m.training for m in network.modules())


def test_explanation_is_not_in_the_weights_and_changes_only_mask():
    networks = {name: tiny_cam(explanation=name, pooling="max") for name in ("cam", "grad_cam", "grad_cam++")}
    first = networks["cam"]
    with_features(first)
    for network in networks.values():
        if network is not first:
            network.load_state_dict(first.state_dict())
        network.trunk.forward = first.trunk.forward
        assert network.settings() == first.settings()
        assert "explanation" not in network.settings()
    with torch.no_grad():
        found = {name: network(images()) for name, network in networks.items()}
    shares = {
        n: p[:, 1:].double().sum((2, 3)) / p[:, 1:].double().sum((1, 2, 3)).unsqueeze(1) for n, p in found.items()
    }
    for name in ("grad_cam", "grad_cam++"):
        torch.testing.assert_close(shares[name], shares["cam"], rtol=1e-4, atol=1e-5)
        assert float((found[name][:, 0] - found["cam"][:, 0]).abs().max()) > 0.05


def test_dropout_is_drawn_in_training_and_off_in_evaluation():
    options = {"pooling": "wildcat", "pooling_options": {"kmax": 1.0 - 1e-9, "dropout": 0.5}}
    network = tiny_cam(batch_norm="frozen", **options)
    x = network.normalise(images())
    assert torch.equal(network.logits(x), network.logits(x))
    network.train()
    assert not torch.equal(network.logits(x), network.logits(x))
    assert "dropout" not in network.settings()["pooling_options"]


@pytest.mark.parametrize(
    "options", [{"explanation": "saliency"}, {"pooling": "median"}, {"modalities": 0}, {"pooling_options": {"k": 1}}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        tiny_cam(**options)


def test_a_scripted_network_refuses_an_explanation_by_gradients():
    scripted = torch.jit.script(tiny_cam(explanation="grad_cam"))
    with pytest.raises(torch.jit.Error):
        scripted(images())
