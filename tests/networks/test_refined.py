# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The second stage's network: what it keeps of the first, what it trains, whose the class is."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks import convert_to_onnx
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks import (
    AttentionNetwork,
    ClassActivationNetwork,
    MinMaxEntropyNetwork,
    RefinedNetwork,
    build_network,
)
from glas_wsol.networks.decoder import PyramidDecoder
from glas_wsol.pseudo_labels.seeds import PartialCrossEntropy
from tests.conftest import tiny_trunk

BASES = {
    "minmax": {"class": "MinMaxEntropyNetwork", "map_stride": 16},
    "cam": {"class": "ClassActivationNetwork", "pooling": "wildcat", "pooling_options": {"kmax": 0.2}},
    "attention": {"class": "AttentionNetwork", "hidden": 5, "map_stride": 8},
}
KINDS = {"minmax": MinMaxEntropyNetwork, "cam": ClassActivationNetwork, "attention": AttentionNetwork}


def refined(base: str = "minmax", seed: int = 0, **options) -> RefinedNetwork:
    torch.manual_seed(seed)
    return RefinedNetwork(tiny_trunk(), **{"num_classes": 3, "base": BASES[base], "decoder_width": 8, **options})


def image() -> torch.Tensor:
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    x[:, 0, :20, :30] *= 0.2
    return x


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("base", BASES)
def test_a_training_step_moves_the_decoder_and_nothing_else(base):
    network = refined(base).train()
    assert not any(module.training for module in network.base.modules())
    assert all(module.training for module in network.decoder.modules())
    before, decoder = state(network.base), state(network.decoder)
    (group,) = network.parameter_groups(7.0, 0.1)
    assert group["lr"] == 0.1
    assert {id(p) for p in group["params"]} == {id(p) for p in network.parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([group], weight_decay=0.1)
    seeds = torch.full((2, 1, 64, 96), 128, dtype=torch.uint8)
    seeds[:, :, :20, :30], seeds[:, :, 40:] = 255, 0
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = PartialCrossEntropy()(network.mask_logits(network.normalise(image())), seeds)
        loss.backward()
        losses.append(float(loss.detach()))
        assert all(p.grad is None for p in network.base.parameters())
        grown = [name for name, p in network.decoder.named_parameters() if p.grad is None]
        assert grown == [], "the gradient reaches all of the decoder"
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(torch.equal(before[name], value) for name, value in network.base.state_dict().items())
    assert not any(torch.equal(decoder[n], p) for n, p in network.decoder.named_parameters())


@pytest.mark.parametrize("base", BASES)
def test_the_weights_of_the_trunk_are_in_the_state_once(base):
    network = refined(base)
    names = list(network.state_dict())
    assert not [name for name in names if name.startswith("trunk.")]
    trunk = len(network.trunk.state_dict())
    assert sum(name.startswith("base.trunk.") for name in names) == trunk
    own = KINDS[base](tiny_trunk(), num_classes=3, **{k: v for k, v in BASES[base].items() if k != "class"})
    network.base.load_state_dict(own.state_dict())  # a first stage's model fits as it is
    others = len(names) - len(own.state_dict())
    assert others == len(network.decoder.state_dict()) + 3, "pixel_mean, pixel_std and temperature"


@pytest.mark.parametrize("base", BASES)
def test_the_localizer_is_asked_of_the_whole_image(base):
    network, x = refined(base, class_from="localizer").eval(), image()
    prediction = network(x)
    torch.testing.assert_close(prediction.sum(dim=1), torch.ones(2, 64, 96), rtol=0, atol=1e-6)
    p = prediction[:, 1:].sum(dim=(2, 3)) / prediction[:, 1:].sum(dim=(1, 2, 3)).unsqueeze(1)
    normal = network.base.normalise(x)
    logits = network.base.localize(normal).logits if base == "minmax" else network.base.logits(normal)
    torch.testing.assert_close(p, logits.softmax(dim=1))
    torch.testing.assert_close(network.localize(normal).logits, logits)
    torch.testing.assert_close(network.localize(normal).mask, 1 - prediction[:, :1])
    torch.testing.assert_close(network.undecidable(x), prediction[:, :1])


@pytest.mark.parametrize("base", BASES)
def test_refined_single_trunk_forward_gives_mask_and_class(base):
    network, calls = refined(base, class_from="localizer").eval(), []
    network.trunk.stages[0].register_forward_hook(lambda *_: calls.append(1))
    network(image())
    assert len(calls) == 1
    network.localize(network.normalise(image()))
    assert len(calls) == 2


def test_the_classifier_is_asked_of_what_the_decoder_kept():
    network, x = refined(class_from="classifier").eval(), image()
    prediction = network(x)
    mask = 1 - prediction[:, :1]
    p = prediction[:, 1:].sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
    expected = network.base.classify(network.normalise(x) * mask).softmax(dim=1)
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-5)
    other = copy.deepcopy(network)
    other.asks_classifier, other.asks_localizer = False, True
    assert torch.equal(other(x)[:, 0], prediction[:, 0]), "the mask does not depend on whose the class is"
    assert not torch.allclose(other(x), prediction)
    assert network.settings()["class_from"] == "classifier"


