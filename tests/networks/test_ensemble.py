# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Several networks as one: means of masks and of class probabilities; what their cards say together."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks import (
    AttentionNetwork,
    ClassActivationNetwork,
    EnsembleNetwork,
    FixedMaskNetwork,
    SegmentationNetwork,
    build_network,
)
from glas_wsol.networks.ensemble import class_conditional, common_card
from tests.conftest import tiny_network, tiny_trunk


class Says(nn.Module):
    """A network whose mask and class probabilities are given; ``red`` makes its mask the image's red channel."""

    smallest_side = 1

    def __init__(self, mask, probabilities, names_class=True, supervision="image labels", red=False):
        super().__init__()
        self.mask, self.probabilities = torch.tensor(mask), torch.tensor(probabilities)
        self.names_class, self.supervision, self.red = names_class, supervision, red
        self.num_classes = len(probabilities)

    def forward(self, image: Tensor) -> Tensor:
        mask = image[:, :1] if self.red else self.mask.expand(len(image), 1, *self.mask.shape)
        return torch.cat([1 - mask, mask * self.probabilities.view(1, -1, 1, 1)], dim=1)


def image(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(4))


def test_masks_and_class_probabilities_are_means_by_hand():
    small = Says([[0.8, 0.0, 0.0], [0.0, 0.0, 0.2]], [0.9, 0.1])
    large = Says([[1.0, 1.0, 0.6], [0.2, 1.0, 1.0]], [0.3, 0.7])
    found = EnsembleNetwork([small, large])(image(2, 3))
    mask = torch.tensor([[0.9, 0.5, 0.3], [0.1, 0.5, 0.6]])  # by hand; the class is not weighed by the masks' sizes
    expected = torch.stack([1 - mask, 0.6 * mask, 0.4 * mask]).expand(2, -1, -1, -1)
    torch.testing.assert_close(found, expected)


