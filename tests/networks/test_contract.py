# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What every network promises: a distribution at every pixel, gradients everywhere, weights by seed, state by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks import (
    NETWORKS,
    AttentionNetwork,
    ClassActivationNetwork,
    CorrectedNetwork,
    FeatureComponentNetwork,
    FixedMaskNetwork,
    MinMaxEntropyNetwork,
    RefinedNetwork,
    SegmentationNetwork,
    TileNetwork,
    build_network,
)
from glas_wsol.networks.trunks import TRUNKS
from glas_wsol.networks.weights import load_strictly, read_state_dict
from tests.bundles.conftest import NARROW
from tests.conftest import tiny_trunk

WILDCAT = {"pooling": "wildcat", "modalities": 5, "pooling_options": {"kmax": 0.09, "kmin": 0.09, "alpha": 0.0}}
ON_A_TRUNK = {
    "minmax": MinMaxEntropyNetwork,
    "cam_avg": ClassActivationNetwork,
    "cam_max": partial(ClassActivationNetwork, pooling="max"),
    "cam_lse": partial(ClassActivationNetwork, pooling="lse"),
    "grad_cam": partial(ClassActivationNetwork, explanation="grad_cam"),
    "grad_cam_pp": partial(ClassActivationNetwork, explanation="grad_cam++"),
    "wildcat": partial(ClassActivationNetwork, **WILDCAT),
    "deep_mil": AttentionNetwork,
    "unet": SegmentationNetwork,
}
FROZEN = {  # their trunk is not trained, or not any more
    "components": FeatureComponentNetwork,
    "corrected": partial(CorrectedNetwork, first={"class": "ClassActivationNetwork"}, corrections={"a": "12ab"}),
    "corrected_refined": partial(CorrectedNetwork, first={"class": "RefinedNetwork"}),
    "refined": RefinedNetwork,
    "refined_m": partial(RefinedNetwork, class_from="localizer"),
    "refined_c": partial(RefinedNetwork, class_from="classifier"),
    "refined_cam": partial(RefinedNetwork, base={"class": "ClassActivationNetwork", "map_stride": 16}),
    "refined_mil": partial(RefinedNetwork, base={"class": "AttentionNetwork", "hidden": 7}),
}
HAVING_A_TRUNK = ON_A_TRUNK | FROZEN
FIXED = {kind: partial(FixedMaskNetwork, kind) for kind in ("all_ones", "centre_gaussian", "stain")}


@pytest.fixture(autouse=True)
def narrow_trunk(monkeypatch) -> None:
    monkeypatch.setitem(TRUNKS, "narrow", NARROW)


def trunk_of(row: str, real: str = "resnet18") -> str:
    """A trunk that is drawn in no time; of one row a real one."""
    return real if row == "minmax" else "narrow"


def image(seed: int = 0, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 3, 64, 96, generator=generator)
    x[:, 0, :20, :30] *= 0.2
    return x


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("row", [*HAVING_A_TRUNK, *FIXED])
def test_forward_is_a_distribution_at_every_pixel(row, num_classes):
    if row in FIXED:
        network = FIXED[row](num_classes=num_classes)
    else:
        network = HAVING_A_TRUNK[row](trunk_of(row), weights="none", num_classes=num_classes, seed=1)
    with torch.no_grad():
        prediction = network.eval()(image())
    assert prediction.shape == (2, 1 + num_classes, 64, 96)
    assert prediction.dtype == torch.float32
    assert float(prediction.min()) >= 0
    torch.testing.assert_close(prediction.sum(1), torch.ones(2, 64, 96), rtol=0, atol=1e-6)
    assert network.num_classes == num_classes
    if not network.names_class:
        assert torch.equal(prediction[:, 1:].amax(1), prediction[:, 1:].amin(1)), "p is 1 / c"


