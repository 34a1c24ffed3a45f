# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Group normalisation with frozen statistics: what a mask depends on, how they are measured, kept and loaded."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from monai.networks import convert_to_onnx
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks import MinMaxEntropyNetwork, RefinedNetwork, SegmentationNetwork
from glas_wsol.networks.frozen_norm import FrozenGroupNorm, freeze, frozen_norms, measure_statistics
from glas_wsol.networks.weights import load_strictly
from tests.conftest import same, tiny_trunk

REACH = 128  # px: of the narrow trunk's five 3 x 3 convolutions and the decoder's


def tile(height: int = 64, width: int = 96, seed: int = 1) -> torch.Tensor:
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    x[:, 0, :20, :30] *= 0.2
    return x


def network(frozen: bool = True) -> RefinedNetwork:
    torch.manual_seed(0)
    made = RefinedNetwork(tiny_trunk(), num_classes=2, decoder_width=16).eval()
    for layer in frozen_norms(made).values():  # not the weights of an untouched layer
        torch.nn.init.uniform_(layer.weight, 0.5, 2.0)
        torch.nn.init.uniform_(layer.bias, -1.0, 1.0)
    made.decoder.score.weight.data *= 20
    if frozen:
        freeze(made, measure_statistics(made, [tile(), tile(96, 64, 2)]))
    return made


@torch.no_grad()
def by_hand(made: RefinedNetwork, image: torch.Tensor) -> np.ndarray:
    """``[3, 2, 8]``: mean and mean square of the groups of an image before each normalisation by its own."""
    decoder, seen = made.decoder, []
    features = made.trunk.stages_of(made.normalise(image))[1:]
    y = decoder.lateral[3](features[3])
    for step, fuse in zip((2, 1, 0), decoder.fuse, strict=True):
        up = F.interpolate(y, size=features[step].shape[2:], mode="bilinear", align_corners=False)
        raw = F.conv2d(decoder.lateral[step](features[step]) + up, fuse[0].weight, padding=1)
        groups = raw[0].double().numpy().reshape(8, -1)
        seen.append([groups.mean(1), (groups**2).mean(1)])
        y = F.relu(F.group_norm(raw, 8, fuse[1].weight, fuse[1].bias))
    return np.array(seen)


@torch.no_grad()
def change_beyond_reach(made: torch.nn.Module) -> tuple[float, float]:
    """How much glass in one half of a tile changes R+ elsewhere: beyond the receptive field, and anywhere."""
    x = tile(96, 640)
    glass = x.clone()
    glass[..., :320] = 1.0
    change = (made(x)[:, 0] - made(glass)[:, 0]).abs()
    return float(change[..., 320 + REACH :].max()), float(change.max())


def test_glass_changes_nothing_beyond_the_receptive_field():
    made = network()
    assert made.local
    beyond, anywhere = change_beyond_reach(made)
    assert beyond < 1e-6 < 1e-2 < anywhere
    other, _ = change_beyond_reach(network(frozen=False))
    assert other > 1e-2, "by the tile's own statistics it does"


def test_glass_changes_nothing_far_off_for_the_unet():
    torch.manual_seed(0)
    made = SegmentationNetwork(tiny_trunk(), decoder_channels=(8, 8, 8, 4, 4)).eval()
    made.segmentation_head[0].weight.data *= 20
    assert made.local
    beyond, anywhere = change_beyond_reach(made)
    assert beyond < 1e-6 < 1e-3 < anywhere


def test_one_stage_networks_are_not_local():
    assert not MinMaxEntropyNetwork(tiny_trunk()).local


def test_frozen_norm_equals_the_formula():
    layer = FrozenGroupNorm(2, 6)
    torch.nn.init.uniform_(layer.weight)
    torch.nn.init.uniform_(layer.bias)
    x = tile(5, 7).expand(2, 3, 5, 7).repeat(1, 2, 1, 1) * torch.arange(1.0, 7).view(6, 1, 1)
    torch.testing.assert_close(layer(x), torch.nn.GroupNorm.forward(layer, x))
    layer.freeze(torch.tensor([[1.0, -2.0], [1.25, 13.0]]))
    mean = torch.tensor([1.0, 1, 1, -2, -2, -2]).view(6, 1, 1)
    std = torch.tensor([0.25, 0.25, 0.25, 9, 9, 9]).add(1e-5).sqrt().view(6, 1, 1)
    expected = (x - mean) / std * layer.weight.view(6, 1, 1) + layer.bias.view(6, 1, 1)
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode)(x), expected)
    layer.freeze(torch.zeros(2, 2))
    torch.testing.assert_close(layer(x), F.group_norm(x, 2, layer.weight, layer.bias))


def test_measured_statistics_equal_those_by_hand():
    made, images = network(), [tile(), tile(96, 64, 2), tile(32, 160, 3) * 0.1]
    before = {name: value.clone() for name, value in made.state_dict().items()}
    found = measure_statistics(made.train(), images)
    assert same(before, made.state_dict())
    assert made.local, "nothing is frozen or thawed by it"
    assert made.decoder.training
    expected = np.mean([by_hand(made.eval(), image) for image in images], axis=0)
    assert list(found) == list(frozen_norms(made)) == [f"decoder.fuse.{place}.1" for place in range(3)]
    np.testing.assert_allclose(torch.stack(list(found.values())).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_without_images_there_is_nothing_to_measure():
    with pytest.raises(ConfigError, match="no image"):
        measure_statistics(network(), [])


def test_state_dict_keeps_frozen_statistics():
    made, fresh = network(), RefinedNetwork(tiny_trunk(), num_classes=2, decoder_width=16).eval()
    assert not fresh.local
    fresh.load_state_dict(made.state_dict())
    assert fresh.local
    assert torch.equal(fresh(tile()), made(tile()))
    assert torch.equal(copy.deepcopy(made)(tile()), made(tile()))
    fresh.load_state_dict(network(frozen=False).state_dict())
    assert not fresh.local


@pytest.mark.parametrize("bundled", [False, True])
def test_state_dict_without_statistics_uses_those_of_the_tile(bundled):
    made, fresh = network(frozen=False), network()
    old = {k: v.clone() for k, v in made.state_dict().items() if not k.endswith("group_statistics")}
    assert len(old) == len(made.state_dict()) - 3
    if bundled:  # monai.bundle.load fills what is missing with the network's own
        fresh = RefinedNetwork(tiny_trunk(), num_classes=2, decoder_width=16).eval()
        fresh.load_state_dict({**fresh.state_dict(), **old})
    else:
        load_strictly(fresh, old, "old.pt", "")
    assert not fresh.local
    assert torch.equal(fresh(tile()), made(tile()))


@pytest.mark.filterwarnings("ignore")
def test_scripted_exported_and_onnx_equal_eager(tmp_path):
    made = network()
    with torch.no_grad():
        expected = made(tile())
        torch.testing.assert_close(torch.jit.script(made)(tile()), expected)
        torch.testing.assert_close(torch.export.export(made, (tile(),)).module()(tile()), expected)
    convert_to_onnx(made, [tile()], filename=str(tmp_path / "network.onnx"), use_trace=False)  # as bundles do
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: tile().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
