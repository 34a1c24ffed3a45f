# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Directions in feature space: the algebra against other implementations, the orientation against a known truth."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import nn

from glas_wsol.errors import ConfigError, NumericalError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks import FeatureComponentNetwork
from glas_wsol.networks.trunks import Trunk
from glas_wsol.pseudo_labels import feature_components as components
from glas_wsol.pseudo_labels.feature_components import (
    compactness,
    cross_validated,
    fit_components,
    fit_probe,
    principal_directions,
)

SIZE = (160, 224)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_principal_directions_equal_those_of_svd():
    x = generator().normal(size=(400, 6)) @ generator(1).normal(size=(6, 6)) + 3
    centred = x - x.mean(axis=0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    directions, variances = principal_directions(torch.tensor(centred.T @ centred / len(x)), 4)
    np.testing.assert_allclose(variances, singular[:4] ** 2 / len(x), rtol=1e-9)
    np.testing.assert_allclose(np.abs((directions.numpy() * vectors[:4]).sum(axis=1)), 1, rtol=1e-9)
    largest = directions.abs().argmax(dim=1)
    assert (directions[torch.arange(4), largest] > 0).all(), "no sign is left to chance"
    flipped, _ = principal_directions(torch.tensor((-centred).T @ (-centred) / len(x)), 4)
    torch.testing.assert_close(flipped, directions, rtol=0, atol=1e-9)


def test_moments_of_batches_are_those_of_all_positions():
    images = [torch.rand(1, 3, 4, 5), torch.rand(1, 3, 2, 7)]
    centre, covariance = components._moments(images)
    rows = np.concatenate([one[0].reshape(3, -1).numpy().T for one in images]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(centre, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-5, atol=1e-9)


def discs(height: int = 60, width: int = 90) -> np.ndarray:
    """+1 in five discs, -1 in the ground that runs between them."""
    y, x = np.mgrid[:height, :width]
    found = np.full((height, width), -1.0)
    for row, column, radius in ((14, 15, 9), (15, 45, 11), (13, 76, 8), (44, 28, 12), (43, 66, 11)):
        found[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = 1
    return found


def test_bodies_are_compact_and_their_ground_is_not():
    assert compactness(discs()) > 0.2
    assert compactness(-discs()) == pytest.approx(-compactness(discs()))
    halves = np.ones((20, 30))
    halves[:, :15] = -1
    assert compactness(halves) == 0, "two rectangles are equally compact"


def test_the_compactness_of_a_cross_by_hand():
    cross = -np.ones((21, 21))
    cross[8:13], cross[:, 8:13] = 1, 1
    # The ground: four squares of 8 x 8, each its own hull. The cross: 21 * 21 - 4 * 64 = 185 pixels; its hull, through
    # its arms' ends, leaves a triangle of 8 + 7 + ... + 1 pixels in each corner of the square.
    assert compactness(cross) == pytest.approx(185 / (21 * 21 - 4 * 36) - 1)


def test_specks_and_empty_sides_do_not_count():
    one = -np.ones((30, 30))
    one[4:14, 4:9] = 1  # 50 pixels
    specks = one.copy()
    specks[20:24, ::6] = 1  # 4 pixels each
    area, hull = 30 * 30 - 50, 30 * 30  # the ground's hull is the whole
    assert compactness(one) == pytest.approx(1 - area / hull, abs=1e-9)
    assert compactness(specks) == pytest.approx(1 - (area - 20) / hull, abs=1e-9), "only the ground is smaller"
    assert compactness(np.ones((9, 9))) == 1
    assert compactness(np.zeros((9, 9))) == -1


def noisy(n: int = 60, channels: int = 5, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % classes
    features = torch.tensor(generator().normal(size=(n, channels)) * [1, 5, 0.1, 2, 1] + 7)
    features[:, 0] += labels
    features[:, 2] -= 0.1 * (labels == 1)
    return features, labels


def penalised(features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
    mean, scale = features.mean(axis=0), features.std(axis=0) * features.shape[1] ** 0.5
    scores = (features - mean) / scale @ weight.T + bias
    losses = -log_softmax(scores, axis=1)[np.arange(len(labels)), labels]
    return losses.mean() + strength / 2 * (weight**2).sum()


@pytest.mark.parametrize("strength", [1e-3, 0.1])
def test_the_probe_is_the_minimum_that_another_optimiser_finds(strength):
    features, labels = noisy()
    weight, bias = fit_probe(features, labels, 3, strength)
    x, y = features.numpy(), labels.numpy()

    def objective(flat: np.ndarray) -> float:
        return penalised(x, y, flat[:15].reshape(3, 5), flat[15:], strength)

    found = minimize(objective, np.zeros(18), method="BFGS", options={"gtol": 1e-7})
    mean, scale = x.mean(axis=0), x.std(axis=0) * 5**0.5
    own = np.concatenate([(weight.numpy() * scale).ravel(), bias.numpy() + weight.numpy() @ mean])
    assert objective(own) <= found.fun + 1e-9
    steps = 1e-5 * np.eye(18)
    gradient = np.array([(objective(own + s) - objective(own - s)) / 2e-5 for s in steps])
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    scores = x @ weight.numpy().T + bias.numpy()
    other = (x - mean) / scale @ found.x[:15].reshape(3, 5).T + found.x[15:]
    np.testing.assert_allclose(log_softmax(scores, axis=1), log_softmax(other, axis=1), atol=1e-3)


def test_probe_with_scaled_or_constant_features_is_unchanged():
    features, labels = noisy()
    weight, bias = fit_probe(features, labels, 3)
    scores = features @ weight.T + bias
    again, shift = fit_probe(features * 100 - 3, labels, 3)
    torch.testing.assert_close((features * 100 - 3) @ again.T + shift, scores, rtol=1e-4, atol=1e-4)
    weight, bias = fit_probe(torch.cat([features, torch.full((60, 1), 2.0)], dim=1), labels, 3)
    assert bool(weight.isfinite().all() and bias.isfinite().all())


def test_a_feature_that_is_no_number_is_refused():
    features, labels = noisy()
    features[3, 1] = torch.nan
    with pytest.raises(NumericalError, match="not a finite number"):
        fit_probe(features, labels, 3)


def test_no_image_is_judged_by_a_probe_that_saw_its_group(monkeypatch):
    features, labels = noisy()
    groups = [f"patient {i // 4 % 7}" for i in range(60)]
    of_row = {tuple(row.tolist()): group for row, group in zip(features, groups, strict=True)}
    real, trained = fit_probe, []

    def spy(x, y, classes):
        trained.append({of_row[tuple(row.tolist())] for row in x})
        return real(x, y, classes)

    monkeypatch.setattr(components, "fit_probe", spy)
    losses = cross_validated(features, labels, 3, groups, folds=5)
    assert len(trained) == 5
    held_out = [set(groups) - seen for seen in trained]
    assert sorted(group for fold in held_out for group in fold) == sorted(set(groups)), "each held out once"
    for index, group in enumerate(groups):
        (fold,) = [i for i, out in enumerate(held_out) if group in out]
        keep = torch.tensor([g not in held_out[fold] for g in groups])
        weight, bias = real(features[keep], labels[keep], 3)
        wanted = -torch.log_softmax(features[index] @ weight.T + bias, dim=0)[labels[index]]
        torch.testing.assert_close(losses[index], wanted)


def test_a_feature_that_only_names_the_patient_is_of_no_use():
    # The class is the patient's own, and the feature is the patient's number: whoever peeks is right everywhere.
    groups = np.repeat(np.arange(10), 6)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 0, 1])[groups]
    features = torch.eye(10, dtype=torch.float64)[groups]
    blind = cross_validated(features, labels, 2, groups.tolist())
    peeking = cross_validated(features, labels, 2, list(range(60)))
    assert float(peeking.mean()) < 0.35
    assert float(blind.mean()) > 0.65


def test_one_group_cannot_be_held_out():
    features, labels = noisy()
    with pytest.raises(ConfigError, match="all images are of one group"):
        cross_validated(features, labels, 3, ["a"] * 60)


class Colours(nn.Module):
    """The mean colour of 2 x 2 pixels, and a constant."""

    def __init__(self, source: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(source, 4, 2, stride=2)
        weight = torch.zeros(4, source, 2, 2)
        for i in range(min(source, 4)):
            weight[i, i] = 0.25
        bias = torch.zeros(4)
        if source == 3:
            bias[3] = 0.3
        self.mix.weight.data, self.mix.bias.data = weight, bias

    def forward(self, x):
        return self.mix(x)


def colour_network() -> FeatureComponentNetwork:
    trunk = Trunk([Colours(3)] + [Colours(4) for _ in range(4)], 4, (0.5,) * 3, (1.0,) * 3)
    return FeatureComponentNetwork(trunk)


BRIGHT, DARK = np.array([0.8, 0.7, 0.75]), np.array([0.3, 0.35, 0.3])
HUE = np.array([0.10, -0.08, 0.0])


def tissue(speaking: str, swapped: bool, n: int = 24, seed: int = 0) -> list[dict]:
    """Discs in a ground; the hue of one of the two tells the class, that of the other is drawn."""
    draw, items = generator(seed), []
    for index in range(n):
        label = index % 2
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        inside = np.zeros(SIZE, bool)
        for row in (40, 118):
            for column in (40, 112, 186):
                r, c = row + draw.uniform(-5, 5), column + draw.uniform(-5, 5)
                inside |= (y - r) ** 2 + (x - c) ** 2 < draw.uniform(24, 30) ** 2
        told = HUE * (2 * label - 1)
        drawn = HUE * draw.uniform(-2, 2)
        disc, ground = (DARK, BRIGHT) if swapped else (BRIGHT, DARK)
        disc, ground = (disc + told, ground + drawn) if speaking == "discs" else (disc + drawn, ground + told)
        pixels = np.where(inside[..., None], disc, ground) + draw.normal(scale=0.02, size=(*SIZE, 3))
        image = torch.tensor(pixels.clip(0, 1).transpose(2, 0, 1), dtype=torch.float32)
        items.append({"image": image, "label": label, "inside": inside, "group": index // 2, "name": str(index)})
    return items


def fit(items: list[dict], network: FeatureComponentNetwork | None = None, **options):
    network = network or colour_network()
    found = fit_components(network, items, lambda item: item, WholeTileInferer(), **options)
    return network, found


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("speaking", ["discs", "ground"])
def test_component_of_either_sign_selects_the_decidable_side(speaking, swapped):
    items = tissue(speaking, swapped, n=96)
    network, found = fit(items, candidates=1)
    assert (found.compactness[0] > 0) is not swapped, "in one of both cases the component must be turned round"
    with torch.no_grad():
        prediction = network.eval()(torch.stack([item["image"] for item in items]))
    mask = prediction[:, 0].numpy() < 0.5
    truth = np.stack([item["inside"] for item in items])
    right = (mask == truth).mean()
    assert right > 0.85 if speaking == "discs" else right < 0.15
    assert found.shape_agrees is (speaking == "discs")
    assert found.loss_kept < 0.1
    assert found.margin == pytest.approx(found.loss_erased - found.loss_kept)
    assert found.margin > 2 * found.standard_error > 0
    predicted = prediction[:, 1:].sum(dim=(2, 3)).argmax(dim=1)
    assert predicted.tolist() == [item["label"] for item in items]


def combined(network: FeatureComponentNetwork, items: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By NumPy: the principal components of the unit features, and the direction that was fitted, to unit length."""
    with torch.no_grad():
        features = [network.features_of(network.normalise(item["image"].unsqueeze(0)))[0][0] for item in items]
    rows = torch.cat([one.flatten(1).T for one in features]).double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    variances, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    direction = network.direction.double().numpy()
    return vectors[:, ::-1].T, variances[::-1], direction / np.linalg.norm(direction)


@pytest.mark.parametrize("swapped", [False, True])
def test_direction_weighs_components_by_squared_compactness(swapped):
    items = tissue("discs", swapped)
    network, found = fit(items, candidates=3)
    vectors, _, direction = combined(network, items)
    along = vectors[:3] @ direction
    squares = np.square(found.compactness)
    np.testing.assert_allclose(np.abs(along), squares / np.linalg.norm(squares), atol=1e-4)
    assert abs(vectors[3] @ direction) < 1e-4
    # Turned to the compact side, whatever sign an eigenvector came with.
    network.direction.copy_(torch.as_tensor(np.sign(along[0]) * vectors[0]))
    with torch.no_grad():
        z = network.scores(network.normalise(items[0]["image"].unsqueeze(0)))[0, 0].numpy()
    assert compactness(z) > 0


def test_without_any_compactness_the_first_component_is_taken(monkeypatch):
    items = tissue("discs", swapped=False, n=8)
    monkeypatch.setattr(components, "compactness", lambda scores: 0.0)
    network, _ = fit(items)
    vectors, _, direction = combined(network, items)
    assert abs(vectors[0] @ direction) == pytest.approx(1, abs=1e-4)


def test_the_direction_has_unit_spread_over_the_training_images():
    items = tissue("discs", swapped=False)
    network, found = fit(items)
    z = []
    with torch.no_grad():
        for item in items:
            f = network.features_of(network.normalise(item["image"].unsqueeze(0)))[0]
            unit = nn.functional.normalize(f, dim=1) - network.centre.view(1, -1, 1, 1)
            z.append((unit * network.direction.view(1, -1, 1, 1)).sum(dim=1).flatten())
    z = torch.cat(z)
    assert float(z.mean()) == pytest.approx(0, abs=1e-4)
    assert float(z.std(unbiased=False)) == pytest.approx(1, abs=1e-3)
    assert sum(found.explained) == pytest.approx(1, abs=1e-6), "all four of four dimensions"
    assert list(found.explained) == sorted(found.explained, reverse=True)


def test_labels_that_say_nothing_give_no_margin():
    items = tissue("discs", swapped=False)
    for seed in range(5):
        labels = generator(seed).permutation([item["label"] for item in items])
        shuffled = [{**item, "label": int(label)} for item, label in zip(items, labels, strict=True)]
        _, found = fit(shuffled)
        assert abs(found.margin) < 3 * found.standard_error
        assert found.loss_kept > 0.5


def test_the_fit_is_deterministic_and_draws_nothing():
    items = tissue("ground", swapped=True, n=12)
    networks = colour_network(), colour_network()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, found = fit(items, networks[0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, again = fit(items, networks[1])
    assert asdict(found) == asdict(again)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_what_cannot_be_fitted_is_refused():
    items = tissue("discs", swapped=False, n=4)
    with pytest.raises(ConfigError, match="candidates=0"):
        fit(items, candidates=0)
    multi_label = [{**item, "label": np.array([1.0, 0.0])} for item in items]
    with pytest.raises(ConfigError, match="several classes"):
        fit(multi_label)
    with pytest.raises(ConfigError, match="one group"):
        fit([{**item, "group": "a"} for item in items])


def photographs(n: int = 16, seed: int = 3) -> list[dict]:
    """One disc somewhere in the middle of a ground that touches the border; its hue is the class's."""
    draw, items = generator(seed), []
    for index in range(n):
        y, x = np.mgrid[:128, :192]
        row, column, radius = draw.uniform(50, 78), draw.uniform(60, 132), draw.uniform(26, 36)
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        disc, ground = BRIGHT + HUE * (2 * (index % 2) - 1), DARK + HUE * draw.uniform(-1, 1)
        pixels = np.where(inside[..., None], disc, ground) + draw.normal(scale=0.02, size=(128, 192, 3))
        image = torch.tensor(pixels.clip(0, 1).transpose(2, 0, 1), dtype=torch.float32)
        items.append({"image": image, "label": index % 2, "inside": inside, "name": str(index)})
    return items


@pytest.mark.parametrize("inverted", [False, True])
def test_component_of_objects_is_the_side_off_the_border(inverted):
    items = photographs()
    if inverted:  # a dark object on a bright ground
        items = [{**item, "image": 1 - item["image"]} for item in items]
    network, found = fit(items, object_network(), candidates=3)
    with torch.no_grad():
        z = [network.scores(network.normalise(item["image"][None]))[0, 0].numpy() for item in items]
    for one, item in zip(z, items, strict=True):
        assert one[item["inside"]].mean() > 1 > 0 > one[~item["inside"]].mean()
    assert max(abs(c) for c in found.compactness) > 0.3, "standard deviations from the border"


def test_finer_component_of_objects_is_covariance_with_coarse():
    items = photographs(6)
    network, _ = fit(items, object_network(), candidates=1)
    width = network.widths[0]
    with torch.no_grad():
        fine, coarse, spread = [], [], []
        for item in items:
            f, c = network.features_of(network.normalise(item["image"][None]))
            unit = nn.functional.normalize(c, dim=1)[0].double() - network.centre[width:, None, None]
            z = 2 * torch.einsum("n,nhw->hw", network.direction[width:].double(), unit)
            spread.append(z.flatten())
            coarse.append(nn.functional.interpolate(z[None, None], size=f.shape[2:], mode="bilinear").flatten())
            fine.append(nn.functional.normalize(f, dim=1)[0].flatten(1).double())
    rows, z = torch.cat(fine, dim=1).numpy(), torch.cat(coarse).numpy()
    rows = rows - rows.mean(axis=1, keepdims=True)
    assert float(torch.cat(spread).std()) == pytest.approx(1, abs=0.02)
    wanted = rows @ z
    direction = 2 * network.direction[:width].numpy()
    np.testing.assert_allclose(direction / np.linalg.norm(direction), wanted / np.linalg.norm(wanted), atol=1e-3)
    assert (direction @ rows).std() == pytest.approx(1, abs=1e-2)


def object_network() -> FeatureComponentNetwork:
    trunk = Trunk([Colours(3)] + [Colours(4) for _ in range(4)], 4, (0.5,) * 3, (1.0,) * 3)
    return FeatureComponentNetwork(trunk, subject="objects")