@pytest.mark.parametrize("row", HAVING_A_TRUNK)
def test_temperature_changes_confidence_but_not_class_or_mask(row):
    network = HAVING_A_TRUNK[row]("resnet18", weights="none", num_classes=3, seed=1).eval()
    if isinstance(network, FeatureComponentNetwork):  # it is fitted, and not drawn
        network.probe_bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
    with torch.no_grad():
        plain = network(image()).double()
        network.temperature.fill_(0.25)
        sharp = network(image()).double()
    assert torch.equal(plain[:, 0], sharp[:, 0])
    if network.names_class:
        p, q = (one[:, 1:].sum(dim=(2, 3)) for one in (plain, sharp))
        p, q = p / p.sum(dim=1, keepdim=True), q / q.sum(dim=1, keepdim=True)
        torch.testing.assert_close(q, (4 * p.log()).softmax(dim=1), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(p, q, atol=1e-4), "there was something to change"


@pytest.mark.parametrize("row", ["minmax", "refined", "deep_mil"])
def test_a_model_from_before_there_was_a_temperature_has_none(row):
    network = HAVING_A_TRUNK[row]("resnet18", weights="none", num_classes=3, seed=1)
    old = {name: one.clone() for name, one in network.state_dict().items() if "temperature" not in name}
    assert len(network.state_dict()) - len(old) == (2 if row == "refined" else 1)
    network.temperature.fill_(3.0)
    load_strictly(network, old, "old.pt", "fix")
    assert float(network.temperature) == 1
    del old["pixel_mean"]
    with pytest.raises(WeightsError, match=r"1 missing \(first: pixel_mean\)"):
        load_strictly(network, old, "old.pt", "fix")


def scores(network: TileNetwork, x: torch.Tensor) -> torch.Tensor:
    if isinstance(network, MinMaxEntropyNetwork):
        return torch.cat([network.localize(x).logits, network.classify(x)])
    if isinstance(network, (SegmentationNetwork, CorrectedNetwork)):
        return network.mask_logits(x)
    if isinstance(network, RefinedNetwork):
        return torch.cat([network.mask_logits(x).flatten(1), network.localize(x).logits], dim=1)
    return network.logits(x)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("row", [*ON_A_TRUNK])
def test_finite_gradients_reach_every_parameter(row, num_classes):
    network = ON_A_TRUNK[row](trunk_of(row), weights="none", num_classes=num_classes, seed=1).train()
    found = scores(network, network.normalise(image()))
    assert found.dtype == torch.float32
    found.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    first = next(network.trunk.parameters())
    assert float(first.grad.abs().sum()) > 0


@pytest.mark.parametrize("row", [*HAVING_A_TRUNK])
def test_the_seed_fixes_all_weights_whatever_was_drawn_before(row):
    def built(seed):
        return HAVING_A_TRUNK[row](trunk_of(row, "efficientnet_lite0"), weights="none", seed=seed).state_dict()

    torch.manual_seed(7)
    first, before = built(3), torch.get_rng_state()
    torch.rand(5)
    again, other = built(3), built(4)
    assert all(torch.equal(first[k], again[k]) for k in first)
    drawn = [k for k in first if first[k].dim() == 4 and "pixel_" not in k]
    assert not any(torch.equal(first[k], other[k]) for k in drawn)
    torch.manual_seed(7)
    assert torch.equal(before, torch.get_rng_state()), "the generator outside is left as it was"
    assert not torch.equal(built(None)[drawn[0]], built(None)[drawn[0]])


@pytest.mark.parametrize("row", [*ON_A_TRUNK])
def test_groups_part_the_trunk_from_all_that_is_fresh(row):
    network = ON_A_TRUNK[row](tiny_trunk())
    trunk, fresh = network.parameter_groups(1e-4, 1e-3)
    assert (trunk["lr"], fresh["lr"]) == (1e-4, 1e-3)
    assert {id(p) for p in trunk["params"]} == {id(p) for p in network.trunk.parameters()}
    both = [id(p) for p in trunk["params"] + fresh["params"]]
    assert sorted(both) == sorted(id(p) for p in network.parameters()), "each once"
    assert fresh["params"]


@pytest.mark.parametrize("row", [*ON_A_TRUNK])
def test_frozen_batch_norm_is_the_trunks_alone(row):
    network = ON_A_TRUNK[row](tiny_trunk(), batch_norm="frozen").train()
    trunk = {id(m) for m in network.trunk.modules()}
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.training for m in norms] == [id(m) not in trunk for m in norms]
    assert sum(id(m) in trunk for m in norms) == 5
    assert (len(norms) > 5) == (row == "unet")
    assert all(m.training for m in ON_A_TRUNK[row](tiny_trunk()).train().modules())
    assert not any(m.training for m in network.eval().modules())


@pytest.mark.parametrize("row", [*HAVING_A_TRUNK])
def test_autocast_leaves_scores_and_output_in_float32(row):
    network = HAVING_A_TRUNK[row](tiny_trunk(), seed=0).eval()
    if row == "components":  # 0 is the same in 8 bits
        network.direction.copy_(torch.linspace(-1, 1, 8))
        network.probe_weight.copy_(torch.linspace(-1, 1, 16).view(2, 8))
    plain = network(image())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert scores(network, network.normalise(image())).dtype == torch.float32
        low = network(image())
    assert low.dtype == torch.float32
    assert float((low != low.bfloat16().float()).float().mean()) > 0.5, "not rounded to 8 bits"
    torch.testing.assert_close(low.sum(1), torch.ones(2, 64, 96), rtol=0, atol=1e-6)
    assert plain.dtype == torch.float32


