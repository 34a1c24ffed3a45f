# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Ensembles from the files of trained models, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.handlers import write_model
from glas_wsol.networks import ClassActivationNetwork, EnsembleNetwork, MinMaxEntropyNetwork, build_network
from glas_wsol.networks.checkpoint import ensemble_of, load_checkpoint, model_card, model_digests
from glas_wsol.utils.digests import sha256_of

TRUNK = "efficientnet_lite0"
CARD = {"trunk": TRUNK, "classes": ["a", "b"], "scale": 0.5, "short_side": None, "method": "minmax"}


def network(row=MinMaxEntropyNetwork, seed: int = 0, trunk: str = TRUNK, **options) -> torch.nn.Module:
    return row(trunk, weights="none", seed=seed, **options).eval()


def written(folder: Path, one: torch.nn.Module, **card) -> str:
    write_model(one, folder, {**CARD, **card})
    return str(folder / "model.pt")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[tuple[str, torch.nn.Module]]:
    """Two seeds of one row, and another row with another normalisation of the input."""
    folder = tmp_path_factory.mktemp("models")
    made = [network(seed=1), network(seed=2), network(ClassActivationNetwork, 3, pixel_mean=[0.9, 0.1, 0.5])]
    cards = [{"seed": 1}, {"seed": 2}, {"seed": 3, "method": "cam_avg"}]
    return [(written(folder / str(n), one, **cards[n]), one) for n, one in enumerate(made)]


def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_the_common_card_builds_what_the_files_are_loaded_into(models):
    files, networks = zip(*models, strict=True)
    card = model_card(list(files), trunk="resnet101", scale=1.0)
    assert (card["trunk"], card["scale"], card["method"], card["seed"]) == (TRUNK, 0.5, "minmax + cam_avg", 1)
    assert [one["sha256"] for one in card["members"]] == [sha256_of(file) for file in files] == model_digests(files)
    empty = build_network(card["network"], trunk=card["trunk"], weights="none", num_classes=2, seed=0)
    load_checkpoint(empty, files)
    with torch.no_grad():
        assert torch.equal(empty.eval()(image()), EnsembleNetwork(networks)(image()))


def test_one_file_is_no_ensemble(models):
    file, one = models[0]
    for given in (file, [file], (file,)):
        assert ensemble_of(one, given, TRUNK) is one
        assert "members" not in model_card(given)
        assert model_digests(given) == [sha256_of(file)]
    assert model_digests("nowhere.pt") == []


def test_members_that_fit_config_network_are_its_copies(models):
    files = [file for file, _ in models]
    own = network(seed=9)
    found = ensemble_of(own, files, TRUNK)
    assert [type(member) for member in found.members] == [*[MinMaxEntropyNetwork] * 2, ClassActivationNetwork]
    assert own not in list(found.members)
    load_checkpoint(found, files, {"scale": 0.5, "trunk": TRUNK})
    with torch.no_grad():
        assert torch.equal(found.eval()(image())[:, 0], EnsembleNetwork([n for _, n in models])(image())[:, 0])


def test_what_no_card_says_is_as_in_the_config(tmp_path):
    files = [written(tmp_path / str(seed), network(ClassActivationNetwork, seed)) for seed in (1, 2)]
    own = network(ClassActivationNetwork, explanation="grad_cam")
    assert [member.explanation for member in ensemble_of(own, files, TRUNK).members] == ["grad_cam"] * 2


def test_a_member_of_another_trunk_is_built_on_its_own(models, tmp_path):
    other = network(trunk="resnet18", seed=4)
    files = [models[0][0], written(tmp_path, other, trunk="resnet18")]
    found = ensemble_of(network(), files, TRUNK)
    load_checkpoint(found, files, {"trunk": TRUNK, "scale": 0.5})
    with torch.no_grad():
        assert torch.equal(found.eval()(image()), EnsembleNetwork([models[0][1], other])(image()))


def test_what_does_not_fit_together_is_refused_in_one_line(models, tmp_path):
    (first, one), (second, _), _ = models
    coarse = written(tmp_path / "coarse", network(seed=5), scale=0.25)
    both = [first, second]
    for wrong, error, said in (
        (lambda: model_card([first, coarse]), ConfigError, r"scale is 0\.5 in .* and 0\.25 here"),
        (lambda: model_card([first, first]), ConfigError, "the same model as"),
        (lambda: model_card([]), ConfigError, "no model"),
        (lambda: load_checkpoint(one, both), ConfigError, "2 checkpoints for a network of 1"),
        (lambda: load_checkpoint(EnsembleNetwork([one] * 2), first), ConfigError, "1 checkpoints for a network of 2"),
        (lambda: load_checkpoint(ensemble_of(one, both, TRUNK), both, {"scale": 1.0}), ConfigError, "scale was 0.5"),
    ):
        with pytest.raises(error, match=said) as caught:
            wrong()
        assert "\n" not in str(caught.value)