def test_three_members_against_an_independent_implementation():
    members = [tiny_network(seed=seed, num_classes=3).eval() for seed in range(3)]
    x = image(64, 96)
    with torch.no_grad():
        found = EnsembleNetwork(members)(x).numpy()
        each = [member(x).double().numpy() for member in members]
    mask = np.mean([1 - one[:, 0] for one in each], axis=0)
    shares = [one[:, 1:].sum(axis=(2, 3)) for one in each]
    classes = np.mean([one / one.sum(axis=1, keepdims=True) for one in shares], axis=0)
    np.testing.assert_allclose(found[:, 0], 1 - mask, atol=1e-6)
    np.testing.assert_allclose(found[:, 1:], mask[:, None] * classes[:, :, None, None], atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert max(np.abs(each[0] - one).max() for one in each[1:]) > 0.05, "the members disagree"


def test_only_members_that_name_a_class_have_a_say_in_it():
    mask = [[0.5, 1.0]]
    silent = Says([[1.0, 0.0]], [0.5, 0.5], names_class=False, supervision="pixel labels")
    both = EnsembleNetwork([silent, Says(mask, [0.2, 0.8])])
    found = both(image(1, 2))
    torch.testing.assert_close(found[0, 1:].sum((1, 2)) / found[0, 1:].sum(), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(found[0, 0], torch.tensor([[0.25, 0.5]]))
    assert both.names_class
    alone = EnsembleNetwork([silent, silent])
    assert not alone.names_class
    torch.testing.assert_close(alone(image(1, 2))[0, 1:], torch.tensor([[[0.5, 0.0]], [[0.5, 0.0]]]))


def test_ensemble_member_with_masks_per_class_keeps_them():
    class Split(Says):  # class 0 left, class 1 right
        def forward(self, image: Tensor) -> Tensor:
            return torch.tensor([[[0.25, 0.25]], [[0.75, 0.0]], [[0.0, 0.75]]]).expand(len(image), 3, 1, 2)

    found = EnsembleNetwork([Split([[0.0]], [0.5, 0.5]), Says([[0.25, 0.75]], [0.6, 0.4])])(image(1, 2))[0]
    torch.testing.assert_close(found[0], torch.tensor([[0.5, 0.25]]))
    torch.testing.assert_close(found[1], torch.tensor([[0.5 * 0.8, 0.75 * 0.3]]))
    torch.testing.assert_close(found[2], torch.tensor([[0.5 * 0.2, 0.75 * 0.7]]))


@pytest.mark.parametrize("floor", [1.0, 1e-6, 1e-30])
def test_the_class_of_a_hardly_decidable_pixel_is_read_exactly(floor):
    prediction = torch.cat([torch.tensor([1.0 - floor, 0.5]), torch.tensor([0.3 * floor, 0.15, 0.7 * floor, 0.35])])
    found = class_conditional(prediction.view(1, 3, 1, 2))
    torch.testing.assert_close(found, torch.tensor([0.3, 0.3, 0.7, 0.7]).view(1, 2, 1, 2))


def test_class_of_empty_mask_comes_from_undecidable_region_only():
    half = torch.tensor([[1.0, 0.5], [0.0, 0.1], [0.0, 0.4]]).view(1, 3, 1, 2)
    torch.testing.assert_close(class_conditional(half)[0, :, 0, 0], torch.tensor([0.2, 0.8]))
    nothing = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).view(1, 3, 1, 2)
    torch.testing.assert_close(class_conditional(nothing), torch.full((1, 2, 1, 2), 0.5))
    found = EnsembleNetwork([Says([[0.0, 0.0]], [0.9, 0.1])] * 2)(image(1, 2))
    assert torch.equal(found[:, 0], torch.ones(2, 1, 2))


def test_each_member_is_given_the_image_itself():
    dark, bright = (tiny_network(seed=1, pixel_mean=[m] * 3, pixel_std=[0.25] * 3).eval() for m in (0.2, 0.8))
    x = image(32, 64)
    with torch.no_grad():
        found = EnsembleNetwork([dark, bright])(x)
        assert not torch.allclose(dark(x), bright(x))
        torch.testing.assert_close(found[:, 0], (dark(x)[:, 0] + bright(x)[:, 0]) / 2)


def test_one_member_is_itself():
    network, x = tiny_network().eval(), image(32, 64)
    with torch.no_grad():
        torch.testing.assert_close(EnsembleNetwork([network])(x), network(x), rtol=0, atol=1e-6)


def test_what_an_ensemble_says_of_itself():
    minmax, unet = tiny_network(), SegmentationNetwork(tiny_trunk())
    floor = FixedMaskNetwork("stain")
    said = {
        ("image labels", True, 32): [minmax, floor],
        ("pixel labels", True, 32): [minmax, unet],
        ("pixel labels", False, 32): [floor, unet],
        ("none", False, 1): [floor, FixedMaskNetwork("all_ones")],
    }
    for expected, members in said.items():
        one = EnsembleNetwork(members)
        assert (one.supervision, one.names_class, one.smallest_side) == expected
        assert one.num_classes == 2


def test_ensemble_of_several_methods_is_rebuilt_from_settings(tmp_path):
    members = [
        tiny_network(seed=1, omega=5.0),
        ClassActivationNetwork(tiny_trunk(), pooling="lse", seed=2),
        AttentionNetwork(tiny_trunk(), seed=3),
        FixedMaskNetwork("centre_gaussian"),
    ]
    whole = EnsembleNetwork(members).eval()
    settings = json.loads(json.dumps(whole.settings()))
    settings["members"][3]["trunk"] = "none"
    again = build_network(settings, trunk=tiny_trunk(), weights="none", num_classes=2, seed=0)
    assert again.settings() == whole.settings()
    shared = again.members[0].trunk  # the trunk given was one object
    for member, source in zip(again.members, members, strict=True):
        if hasattr(member, "trunk"):
            assert member.trunk is shared
            member.trunk = tiny_trunk()
        member.load_state_dict(source.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(image(64, 32)), whole(image(64, 32)))


def test_members_may_have_trunks_of_their_own():
    one, other = (ClassActivationNetwork(t, weights="none").settings() for t in ("resnet18", "efficientnet_lite0"))
    settings = {"class": "EnsembleNetwork", "members": [{**one, "trunk": "efficientnet_lite0"}, other]}
    built = build_network(settings, trunk="resnet18", weights="none", num_classes=3)
    assert [member.trunk.channels for member in built.members] == [1280, 512]
    assert built.num_classes == 3


def test_the_scripted_ensemble_equals_the_eager_one(tmp_path):
    members = [tiny_network(seed=1), SegmentationNetwork(tiny_trunk(), seed=2), ClassActivationNetwork(tiny_trunk())]
    network = EnsembleNetwork(members).eval()
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "network.ts")(image(64, 96)), network(image(64, 96)))


