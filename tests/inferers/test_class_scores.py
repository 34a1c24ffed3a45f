# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What M and C say beside the prediction: the same prediction, each asked of the right pixels, entropies by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator

from glas_wsol.errors import ConfigError
from glas_wsol.handlers import RegionScores
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.inferers.class_scores import (
    DECIDABLE,
    LOCALIZER,
    MISSED,
    UNDECIDABLE,
    UNKNOWN_MASK,
    ClassScoreInferer,
    Opinion,
    Opinions,
    predict_with_scores,
)
from glas_wsol.networks import ClassActivationNetwork, EnsembleNetwork
from glas_wsol.networks.refined import RefinedNetwork
from tests.conftest import tiny_network, tiny_trunk

IMAGE = torch.linspace(0, 1, 2 * 3 * 64 * 96).view(2, 3, 64, 96).sin().abs()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def refined(opinion: str) -> RefinedNetwork:
    first = tiny_network(num_classes=3).eval()
    network = RefinedNetwork(tiny_trunk(), 3, base=first.settings(), decoder_width=8, opinion=opinion, seed=0).eval()
    network.base.load_state_dict(first.state_dict())
    return network


# ------------------------------------------------------------------ entropies


@pytest.mark.parametrize(
    ("opinion", "nats", "normalised"),
    [
        (Opinion((0.5, 0.5)), math.log(2), 1),
        (Opinion((1.0, 0.0)), 0, 0),
        (Opinion((0.25, 0.25, 0.25, 0.25)), math.log(4), 1),
        (Opinion((0.25, 0.75, 0.0)), 0.5623351446188083, 0.5623351446188083 / math.log(3)),
        (Opinion((0.5, 1.0, 0.0), several=True), math.log(2) / 3, 1 / 3),
        (Opinion((0.5, 0.5, 0.5), several=True), math.log(2), 1),
    ],
)
def test_entropies_are_those_by_hand(opinion, nats, normalised):
    assert opinion.entropy == pytest.approx(nats, abs=1e-15)
    assert opinion.normalised_entropy == pytest.approx(normalised, abs=1e-15)
    assert 0 <= opinion.normalised_entropy <= 1


# ------------------------------------------------------------------ what they mean


CLASS, OTHER = (MISSED.format(what) for what in ("the class", "another class"))


@pytest.mark.parametrize(
    ("kept", "rest", "labels", "several", "remark"),
    [
        ((0.81, 0.19), (0.82, 0.18), (0,), False, CLASS),
        ((0.81, 0.19), (0.806, 0.194), (0,), False, CLASS),  # 81 % both, as printed
        ((0.81, 0.19), (0.804, 0.196), (0,), False, ""),
        ((0.81, 0.19), (0.5, 0.5), (0,), False, ""),
        ((0.81, 0.19), (0.1, 0.9), (0,), False, OTHER),
        ((0.5, 0.5), (0.5, 0.5), (0,), False, CLASS),
        ((0.2, 0.3, 0.5), (0.55, 0.1, 0.35), (2,), False, OTHER),
        ((0.9, 0.8), (0.3, 0.85), (0, 1), True, CLASS),
        ((0.9, 0.2), (0.3, 0.95), (0,), True, ""),  # another class that an image may have besides
        ((0.2, 0.2), (0.9, 0.9), (), True, ""),
    ],
)
def test_remark_where_the_undecidable_region_is_as_sure(kept, rest, labels, several, remark):
    scores = Opinions(None, Opinion(kept, several), Opinion(rest, several))
    assert scores.remark(labels) == remark
    assert scores.regions == (scores.decidable, scores.undecidable)
    unknown = replace(scores, knows_mask=False)
    assert unknown.remark(labels) == UNKNOWN_MASK
    assert unknown.regions == (None, None)


def test_no_remark_without_scores_of_the_regions():
    assert Opinions().remark((0,)) == Opinions(knows_mask=False).remark((0,)) == ""
    assert Opinions(Opinion((0.9, 0.1)), Opinion((0.9, 0.1))).remark((0,)) == ""


