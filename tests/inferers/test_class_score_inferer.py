# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What M and C say beside the prediction: the same prediction, each asked of the right pixels, entropies by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator

from glas_wsol.errors import ConfigError
from glas_wsol.inferers import ClassScoreInferer, WholeTileInferer, predict_with_scores
from glas_wsol.networks import ClassActivationNetwork, EnsembleNetwork, FixedMaskNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.results.class_scores import DECIDABLE, LOCALIZER, PRESENCE, UNDECIDABLE
from tests.conftest import tiny_network, tiny_trunk

IMAGE = torch.linspace(0, 1, 2 * 3 * 64 * 96).view(2, 3, 64, 96).sin().abs()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def refined(class_from: str) -> RefinedNetwork:
    first = tiny_network(num_classes=3).eval()
    network = RefinedNetwork(
        tiny_trunk(), 3, base=first.settings(), decoder_width=8, class_from=class_from, seed=0
    ).eval()
    network.base.load_state_dict(first.state_dict())
    return network


# ------------------------------------------------------------------ who is asked of what


@pytest.mark.parametrize("options", [{}, {"multi_label": True}])
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
    for class_from in ("localizer", "classifier", "first_stage"):
        network = refined(class_from)
        prediction, said = predict_with_scores(network, IMAGE)
        assert torch.equal(prediction, network(IMAGE))
        x, mask = network.normalise(IMAGE), 1 - prediction[:, :1]
        m = network.base.localize(x).logits.double().softmax(1)
        torch.testing.assert_close(said[LOCALIZER], m, rtol=0, atol=1e-6)
        if class_from != "localizer":
            expected = network.classify(x * (1 - mask)).double().softmax(1)
            torch.testing.assert_close(said[UNDECIDABLE], expected, rtol=0, atol=1e-6)
        if class_from == "first_stage":
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
    for class_from in ("localizer", "first_stage"):
        assert set(predict_with_scores(EnsembleNetwork([members[0], refined(class_from)]).eval(), IMAGE)[1]) == {
            LOCALIZER
        }


def test_a_second_stages_mask_is_unknown_to_the_classifier():
    first, second = tiny_network(num_classes=3), refined("first_stage")
    assert (first.classifier_knows_mask, second.classifier_knows_mask) == (True, False)
    assert not EnsembleNetwork([first, second]).classifier_knows_mask
    assert EnsembleNetwork([first, tiny_network(num_classes=3)]).classifier_knows_mask


# ------------------------------------------------------------------ views and evaluators


@pytest.mark.parametrize("options", [{}, {"factor": 0.6, "flips": True, "scales": [1.0, 1.5]}])
def test_inferer_scores_are_view_means_with_same_prediction(options):
    network, image = tiny_network(num_classes=3).eval(), IMAGE[..., :61, :83]
    plain = WholeTileInferer(**options)
    inferer = ClassScoreInferer(plain)
    found = inferer(image, network)
    assert torch.equal(found["pred"], plain(image, network))
    assert inferer.settings() == {**plain.settings(), "class_scores": "all"}
    each = [predict_with_scores(network, view)[1] for view in plain.views(image)]
    for key in (LOCALIZER, UNDECIDABLE):
        torch.testing.assert_close(found[key], sum(one[key] for one in each) / len(each))
    assert set(inferer(image, lambda view: view)) == {"pred"}
    assert set(ClassScoreInferer(plain, "none")(image, network)) == {"pred"}


def output_of(network, inferer: ClassScoreInferer, **options):
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": one[None], "label": torch.zeros(1)} for one in IMAGE],
        network=network,
        inferer=inferer,
        **options,
    )
    evaluator.run()
    return evaluator.state.output


def test_evaluator_passes_scores_of_each_image_to_postprocessing():
    network, seen = tiny_network(num_classes=3).eval(), []
    output_of(network, ClassScoreInferer(WholeTileInferer()), postprocessing=lambda item: seen.append(item) or item)
    expected = predict_with_scores(network, IMAGE)[1]
    for key in (LOCALIZER, UNDECIDABLE):
        found = np.stack([item["pred"][key].numpy() for item in seen])
        np.testing.assert_allclose(found, expected[key].numpy(), atol=1e-6)
    assert [tuple(item["pred"][DECIDABLE].shape) for item in seen] == [(0,), (0,)]


