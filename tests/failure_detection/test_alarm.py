# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Signals on masks whose worth is known, the alarm's algebra, and what it leaves in a run."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from glas_wsol.failure_detection import alarm
from glas_wsol.failure_detection.alarm import ALARM, Alarm, judge_run, shipped_alarm
from glas_wsol.failure_detection.signals import MaskSignals, mask_signals
from glas_wsol.handlers import write_model
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.checkpoint import load_checkpoint
from glas_wsol.pseudo_labels.feature_components import compactness, fit_components
from glas_wsol.results.provenance import provenance_of
from glas_wsol.results.verdict import Verdict
from tests.pseudo_labels.test_feature_components import colour_network, tissue

GOOD = MaskSignals(information=0.8, margin=0.4, margin_error=0.1, compactness=0.2, agreement=0.7, kept=0.5)
BAD = MaskSignals(information=0.1, margin=-0.3, margin_error=0.1, compactness=-0.1, agreement=0.0, kept=0.5)


class Says(nn.Module):
    """A network that knows the images, and says of each what it was given."""

    def __init__(self, items: list[dict], masks: list[np.ndarray]) -> None:
        super().__init__()
        self.known = [(item["image"], torch.tensor(mask)) for item, mask in zip(items, masks, strict=True)]

    def undecidable(self, image: torch.Tensor) -> torch.Tensor:
        (mask,) = [mask for known, mask in self.known if torch.equal(known, image[0])]
        return torch.where(mask, 0.1, 0.9).to(image)[None, None]


def signals(items: list[dict], masks: list[np.ndarray]) -> MaskSignals:
    features, reads = colour_network(), (items, lambda item: item, WholeTileInferer())
    fit_components(features, *reads)
    return mask_signals(Says(items, masks), features, *reads)


def test_signals_of_right_mask_agree_and_of_reverse_disagree():
    items = tissue("discs", swapped=False)
    inside = [item["inside"] for item in items]
    good, reverse = signals(items, inside), signals(items, [~one for one in inside])
    assert good.information > 0.8
    assert good.margin > 2 * good.margin_error > 0
    assert good.compactness > 0.1
    assert good.kept == pytest.approx(np.mean(inside), abs=1e-6)
    assert reverse.margin == pytest.approx(-good.margin)
    assert reverse.margin_error == pytest.approx(good.margin_error)
    assert reverse.compactness == pytest.approx(-good.compactness, abs=0.01)
    assert reverse.information < 0.3
    assert good.agreement > 0.8, "the component of these colours is what is inside"
    assert reverse.agreement < -0.7


