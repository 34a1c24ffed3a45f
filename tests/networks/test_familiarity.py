# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The distance beside numpy's, the share on held-out draws, what is refused, and a trunk that runs once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from skimage import data as pictures
from torch import Tensor

from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.failure_detection.training_images import describe_images
from glas_wsol.inferers import ClassScoreInferer, WholeTileInferer
from glas_wsol.networks import MinMaxEntropyNetwork
from glas_wsol.networks.ensemble import EnsembleNetwork
from glas_wsol.networks.familiarity import Familiarity, _Normal, pooled, watched
from glas_wsol.results.class_scores import FAMILIAR
from glas_wsol.results.how_to_read import STRANGE
from tests.conftest import tiny_network

MIXING = np.random.default_rng(5).normal(size=(12, 12)) + 3 * np.eye(12)


def drawn(count: int, seed: int, away: float = 0.0) -> list[dict[str, Tensor]]:
    """Images whose features are normal, none of them independent, without parts."""
    random = np.random.default_rng(seed)
    texture = torch.tensor(random.normal(size=(count, 1, 12)) @ MIXING + 7 + away)
    colour = torch.tensor(random.normal(size=(count, 1, 2)))
    return [{"texture": t[None], "colour": c[None]} for t, c in zip(texture, colour, strict=True)]


def shares(told: Familiarity, images: list[dict[str, Tensor]], pixels: float = 100) -> np.ndarray:
    return np.array([float(told.share(one, pixels)) for one in images])


def fitted(count: int = 80) -> Familiarity:
    return Familiarity.fit(drawn(count, 0), [100] * count, range(count))


def test_distance_is_mahalanobis_of_principal_components():
    features = torch.cat([one["texture"] for one in drawn(21, 1)])
    made = _Normal.of(features)
    x = features[:, 0].numpy()
    mean, scale = x.mean(axis=0), x.std(axis=0)
    values, vectors = np.linalg.eigh(np.cov(((x - mean) / scale).T, bias=True))
    kept, rest = vectors[:, -7:], values[:-7].mean()  # a third of the images
    model = kept @ np.diag(values[-7:]) @ kept.T + rest * (np.eye(12) - kept @ kept.T)
    new = np.random.default_rng(9).normal(size=(5, 12)) * 4
    z = (new - mean) / scale
    expected = np.einsum("ni,ij,nj->n", z, np.linalg.inv(model), z) / 12
    np.testing.assert_allclose(made.distance(torch.tensor(new)).numpy(), expected, rtol=1e-8)


def test_share_of_held_out_draws_is_uniform():
    found = shares(fitted(), drawn(500, 2))
    assert kstest(found, "uniform").statistic < 0.12
    assert (found < STRANGE).mean() <= 0.03
    assert shares(fitted(), drawn(50, 3, away=60)).max() < STRANGE


def test_share_says_how_many_images_it_knows():
    few, many = (shares(fitted(count), drawn(200, 4)) for count in (6, 80))
    assert (few < STRANGE).mean() <= 0.05, "six images are no reason to call others strange"
    assert many.min() < few.max()