def test_a_second_stages_mask_is_unknown_to_the_classifier():
    first, second = tiny_network(num_classes=3), refined("first_stage")
    assert (first.classifier_knows_mask, second.classifier_knows_mask) == (True, False)
    assert not EnsembleNetwork([first, second]).classifier_knows_mask
    assert EnsembleNetwork([first, tiny_network(num_classes=3)]).classifier_knows_mask


# ------------------------------------------------------------------ who is asked of what


@pytest.mark.parametrize("options", [{}, {"classes_per_image": "several"}])
def test_c_is_asked_of_the_rest_and_m_of_the_whole(options):
    network = tiny_network(num_classes=3, **options).eval()
    prediction, said = predict_with_scores(network, IMAGE)
    assert torch.equal(prediction, network(IMAGE))
    x = network.normalise(IMAGE)
    localized = network.localize(x)
    rest = network.probabilities(network.classify(x * (1 - network.decidable(localized))).double())
    assert set(said) == {LOCALIZER, DECIDABLE, UNDECIDABLE}
    assert said[DECIDABLE].shape == (2, 0), "the class named, which the prediction holds"
    torch.testing.assert_close(said[UNDECIDABLE], rest, rtol=0, atol=1e-6)
    torch.testing.assert_close(said[LOCALIZER], network.probabilities(localized.logits.double()))
    kept = network.probabilities(network.classify(x * network.decidable(localized)).double())
    assert not torch.allclose(rest, kept, atol=1e-4), "the parts differ"


def test_a_refined_network_is_asked_as_it_names_the_class():
    assert set(predict_with_scores(refined("localizer"), IMAGE)[1]) == {LOCALIZER}
    own = refined("classifier")
    assert set(predict_with_scores(own, IMAGE)[1]) == {LOCALIZER, DECIDABLE, UNDECIDABLE}
    assert (
        predict_with_scores(own, IMAGE)[1][DECIDABLE].shape
        == predict_with_scores(own, IMAGE, "class")[1][DECIDABLE].shape
        == (2, 0)
    )
    assert set(predict_with_scores(refined("first_stage"), IMAGE, "class")[1]) == {LOCALIZER}, (
        "the class is of another mask"
    )
    for opinion in ("localizer", "classifier", "first_stage"):
        network = refined(opinion)
        prediction, said = predict_with_scores(network, IMAGE)
        assert torch.equal(prediction, network(IMAGE))
        x, mask = network.normalise(IMAGE), 1 - prediction[:, :1]
        m = network.base.localize(x).logits.double().softmax(1)
        torch.testing.assert_close(said[LOCALIZER], m, rtol=0, atol=1e-6)
        if opinion != "localizer":
            expected = network.classify(x * (1 - mask)).double().softmax(1)
            torch.testing.assert_close(said[UNDECIDABLE], expected, rtol=0, atol=1e-6)
        if opinion == "first_stage":
            expected = network.classify(x * mask).double().softmax(1)
            torch.testing.assert_close(said[DECIDABLE], expected, rtol=0, atol=1e-6)


def test_a_method_without_m_and_c_has_nothing_more_to_say():
    network = ClassActivationNetwork(tiny_trunk(), 3, seed=0).eval()
    prediction, said = predict_with_scores(network, IMAGE)
    assert torch.equal(prediction, network(IMAGE))
    assert said == {}
    base = {"class": "ClassActivationNetwork"}
    assert predict_with_scores(RefinedNetwork(tiny_trunk(), base=base, decoder_width=8).eval(), IMAGE)[1] == {}
    assert predict_with_scores(lambda image: image, IMAGE)[1] == {}


def test_an_ensemble_says_the_mean_of_what_all_its_members_say():
    members = [tiny_network(num_classes=3, seed=seed) for seed in (0, 1)]
    ensemble = EnsembleNetwork(members).eval()
    prediction, said = predict_with_scores(ensemble, IMAGE)
    assert torch.equal(prediction, ensemble(IMAGE))
    for key in (LOCALIZER, UNDECIDABLE):
        torch.testing.assert_close(said[key], sum(predict_with_scores(one, IMAGE)[1][key] for one in members) / 2)
    assert said[DECIDABLE].shape == (2, 0)
    mixed = EnsembleNetwork([members[0], ClassActivationNetwork(tiny_trunk(), 3, seed=0)]).eval()
    prediction, said = predict_with_scores(mixed, IMAGE)
    assert torch.equal(prediction, mixed(IMAGE))
    assert said == {}
    for opinion in ("localizer", "first_stage"):
        assert set(predict_with_scores(EnsembleNetwork([members[0], refined(opinion)]).eval(), IMAGE)[1]) == {LOCALIZER}