# ------------------------------------------------------------------ several classes per image


def multi_label_network(seed: int = 0):
    return tiny_network(seed=seed, num_classes=3, multi_label=True).eval()


def test_presence_is_mean_over_views_of_the_network():
    network, expected = multi_label_network(), []
    for image in (IMAGE, IMAGE.flip(-1)):
        x = network.normalise(WholeTileInferer(0.5).prepare(image)[0])
        expected.append(network.classify(x * network.decidable(network.localize(x))).sigmoid())
    assert not torch.allclose(*expected, atol=1e-5)
    for flips, mean in ((False, expected[0]), ("horizontal", sum(expected) / 2)):
        inferer = ClassScoreInferer(WholeTileInferer(0.5, flips=flips), "none")
        torch.testing.assert_close(inferer(IMAGE, network)[PRESENCE], mean)


def test_presence_of_ensemble_is_mean_over_members_with_a_class():
    members = [multi_label_network(0), FixedMaskNetwork("all_ones", num_classes=3), multi_label_network(1)]
    ensemble, inferer = EnsembleNetwork(members), WholeTileInferer()
    assert ensemble.multi_label is True
    seen, _ = inferer.prepare(IMAGE)
    expected = (members[0].presence(seen) + members[2].presence(seen)) / 2
    torch.testing.assert_close(ClassScoreInferer(inferer, "none")(IMAGE, ensemble)[PRESENCE], expected)
    assert EnsembleNetwork([tiny_network(), tiny_network(seed=1)]).multi_label is False
    with pytest.raises(ConfigError, match="one class per image and of several"):
        EnsembleNetwork([multi_label_network(), tiny_network(num_classes=3)])


def test_presence_is_absent_where_images_have_one_class():
    for network in (tiny_network().eval(), FixedMaskNetwork("stain", num_classes=3)):
        assert PRESENCE not in ClassScoreInferer(WholeTileInferer())(IMAGE, network)


def test_presence_of_localizer_alone_skips_the_classifier(monkeypatch):
    network, inferer = multi_label_network(), WholeTileInferer(0.5, flips="horizontal")
    monkeypatch.setattr(type(network), "classify", lambda *_: pytest.fail("C was run"))
    found = ClassScoreInferer(inferer, "localizer")(IMAGE, network)[PRESENCE]
    expected = [
        network.localize(network.normalise(inferer.prepare(image)[0])).logits.sigmoid()
        for image in (IMAGE, IMAGE.flip(-1))
    ]
    torch.testing.assert_close(found, sum(expected) / 2)


# ------------------------------------------------------------------ asking less


@pytest.mark.parametrize("options", [{}, {"multi_label": True}])
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
    [tiny_network(num_classes=3), tiny_network(num_classes=3, multi_label=True), refined("first_stage")],
    ids=["one", "several", "refined"],
)
def test_mask_alone_is_the_same_and_skips_the_classifier(network, monkeypatch):
    network.eval()
    whole, _ = predict_with_scores(network, IMAGE)
    monkeypatch.setattr(type(network), "classify", lambda *_: pytest.fail("C was run"))
    if isinstance(network, RefinedNetwork):
        monkeypatch.setattr(type(network.base), "classify", lambda *_: pytest.fail("C was run"))
    prediction, said = predict_with_scores(network, IMAGE, "localizer")
    torch.testing.assert_close(prediction[:, 0], whole[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(prediction.sum(1), torch.ones_like(whole[:, 0]))
    assert set(said) == {LOCALIZER}
    if not getattr(network, "multi_label", False):
        named = prediction[:, 1:].sum((2, 3)) / (1 - prediction[:, 0]).sum((1, 2))[:, None]
        torch.testing.assert_close(named.double(), said[LOCALIZER], rtol=1e-5, atol=1e-6)


def test_an_impossible_wish_is_refused():
    with pytest.raises(ConfigError, match="all, class, localizer, none"):
        ClassScoreInferer(WholeTileInferer(), "some")