def test_the_class_is_named_as_the_first_stage_alone_would():
    network, x = refined(class_from="first_stage").eval(), image()
    with torch.no_grad():
        prediction, alone = network(x), network.base(x)
    p, expected = (
        one[:, 1:].sum(dim=(2, 3)) / one[:, 1:].sum(dim=(1, 2, 3)).unsqueeze(1) for one in (prediction, alone)
    )
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(prediction[:, 0], alone[:, 0], atol=1e-3), "the mask is the decoder's"
    assert network.settings()["class_from"] == "first_stage"


@pytest.mark.filterwarnings("ignore")
def test_the_exported_onnx_equals_the_eager_network(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, tile = refined().eval(), image()[:1]
    convert_to_onnx(network, [tile], filename=str(tmp_path / "network.onnx"), use_trace=False)  # as bundles do
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: tile.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(tile), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("class_from", ["first_stage", "localizer", "classifier"])
@pytest.mark.parametrize("base", BASES)
def test_scripted_equals_eager(base, class_from, tmp_path):
    if class_from == "classifier" and base != "minmax":
        pytest.skip("no classifier to ask")
    network = refined(base, class_from=class_from).eval()
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
    loaded = torch.jit.load(tmp_path / "network.ts")
    with torch.no_grad():
        torch.testing.assert_close(loaded(image()), network(image()))
        wide = torch.rand(1, 3, 32, 160)
        torch.testing.assert_close(loaded(wide), network(wide))


@pytest.mark.parametrize("base", BASES)
def test_settings_build_it_again_to_the_last_bit(base):
    network = refined(base).eval()
    settings = network.settings()
    assert settings["base"] == network.base.settings()
    again = build_network(settings, trunk=tiny_trunk(), num_classes=3)
    assert again.settings() == settings
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(image()), network(image()))


def test_without_a_word_the_first_stage_is_min_max_entropy():
    network = RefinedNetwork(tiny_trunk(), decoder_width=8)
    assert isinstance(network.base, MinMaxEntropyNetwork)
    assert network.settings()["base"]["class"] == "MinMaxEntropyNetwork"
    assert network.supervision == "image labels"
    assert network.names_class


def test_a_blank_mask_still_names_the_class():
    network, x = refined(class_from="localizer").eval().requires_grad_(False), image()
    torch.nn.init.zeros_(network.decoder.score.weight)
    torch.nn.init.constant_(network.decoder.score.bias, -80.0)
    prediction = network(x)
    p = prediction[:, 1:].sum(dim=(2, 3), dtype=torch.float64)
    p = p / p.sum(dim=1, keepdim=True)
    expected = network.localize(network.normalise(x)).logits.softmax(dim=1).double()
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-6)
    assert float(prediction[:, 1:].max()) < 1e-6


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"base": {"class": "FixedMaskNetwork", "kind": "stain"}}, "FixedMaskNetwork has no class scores"),
        ({"base": {"class": "SegmentationNetwork"}}, "SegmentationNetwork has no class scores"),
        ({"base": {"class": "RefinedNetwork"}}, "RefinedNetwork has no class scores"),
        ({"base": {"class": "EnsembleNetwork"}}, "EnsembleNetwork has no class scores"),
        ({"base": {"class": "FeatureComponentNetwork"}}, "FeatureComponentNetwork has no class scores"),
        ({"base": {"multi_label": True}}, "several classes"),
        ({"base": {"hidden": 3}}, "hidden"),
        ({"decoder_width": 12}, "decoder_width=12"),
        ({"decoder_width": 0}, "decoder_width=0"),
        ({"class_from": "mine"}, "class_from='mine'"),
        ({"base": BASES["cam"], "class_from": "classifier"}, "no classifier of masked images"),
        ({"num_classes": 1}, "1 classes"),
    ],
)
def test_what_cannot_be_refined_is_refused_in_one_line(options, what):
    with pytest.raises(ConfigError, match=what) as caught:
        RefinedNetwork(tiny_trunk(), **{"decoder_width": 8, **options})
    assert "\n" not in str(caught.value)


def test_there_is_no_classifier_to_ask_of_other_rows():
    with pytest.raises(ConfigError, match="no classifier"):
        refined("cam").classify(image())


def test_the_decoder_goes_from_coarse_to_fine():
    decoder = PyramidDecoder([2, 3, 4, 5], 8).eval()
    generator = torch.Generator().manual_seed(0)
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    features = [torch.rand(1, n, *s, generator=generator) for n, s in zip([2, 3, 4, 5], sizes, strict=True)]
    y = decoder.lateral[3](features[3])
    for step, fuse in zip((2, 1, 0), decoder.fuse, strict=True):
        up = F.interpolate(y, size=sizes[step], mode="bilinear", align_corners=False)
        y = fuse(decoder.lateral[step](features[step]) + up)
    assert decoder(features).shape == (1, 1, 16, 24)
    with torch.no_grad():
        assert torch.equal(decoder(features), decoder.score(y))
    torch.testing.assert_close(decoder(features), decoder.score(y), rtol=1e-6, atol=2e-6)
    # Each stride has its say.
    for index in range(4):
        changed = [f + (i == index) for i, f in enumerate(features)]
        assert not torch.allclose(decoder(changed), decoder(features))


def test_an_image_s_mask_does_not_depend_on_its_mini_batch():
    network, x = refined().train(), image()
    both = network.mask_logits(network.normalise(x))
    alone = network.mask_logits(network.normalise(x[:1]))
    torch.testing.assert_close(both[:1], alone)