# ------------------------------------------------------------------ views and evaluators


@pytest.mark.parametrize("options", [{}, {"factor": 0.6, "flips": True, "scales": [1.0, 1.5]}])
def test_asking_changes_no_bit_of_the_prediction_and_is_the_mean_over_the_views(options):
    network, image = tiny_network(num_classes=3).eval(), IMAGE[..., :61, :83]
    inferer = ClassScoreInferer(**options)
    assert torch.equal(inferer(image, network), WholeTileInferer(**options)(image, network))
    assert inferer.settings() == {**WholeTileInferer(**options).settings(), "class_scores": "all"}
    each = [predict_with_scores(network, view)[1] for view in WholeTileInferer(**options).views(image)]
    for key in (LOCALIZER, UNDECIDABLE):
        torch.testing.assert_close(inferer.class_scores[key], sum(one[key] for one in each) / len(each))
    inferer(image, lambda view: view)
    assert inferer.class_scores == {}, "those of the last call"


def test_an_evaluator_gets_what_was_said_of_each_image():
    network, inferer = tiny_network(num_classes=3).eval(), ClassScoreInferer()
    data = [{"image": one[None], "label": torch.zeros(1)} for one in IMAGE]
    seen = []
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=data,
        network=network,
        inferer=inferer,
        val_handlers=[RegionScores(inferer)],
        postprocessing=lambda item: seen.append(item) or item,
    )
    evaluator.run()
    expected = predict_with_scores(network, IMAGE)[1]
    for key in (LOCALIZER, UNDECIDABLE):
        found = np.stack([item[key].numpy() for item in seen])
        np.testing.assert_allclose(found, expected[key].numpy(), atol=1e-6)
    assert [tuple(item[DECIDABLE].shape) for item in seen] == [(0,), (0,)]


# ------------------------------------------------------------------ asking less


@pytest.mark.parametrize("options", [{}, {"classes_per_image": "several"}])
def test_asking_for_the_class_alone_changes_nothing_that_is_left(options):
    network = tiny_network(num_classes=3, **options).eval()
    whole, every = predict_with_scores(network, IMAGE)
    prediction, said = predict_with_scores(network, IMAGE, "class")
    assert torch.equal(prediction, whole)
    assert set(every) == {LOCALIZER, DECIDABLE, UNDECIDABLE}
    assert set(said) == {LOCALIZER, DECIDABLE}
    assert said[DECIDABLE].shape == (2, 0), "the class named, which the prediction holds"


@pytest.mark.parametrize(
    "network",
    [tiny_network(num_classes=3), tiny_network(num_classes=3, classes_per_image="several"), refined("first_stage")],
    ids=["one", "several", "refined"],
)
def test_the_mask_alone_is_the_same_mask_and_does_not_run_the_classifier(network, monkeypatch):
    network.eval()
    whole, _ = predict_with_scores(network, IMAGE)
    monkeypatch.setattr(type(network), "classify", lambda *_: pytest.fail("C was run"))
    if isinstance(network, RefinedNetwork):
        monkeypatch.setattr(type(network.base), "classify", lambda *_: pytest.fail("C was run"))
    prediction, said = predict_with_scores(network, IMAGE, "localizer")
    torch.testing.assert_close(prediction[:, 0], whole[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(prediction.sum(1), torch.ones_like(whole[:, 0]))
    assert set(said) == {LOCALIZER}
    if not getattr(network, "several", False):
        named = prediction[:, 1:].sum((2, 3)) / (1 - prediction[:, 0]).sum((1, 2))[:, None]
        torch.testing.assert_close(named.double(), said[LOCALIZER], rtol=1e-5, atol=1e-6)


def test_an_impossible_wish_is_refused():
    with pytest.raises(ConfigError, match="all, class, localizer"):
        ClassScoreInferer(class_scores="some")
    assert ClassScoreInferer(class_scores="class").settings()["class_scores"] == "class"