def test_no_member_or_other_classes_are_refused_in_one_line():
    for members, said in (
        ([], "no member"),
        ([tiny_network(), tiny_network(num_classes=3)], "members of 2, 3 classes"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            EnsembleNetwork(members)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no member"):
        build_network({"class": "EnsembleNetwork"})


def card(**changes):
    own = {"trunk": "resnet18", "method": "minmax", "classes": ["a", "b"], "scale": 0.5, "short_side": None, "seed": 0}
    return {**own, "sha256": "00", "epoch": 3, "passes": 4, "network": {"class": "X", "omega": 8.0}, **changes}


def test_cards_together_say_what_they_all_say():
    first = card(recipe={"epochs": 10, "seed": 0, "amp": False}, trunk_weights_sha256="ab")
    other = card(sha256="11", seed=7, epoch=5, recipe={"epochs": 10, "seed": 7}, trunk_weights_sha256="ab")
    found = common_card([first, other], ["x.pt", "y.pt"])
    same = {
        "trunk": "resnet18",
        "method": "minmax",
        "classes": ["a", "b"],
        "scale": 0.5,
        "short_side": None,
        "passes": 4,
    }
    member = {"class": "X", "omega": 8.0, "trunk": "resnet18"}
    assert found == {
        **same,
        "seed": 0,
        "recipe": {"epochs": 10},
        "trunk_weights_sha256": "ab",
        "network": {"class": "EnsembleNetwork", "members": [member, member]},
        "members": [first, other],
    }


def test_cards_of_several_rows_and_trunks_name_them_all():
    cards = [
        card(),
        card(sha256="1", trunk="resnet50", trunk_weights_sha256="cd"),
        card(sha256="2", method="wildcat", passes=None, network={"class": "Y"}),
    ]
    found = common_card(cards, ["x", "y", "z"])
    assert (found["trunk"], found["method"]) == ("resnet18 + resnet50", "minmax + wildcat")
    assert not {"passes", "sha256", "trunk_weights_sha256", "recipe"} & found.keys()
    assert [one["trunk"] for one in found["network"]["members"]] == ["resnet18", "resnet50", "resnet18"]
    assert [one["class"] for one in found["network"]["members"]] == ["X", "X", "Y"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ["b", "a"]}, r"classes is \['a', 'b'\] in x.pt and \['b', 'a'\] here \[y.pt\]"),
        ({"scale": 1.0}, r"scale is 0\.5 in x.pt and 1\.0 here"),
        ({"short_side": 500}, "short_side is None in x.pt and 500 here"),
        ({"sha256": "00"}, "the same model as x.pt"),
    ],
)
def test_cards_that_do_not_fit_together_are_refused_in_one_line(changes, said):
    with pytest.raises(ConfigError, match=said) as caught:
        common_card([card(), card(**{"sha256": "11", **changes})], ["x.pt", "y.pt"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="name at least one"):
        common_card([], [])