@pytest.mark.parametrize(
    ("row", "trunk"),
    [
        *((row, None) for row in ("cam_avg", "cam_max", "cam_lse", "wildcat", "deep_mil")),
        ("cam_avg", "resnet18"),  # a trunk by itself: test_trunks.py
        ("unet", "efficientnet_lite0"),
        ("components", None),
        ("components", "efficientnet_lite0"),
        ("corrected", None),
        ("refined", "resnet18"),  # of a small trunk, with every first stage: test_refined.py
    ],
)
def test_the_scripted_network_equals_the_eager_one(row, trunk, tmp_path):
    network = HAVING_A_TRUNK[row](trunk or tiny_trunk(), weights="none", seed=0).eval()
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "network.ts")(image()), network(image()))


@pytest.mark.parametrize("row", [*HAVING_A_TRUNK, *FIXED])
def test_settings_and_weights_from_files_build_the_network_again(row, tmp_path):
    network = FIXED[row]() if row in FIXED else HAVING_A_TRUNK[row](tiny_trunk(), seed=1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    settings = network.settings()
    assert settings["class"] == type(network).__name__
    again = build_network(settings, **({} if row in FIXED else {"trunk": tiny_trunk()}))
    load_strictly(again, read_state_dict(tmp_path / "model.pt"), "model.pt", "")
    assert again.settings() == settings
    if isinstance(network, ClassActivationNetwork):
        again.explanation = network.explanation
    assert torch.equal(again.eval()(image()), network.eval()(image()))


def test_the_registry_knows_every_network_by_name():
    assert {type(build()).__name__ for build in FIXED.values()} <= set(NETWORKS)
    built = {type(build(tiny_trunk())).__name__ for build in HAVING_A_TRUNK.values()}
    assert built | {"FixedMaskNetwork", "EnsembleNetwork"} == set(NETWORKS)
    assert {one.supervision for one in NETWORKS.values()} == {"image labels", "pixel labels", "none"}
    assert {n for n, one in NETWORKS.items() if not one.names_class} == {"SegmentationNetwork", "FixedMaskNetwork"}
    old = {"modalities": 3, "pooling": "max"}  # as a model.json without the name of a class says it
    assert isinstance(build_network(old, trunk=tiny_trunk()), MinMaxEntropyNetwork)


@pytest.mark.parametrize(
    "settings",
    [
        {"class": "Network"},
        {"class": "AttentionNetwork", "pooling": "max"},
        {"class": "FixedMaskNetwork", "kind": "no"},
    ],
)
def test_a_network_that_is_not_there_is_refused_in_one_line(settings):
    with pytest.raises(ConfigError) as caught:
        build_network(settings)
    assert "\n" not in str(caught.value)


def test_weights_empty_file_is_refused(tmp_path):
    torch.save({}, tmp_path / "model.pt")
    assert read_state_dict(tmp_path / "model.pt") == {}
    with pytest.raises(WeightsError, match="missing"):
        load_strictly(AttentionNetwork(tiny_trunk()), read_state_dict(tmp_path / "model.pt"), "model.pt", "")
    with pytest.raises(WeightsError, match="unexpected"):
        load_strictly(FixedMaskNetwork("stain"), AttentionNetwork(tiny_trunk()).state_dict(), "model.pt", "")
    with pytest.raises(WeightsError, match="missing"):
        ClassActivationNetwork("resnet18", weights=str(tmp_path / "model.pt"))


@pytest.mark.parametrize("row", [*HAVING_A_TRUNK])
@pytest.mark.parametrize("options", [{"num_classes": 1}, {"batch_norm": "sync"}, {"trunk": "resnet34"}])
def test_bad_options_are_refused(row, options):
    if row == "components" and "batch_norm" in options:
        pytest.skip("it has none to choose")
    with pytest.raises(ConfigError):
        HAVING_A_TRUNK[row](**{"trunk": tiny_trunk(), **options})


def test_a_part_of_another_networks_weights_is_refused():
    # as monai.bundle.load does: what the file lacks is filled with the network's own
    network, other = (tiny_minmax(seed) for seed in (0, 1))
    whole = {**network.state_dict(), **other.state_dict()}
    network.load_state_dict(whole)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
    some = {name: value for name, value in other.state_dict().items() if name.startswith("trunk")}
    with pytest.raises(WeightsError, match="the model is of another network"):
        network.load_state_dict({**network.state_dict(), **some})


def tiny_minmax(seed: int) -> MinMaxEntropyNetwork:
    return MinMaxEntropyNetwork(tiny_trunk(), num_classes=2, seed=seed)
