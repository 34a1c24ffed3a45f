# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""How probable several classes are, asked besides the prediction, view by view."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedEvaluator

from glas_wsol.errors import ConfigError
from glas_wsol.handlers import ClassPresence
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.inferers.class_scores import ClassScoreInferer
from glas_wsol.networks import ClassActivationNetwork, EnsembleNetwork, FixedMaskNetwork
from tests.conftest import tiny_network, tiny_trunk

IMAGE = torch.rand(2, 3, 70, 101, generator=torch.Generator().manual_seed(0))


def several(seed: int = 0):
    return tiny_network(seed=seed, num_classes=3, classes_per_image="several").eval()


def output_of(network, inferer: WholeTileInferer) -> dict[str, torch.Tensor]:
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": IMAGE, "label": torch.zeros(2, 3)}],
        network=network,
        inferer=inferer,
        val_handlers=[ClassPresence(network, inferer)],
        decollate=False,
    )
    evaluator.run()
    return evaluator.state.output


def test_presence_is_the_mean_over_the_views_of_what_the_network_says():
    network = several()
    expected = []
    for image in (IMAGE, IMAGE.flip(-1)):
        seen, _ = WholeTileInferer(0.5).prepare(image)
        with torch.no_grad():
            x = network.normalise(seen)
            expected.append(network.classify(x * network.decidable(network.localize(x))).sigmoid())
    assert not torch.allclose(*expected, atol=1e-5)
    torch.testing.assert_close(output_of(network, WholeTileInferer(0.5))["presence"], expected[0])
    both = output_of(network, WholeTileInferer(0.5, flips="horizontal"))["presence"]
    torch.testing.assert_close(both, sum(expected) / 2)


def test_an_ensemble_s_is_the_mean_over_the_members_that_name_a_class():
    members = [several(0), FixedMaskNetwork("all_ones", num_classes=3), several(1)]
    ensemble, inferer = EnsembleNetwork(members), WholeTileInferer()
    assert ensemble.classes_per_image == "several"
    seen, _ = inferer.prepare(IMAGE)
    with torch.no_grad():
        expected = (members[0].presence(seen) + members[2].presence(seen)) / 2
    torch.testing.assert_close(output_of(ensemble, inferer)["presence"], expected)
    assert EnsembleNetwork([tiny_network(), tiny_network(seed=1)]).classes_per_image == "one"
    with pytest.raises(ConfigError, match="one class per image and of several"):
        EnsembleNetwork([several(), tiny_network(num_classes=3)])


def test_of_one_class_per_image_nothing_is_asked():
    assert "presence" not in output_of(tiny_network().eval(), WholeTileInferer())
    assert "presence" not in output_of(FixedMaskNetwork("stain", num_classes=3), WholeTileInferer())


def test_labels_of_the_other_kind_are_refused_in_one_line():
    inferer, cam = WholeTileInferer(), ClassActivationNetwork(tiny_trunk())
    with pytest.raises(ConfigError, match="ClassActivationNetwork has classes_per_image=one") as caught:
        ClassPresence(cam, inferer, "several")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="the labels are of one"):
        ClassPresence(several(), inferer, "one")
    with pytest.raises(ConfigError, match="one or several"):
        ClassPresence(cam, inferer, "two")
    for network, word in ((cam, "one"), (several(), "several"), (FixedMaskNetwork("stain"), "several")):
        assert ClassPresence(network, inferer, word).several == (word == "several" and network.names_class)


def test_where_m_alone_is_asked_the_presence_is_what_it_says_and_c_is_not_run(monkeypatch):
    network = several()
    monkeypatch.setattr(type(network), "classify", lambda *_: pytest.fail("C was run"))
    inferer = ClassScoreInferer(0.5, flips="horizontal", class_scores="localizer")
    found = output_of(network, inferer)["presence"]
    expected = []
    for image in (IMAGE, IMAGE.flip(-1)):
        with torch.no_grad():
            expected.append(network.localize(network.normalise(inferer.prepare(image)[0])).logits.sigmoid())
    torch.testing.assert_close(found, sum(expected) / 2)