def test_a_mask_of_anything_else_agrees_with_no_structure():
    items = tissue("discs", swapped=False)
    halves = [np.arange(item["inside"].shape[1]) < item["inside"].shape[1] // 2 for item in items]
    found = signals(
        items, [np.broadcast_to(half, item["inside"].shape) for half, item in zip(halves, items, strict=True)]
    )
    assert abs(found.agreement) < 0.15


def test_the_compactness_is_that_of_the_masks():
    items = tissue("discs", swapped=False, n=4)
    found = signals(items, [item["inside"] for item in items]).compactness
    at_a_fourth = [item["inside"].reshape(40, 4, 56, 4).mean(axis=(1, 3)) - 0.5 for item in items]
    assert found == pytest.approx(np.mean([compactness(one) for one in at_a_fourth]))


def test_permuted_labels_leave_nothing_to_be_told():
    items = tissue("discs", swapped=False)
    for seed in range(3):
        labels = np.random.default_rng(seed).permutation([item["label"] for item in items])
        permuted = [{**item, "label": int(label)} for item, label in zip(items, labels, strict=True)]
        assert signals(permuted, [item["inside"] for item in items]).information < 0.25


def test_an_empty_mask_is_judged_too():
    items = tissue("discs", swapped=False)
    found = signals(items, [np.zeros_like(item["inside"]) for item in items])
    assert found.kept == 0
    assert found.margin < 0, "of nothing, nothing can be told"
    assert found.information == pytest.approx(0, abs=0.05)
    assert all(math.isfinite(one) for one in (found.information, found.margin, found.compactness))


def test_calibration_is_the_minimum_of_the_penalised_likelihood():
    draw = np.random.default_rng(0)
    runs = [
        MaskSignals(*draw.uniform([0, -0.3, 0.05, -0.1, -0.1, 0.4], [1, 0.3, 0.1, 0.2, 0.8, 0.6])) for _ in range(40)
    ]
    failed = [one.compactness + 0.2 * one.agreement + draw.normal(scale=0.05) < 0.1 for one in runs]
    judge = Alarm.calibrated(runs, failed, "what was drawn", strength=0.05)
    x = np.array([Alarm.signal_vector(one) for one in runs])
    scale = x.std(axis=0) * x.shape[1] ** 0.5
    z = (x - x.mean(axis=0)) / scale

    def objective(w: np.ndarray) -> float:  # two classes of opposite weights, as the probe's penalty shares them
        score = np.where(failed, 1, -1) * (z @ w[:2] + w[2])
        return np.logaddexp(0, -score).mean() + 0.05 / 2 * (w[:2] ** 2).sum() / 2

    best = minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(judge.weights, best[:2] / scale, rtol=1e-3)
    expected = 1 / (1 + np.exp(-(z @ best[:2] + best[2])))
    np.testing.assert_allclose([judge.score(one) for one in runs], expected, atol=1e-4)


def test_what_was_shipped_tells_good_from_bad():
    judge = shipped_alarm()
    assert judge.calibrated_on
    assert judge.score(GOOD) < 0.2 < 0.8 < judge.score(BAD)
    assert Verdict.of(judge.score(GOOD)) is Verdict.NO_ALARM
    assert Verdict.of(judge.score(BAD)) is Verdict.ALARM
    assert Verdict.of(0.5) is Verdict.DOUBTFUL


def test_more_compact_masks_are_less_alarming():
    judge = shipped_alarm()
    scores = [judge.score(replace(GOOD, compactness=value)) for value in (-0.2, 0.0, 0.1, 0.2, 0.4)]
    assert scores[0] > scores[1] > scores[2] > scores[3] == scores[4], "blobs are compact whatever they cover"


def test_extreme_signals_give_a_probability():
    judge = Alarm((1e6, 0.0), 0.0, "")
    for value in (-1e9, 1e9):
        assert 0 < judge.score(replace(GOOD, compactness=value, margin_error=0.0)) < 1


@pytest.fixture
def run(tmp_path, monkeypatch):
    items = tissue("discs", swapped=False, n=8)
    network = colour_network()
    network.direction[0] = 1.0
    write_model(network, tmp_path, {"method": "components", "epoch": 3})
    features = colour_network()
    features.trunk.weights_sha256 = "something"
    common = (network, tmp_path / "model.pt", features)
    return lambda data=items: judge_run(*common, data, lambda item: item, WholeTileInferer())


def test_a_verdict_is_written_into_the_model_s_card_and_kept(run, tmp_path, caplog, monkeypatch):
    before = (tmp_path / "model.pt").read_bytes()
    with caplog.at_level(logging.INFO):
        found = run()
    card = json.loads((tmp_path / "model.json").read_text())
    assert card[ALARM] == found
    assert (card["epoch"], card["method"]) == (3, "components")
    assert (tmp_path / "model.pt").read_bytes() == before
    assert found["verdict"] in caplog.text
    assert found["score"] == shipped_alarm().score(MaskSignals(**found["signals"]))
    monkeypatch.setattr(alarm, "mask_signals", None)  # would fail if it were called
    assert run() == found, "a finished run is not judged again"


@pytest.mark.parametrize(
    ("change", "why"),
    [({"label": np.array([1.0, 0.0])}, "several classes"), ({"group": "one"}, "one patient")],
)
def test_what_cannot_be_judged_says_why(run, tmp_path, caplog, change, why):
    card = json.loads((tmp_path / "model.json").read_text())
    items = [{**item, **change} for item in tissue("discs", swapped=False, n=4)]
    with caplog.at_level(logging.INFO):
        found = run(items)
    assert found["score"] is None
    assert found["verdict"] == "not judged"
    assert why in found["why"]
    assert why in caplog.text
    after = json.loads((tmp_path / "model.json").read_text())
    assert {**after, "familiarity": None} == {**card, "familiarity": None, ALARM: found}


def test_photographs_of_objects_are_not_judged_with_the_reason(run, tmp_path, monkeypatch):
    monkeypatch.setattr(alarm, "mask_signals", None)  # would fail if it were called
    monkeypatch.setattr(alarm, "shipped_alarm", lambda: Alarm((1.0, 1.0), 0.0, "", subject="objects"))
    found = run()
    assert found["why"] == "the alarm was calibrated on objects, these images show tissue"
    said = provenance_of(json.loads((tmp_path / "model.json").read_text())).alarm
    assert str(said) == f"training run: not judged: {found['why']}"


def test_finished_model_describes_its_training_images(run, tmp_path, monkeypatch):
    run()
    card = json.loads((tmp_path / "model.json").read_text())
    network = colour_network()
    load_checkpoint(network, str(tmp_path / "model.pt"))
    assert network.familiarity.entry() == card["familiarity"]
    assert network.familiarity.kinds["texture"].images == 8
    before = (tmp_path / "model.json").read_bytes()
    monkeypatch.setattr(alarm, "describe_images", None)  # would fail if it were called
    run()
    assert (tmp_path / "model.json").read_bytes() == before


def test_older_model_is_described_and_not_judged_again(run, tmp_path):
    found = run()
    card = json.loads((tmp_path / "model.json").read_text())
    del card["familiarity"]
    (tmp_path / "model.json").write_text(json.dumps(card))
    network = colour_network()
    load_checkpoint(network, str(tmp_path / "model.pt"))
    assert network.familiarity is None
    assert run() == found
    assert json.loads((tmp_path / "model.json").read_text())["familiarity"].keys() == {"texture", "colour"}


def test_of_many_images_enough_are_looked_at(run, monkeypatch):
    looked_at = []
    judged = alarm.mask_signals

    def signals_of(network, features, data, *others):
        looked_at.extend(data)
        return judged(network, features, data, *others)

    monkeypatch.setattr(alarm, "mask_signals", signals_of)
    monkeypatch.setattr(alarm, "_ENOUGH", 3)
    items = tissue("discs", swapped=False, n=8)
    assert run(items) is not None
    assert [id(one) for one in looked_at] == [id(one) for one in items[::3]]