def test_patients_are_left_out_together():
    tight = [{kind: one[kind] + 0.01 * k for kind in one} for one in drawn(10, 6) for k in range(4)]
    alone, together = (
        Familiarity.fit(tight, [100] * 40, groups) for groups in (range(40), [number // 4 for number in range(40)])
    )
    assert together.kinds["texture"].usual > alone.kinds["texture"].usual + 0.3


def test_small_image_may_lie_farther():
    middle = {"texture": 7, "colour": 0}
    images = [
        {k: torch.cat([one[k], *(3 * part[k] - 2 * middle[k] for part in drawn(4, 100 + n))], dim=1) for k in one}
        for n, one in enumerate(drawn(40, 7))
    ]
    told = Familiarity.fit(images, [4000] * 40, range(40))
    assert told.kinds["texture"].slope > 0
    new = drawn(1, 8)[0]
    as_usual, large, small = (float(told.share(new, pixels)) for pixels in (4000, 9000, 1000))
    assert small > as_usual == large


def test_description_is_the_same_read_from_json():
    told, images = fitted(), drawn(20, 9)
    again = Familiarity.read(json.loads(json.dumps(told.entry())))
    np.testing.assert_allclose(shares(again, images), shares(told, images), rtol=1e-3)
    assert again.entry() == Familiarity.read(again.entry()).entry()
    assert Familiarity.read(None) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", "no base64"), ("scale", ""), ("rest", 0), ("usual", float("nan")), ("images", 1), ("directions", "AAAA")],
)
def test_damaged_description_is_refused(name, value):
    entry = fitted(12).entry()
    entry["texture"][name] = value
    with pytest.raises(WeightsError, match=r"damaged \[card.json\]"):
        Familiarity.read(entry, "card.json")
    with pytest.raises(WeightsError):
        Familiarity.read({"colour": entry["colour"]})


@pytest.mark.parametrize(("count", "groups"), [(5, "abcde"), (8, "aaaaaaaa")])
def test_too_few_images_or_patients_are_refused(count, groups):
    with pytest.raises(ConfigError, match="do not say what is usual"):
        Familiarity.fit(drawn(count, 0), [100] * count, groups)


def clouds(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 12, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, (96, 128), mode="bilinear") * 0.5 + 0.2


def described(seed: int = 0):
    network = tiny_network(seed).eval()
    items = [{"image": image} for image in clouds(12)]
    network.familiarity = Familiarity.read(describe_images(network, items, lambda item: item, WholeTileInferer()))
    return network


def predicted(network, image: Tensor, **options) -> dict[str, Tensor]:
    with torch.no_grad():
        return ClassScoreInferer(WholeTileInferer(**options))(image, network)


def test_trunk_runs_as_often_as_without_and_masks_stay():
    network, image = described(), clouds(2, 1)
    runs = []
    network.trunk.stages[0].register_forward_hook(lambda *_: runs.append(1))
    with_it, counted = predicted(network, image), len(runs)
    network.familiarity = None
    without = predicted(network, image)
    assert len(runs) == 2 * counted
    assert torch.equal(with_it["pred"], without["pred"])
    assert FAMILIAR not in without


def test_batch_is_scored_image_by_image():
    network, images = described(), clouds(3, 1)
    together = predicted(network, images)[FAMILIAR]
    alone = torch.cat([predicted(network, image[None])[FAMILIAR] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)
    x = network.normalise(images[:1])
    with torch.no_grad():
        expected = network.familiarity.share(pooled(x, network.trunk.stages_of(x)), 96 * 128)
    torch.testing.assert_close(alone[:1], expected[:, 0], rtol=1e-3, atol=1e-6)


def test_views_at_training_resolution_alone_count():
    network, image = described(), clouds(1, 1)
    plain = predicted(network, image)[FAMILIAR]
    torch.testing.assert_close(predicted(network, image, scales=[0.5, 1.0])[FAMILIAR], plain)
    assert FAMILIAR not in predicted(network, image, scales=[0.5])
    assert predicted(network, image, flips=True)[FAMILIAR].shape == (1,)


def test_ensemble_is_the_mean_of_its_members():
    members, image = [described(0), described(1)], clouds(1, 1)
    mean = torch.stack([predicted(member, image)[FAMILIAR] for member in members]).mean(dim=0)
    torch.testing.assert_close(predicted(EnsembleNetwork(members), image)[FAMILIAR], mean)
    members[1].familiarity = None
    assert FAMILIAR not in predicted(EnsembleNetwork(members), image)


def test_trunk_is_itself_again_after_a_failure():
    network = described()
    stages = network.trunk.stages
    with pytest.raises(ValueError, match="broken"), watched(network):
        raise ValueError("broken")
    assert network.trunk.stages is stages
    with watched(network) as found:
        pass
    assert found == []


def test_described_network_still_becomes_torchscript():
    network, image = described(), clouds(1, 1)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_strange_phantom_images_are_told_from_others():
    def tile(seed: int) -> Tensor:
        picture = tissue_tile(np.random.default_rng(seed), bool(seed % 2), (130, 194), scale=0.25)[0]
        return torch.tensor(picture).permute(2, 0, 1) / 255

    network = MinMaxEntropyNetwork("efficientnet_lite0", 2, seed=0).eval()
    items = [{"image": tile(seed)} for seed in range(24)]
    network.familiarity = Familiarity.read(describe_images(network, items, lambda item: item, WholeTileInferer()))
    held = [tile(seed) for seed in range(24, 32)]
    strange = [one.flip(0) for one in held[:3]] + [1 - one for one in held[:3]]
    strange += [one.mean(dim=0, keepdim=True).expand(3, -1, -1) for one in held[:2]]
    for name in ("astronaut", "coffee", "chelsea", "immunohistochemistry"):
        strange.append(torch.tensor(getattr(pictures, name)()[:260:2, :388:2]).permute(2, 0, 1) / 255)
    familiar, other = (torch.cat([predicted(network, one[None])[FAMILIAR] for one in some]) for some in (held, strange))
    assert (familiar > STRANGE).sum() >= 7
    assert other.max() < STRANGE
