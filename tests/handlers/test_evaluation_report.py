# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What an evaluation's figures leave on disk: the report, and what M and C say besides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import decollate_batch
from monai.engines import SupervisedEvaluator
from torch import Tensor

from glas_wsol.handlers import EvaluationReport, WholeImageScores
from glas_wsol.handlers.evaluation_report import summary
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.metrics import (
    MEASURES,
    NO_WIDTH,
    BoxAccuracy,
    ClassificationError,
    MaxBoxAccuracy,
    OfficialBox,
    RegionF1,
    share_interval,
)
from glas_wsol.networks import EnsembleNetwork, RefinedNetwork
from glas_wsol.networks.base import TileNetwork
from glas_wsol.utils.digests import sha256_of
from tests.conftest import tiny_network, tiny_trunk
from tests.handlers.conftest import broken_off, item, left, rows
from tests.metrics.conftest import evaluate

IMAGES = torch.rand(2, 3, 70, 101, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2])


def metrics() -> dict[str, Any]:
    made: dict[str, Any] = {"classification_error": ClassificationError()}
    for region in ("foreground", "background"):
        made |= {f"f1_{region}": RegionF1(region), f"floor_f1_{region}": RegionF1(region, "all_ones")}
    return made


def report_of(tmp_path: Path, batches: list[list[dict]], **facts: Any) -> dict[str, Any]:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"weights")
    evaluate(metrics(), batches, [EvaluationReport(tmp_path, {"split": "test", **facts}, checkpoint)])
    return json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))


def value(report: dict[str, Any], key: str) -> Any:
    return report["measures"][key]["value"]


def test_report_failed_second_run_leaves_no_earlier_report(tmp_path):
    report_of(tmp_path, [[item("a", 0.75, 1)]])
    ended = {
        "evaluation.json",
        "evaluation.csv",
        "evaluation.npz",
        "evaluation_classes.csv",
        "evaluation_confusions.csv",
    }
    assert left(tmp_path) == {"model.pt", *ended}
    broken_off(tmp_path, EvaluationReport(tmp_path, {}, tmp_path / "model.pt"))
    assert left(tmp_path) == {"model.pt"}


def test_a_second_report_counts_its_own_images_only(tmp_path):
    handler = EvaluationReport(tmp_path, {"split": "test"}, tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"weights")
    evaluate(metrics(), [[item("a", 0.75, 1, evidence=False), item("b", 0.75, 1)]], [handler])
    evaluate(metrics(), [[item("c", 0.75, 1)]], [handler])
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["n"], report["n_without_evidence"]) == (1, 0)
    assert [row["name"] for row in rows(tmp_path / "evaluation.csv")] == ["c"]


def test_the_threshold_reported_is_that_of_the_masks(tmp_path):
    one = item("a", 0.75, 1)
    one["localization"] = replace(one["localization"], threshold=0.9)
    assert report_of(tmp_path, [[one]])["threshold"] == 0.9
    assert report_of(tmp_path, [[one]], threshold=0.1)["threshold"] == 0.9, "what was done counts, not what was said"


def test_the_report_by_hand(tmp_path):
    # Two of four images are wrong. Every mask covers a quarter, every truth a half of which it is part:
    # F1+ = 2/4 / (1/4 + 1/2) = 2/3, F1- = 2 * 1/2 / (3/4 + 1/2) = 4/5; a mask of ones: 2/3 and 0.
    batches = [[item("a", 0.75, 1), item("b", 0.75, 0)], [item("c", 0.25, 0), item("d", 0.25, 1)]]
    report = report_of(tmp_path, batches, seed=3)
    assert (report["n"], report["n_with_masks"], report["split"], report["seed"]) == (4, 4, "test", 3)
    assert value(report, "classification_error") == 0.5
    assert value(report, "f1_foreground") == pytest.approx(2 / 3, rel=1e-6)
    assert value(report, "f1_background") == pytest.approx(4 / 5, rel=1e-6)
    assert report["measures"]["f1_foreground"]["interval"] == pytest.approx([2 / 3] * 2, rel=1e-6)
    assert report["measures"]["classification_error"]["interval"] == list(share_interval([1, 0, 1, 0]))
    assert report["floor"]["f1_foreground"] == pytest.approx(2 / 3, rel=1e-6)
    assert report["floor"]["f1_background"] == 0
    assert report["checkpoint"] == "model.pt"
    assert report["checkpoint_sha256"] == sha256_of(tmp_path / "model.pt")


def test_the_report_has_one_row_per_image(tmp_path):
    report = report_of(tmp_path, [[item("a", 0.75, 1)], [item("b", 0.75, 0), item("c", 0.9, 1, evidence=False)]])
    assert (report["n_without_evidence"], report["threshold"]) == (1, 0.5)
    table = rows(tmp_path / "evaluation.csv")
    assert [row["name"] for row in table] == ["a", "b", "c"]
    assert [row["label"] for row in table] == ["malignant", "benign", "malignant"]
    assert [row["class"] for row in table] == ["malignant", "malignant", "no evidence"]
    assert [float(row["probability_of_label"]) for row in table] == [0.75, 0.25, 0.9]
    assert [float(row["classification_error"]) for row in table] == [0, 1, 0]
    assert [float(row["f1_foreground"]) for row in table] == pytest.approx([2 / 3, 2 / 3, 0], abs=1e-6)
    assert [row["predicted"] for row in table] == ["malignant"] * 3, "evidence or not"
    assert [row["image"] for row in table] == [f"tiles/{name}.bmp" for name in "abc"]
    assert [row["mask"] for row in table] == [f"masks/{name}.png" for name in "abc"]
    assert not {"evidence", "truth"} & table[0].keys()


def test_without_any_true_mask_the_report_says_so_with_nulls(tmp_path):
    report = report_of(tmp_path, [[item("a", 0.75, 1, truth=False)], [item("b", 0.75, 0, truth=False)]])
    assert (report["n"], report["n_with_masks"], value(report, "classification_error")) == (2, 0, 0.5)
    assert list(report["measures"]) == ["classification_error"]
    assert report["floor"] == {"name": "all-ones", "f1_foreground": None, "f1_background": None}
    assert [row["name"] for row in rows(tmp_path / "evaluation.csv")] == ["a", "b"]
    assert "F1" not in summary(report)


def test_report_images_with_and_without_mask_keep_own_values(tmp_path):
    batches = [[item("a", 0.75, 1), item("b", 0.75, 0, truth=False)], [item("c", 0.25, 0, evidence=False)]]
    report = report_of(tmp_path, batches)
    assert (report["n"], report["n_with_masks"]) == (3, 2)
    table = rows(tmp_path / "evaluation.csv")
    assert [row["f1_foreground"] for row in table] == ["0.666667", "", "0.000000"]
    assert [row["mask"] for row in table] == ["masks/a.png", "", "masks/c.png"]
    assert value(report, "f1_foreground") == pytest.approx(1 / 3)


def test_what_each_measure_took_from_each_image_is_kept_by_name(tmp_path):
    report_of(tmp_path, [[item("b", 0.75, 1), item("a", 0.75, 0, truth=False)], [item("c", 0.25, 0, evidence=False)]])
    with np.load(tmp_path / "evaluation.npz", allow_pickle=False) as kept:
        assert kept["names"].tolist() == ["b", "a", "c"]
        assert set(kept) == {"names", "classification_error", "f1_foreground", "f1_background"}
        assert kept["classification_error"].tolist() == [[0], [1], [0]]
        np.testing.assert_allclose(kept["f1_foreground"], [[2 / 3], [np.nan], [0]], rtol=1e-6)


def test_report_image_without_object_has_no_box_accuracy(tmp_path):
    items = [item(name, 0.75, 1) for name in "abc"]
    items[1]["truth"][:] = False  # a mask, and nothing in it
    items[2]["truth"][:, 20:] = False  # the mask's own quarter: IoU 1
    boxes = {"box_accuracy": BoxAccuracy(), "max_box_accuracy": MaxBoxAccuracy()}
    (tmp_path / "model.pt").write_bytes(b"weights")
    evaluate({**metrics(), **boxes}, [items], [EvaluationReport(tmp_path, {}, tmp_path / "model.pt")])
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["n_with_masks"], report["measures"]["box_accuracy"]["n"]) == (3, 2)
    assert value(report, "box_accuracy") == pytest.approx((2 / 3 + 1) / 2)  # of "a" the upper half: IoU 1/2
    assert [key for key, found in report["measures"].items() if found.get("oracle")] == ["max_box_accuracy"]
    with np.load(tmp_path / "evaluation.npz") as kept:
        np.testing.assert_array_equal(kept["box_accuracy"], [[1, 1, 0], [np.nan] * 3, [1, 1, 1]])
        assert np.isnan(kept["max_box_accuracy"]).all(axis=1).tolist() == [False, True, False]
        assert kept["f1_background"][1] > 0


def test_report_official_boxes_beside_floor_and_classes(tmp_path):
    items = [item("a", 0.75, 1), item("b", 0.75, 0), item("c", 0.25, 0)]
    items[0]["box"] = torch.tensor([0, 0, 35, 30])  # the mask is 35 x 20 px: IoU 2/3
    items[1]["box"] = torch.tensor([0, 0, 70, 10])
    keys = ("official_box_accuracy", "largest_box_accuracy", "inside_box", "max_official_box_accuracy")
    official: dict[str, Any] = {key: OfficialBox(key) for key in keys}
    official |= {f"floor_{key}": OfficialBox(key, "all_ones") for key in keys[:3]}
    (tmp_path / "model.pt").write_bytes(b"weights")
    evaluate({**metrics(), **official}, [items], [EvaluationReport(tmp_path, {}, tmp_path / "model.pt")])
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["n"], report["n_with_official_boxes"], report["measures"]["inside_box"]["n"]) == (3, 2, 2)
    assert value(report, "official_box_accuracy") == pytest.approx((2 / 3 + 1 / 3) / 2)  # of "b" 350 of 1050 px
    assert value(report, "largest_box_accuracy") == 0.5
    assert value(report, "inside_box") == pytest.approx((1 + 0.5) / 2)
    assert report["floor"]["inside_box"] == pytest.approx((35 * 30 + 700) / 2 / 2800)
    assert report["measures"]["max_official_box_accuracy"]["oracle"]
    assert "MaxBoxAccV2" not in summary(report)
    assert [row["official_box"] for row in rows(tmp_path / "evaluation.csv")] == ["0 0 35 30", "0 0 70 10", ""]
    assert [(one["class"], one["images"], one["errors"]) for one in report["class_errors"]] == [
        ("benign", 2, 1),
        ("malignant", 1, 0),
    ]
    assert [list(row.values()) for row in rows(tmp_path / "evaluation_confusions.csv")] == [
        ["benign", "benign", "1"],
        ["benign", "malignant", "1"],
        ["malignant", "malignant", "1"],
    ]


def test_summary_says_that_the_run_was_not_judged():
    alarm = {"score": None, "verdict": "not judged", "why": "these images show objects"}
    text = summary({"measures": {}, "floor": {}, "alarm": alarm})
    assert "training run: not judged: these images show objects" in text
    assert "not judged" not in summary({"measures": {}, "floor": {}, "alarm": None})


def test_summary_names_the_worst_classes_first():
    errors = [{"class": f"bird {k}", "images": 10, "errors": k, "error": k / 10} for k in range(8)]
    last = summary({"measures": {}, "floor": {}, "class_errors": errors}).splitlines()[-1]
    assert last.startswith("error by class: bird 7 70.0 % of 10, bird 6 60.0 % of 10")
    assert "bird 3 30.0 % of 10 and 2 others" in last


def test_report_other_threshold_drops_the_method_note(tmp_path):
    one = item("a", 0.75, 1)
    assert report_of(tmp_path, [[one]], threshold_rule="not tuned")["threshold_rule"] == "not tuned"
    one["localization"] = replace(one["localization"], threshold=0.4)
    report = report_of(tmp_path, [[one]], threshold_rule="not tuned")
    assert report["threshold_rule"] == "set by hand, not the method's own 0.5"


def test_a_method_that_names_no_class_has_no_class_in_any_file(tmp_path):
    one = item("a", 0.75, 1)
    one["localization"] = replace(one["localization"], probabilities=())
    del one["probabilities"]
    report = report_of(tmp_path, [[one]], names_class=False)
    assert set(report["measures"]) == {"f1_foreground", "f1_background"}
    row = rows(tmp_path / "evaluation.csv")[0]
    assert [row[k] for k in ("label", "predicted", "probability_of_label", "classification_error")] == [
        "malignant",
        "",
        "",
        "",
    ]


def test_the_time_of_training_is_that_of_the_method_s_own(tmp_path):
    clock = [{"epoch": e, "seconds": 2.0 * e, "cpu_seconds": 3.0, "device": "cpu", "threads": 2} for e in (1, 2)]
    (tmp_path / "clock.json").write_text(json.dumps(clock))
    batches = [[item("a", 0.75, 1)]]
    own = report_of(tmp_path, batches, method="cam_avg", trained_as="cam_avg")
    assert own["training"] == {"seconds": 6.0, "cpu_seconds": 6.0, "epochs": 2, "device": "cpu", "threads": 2}
    assert report_of(tmp_path, batches, method="grad_cam", trained_as="cam_avg")["training"] is None
    floor = {"method": "stain", "trained_as": "stain", "supervision": "none"}
    assert report_of(tmp_path, batches, **floor)["training"] is None, "of a training before it in this folder"


@pytest.mark.parametrize(
    "clock",
    [
        [{"epoch": 2, "seconds": 2.0, "cpu_seconds": 3.0, "device": "cpu", "threads": 2}],  # where is the first?
        [{"epoch": e, "seconds": 2.0, "cpu_seconds": 3.0, "device": "cpu", "threads": e} for e in (1, 2)],
        [{"epoch": 1, "seconds": 2.0}],
        7,
    ],
)
def test_a_time_that_is_not_of_one_whole_training_is_not_told(clock, tmp_path):
    (tmp_path / "clock.json").write_text(json.dumps(clock))
    report = report_of(tmp_path, [[item("a", 0.75, 1)]], method="cam_avg", trained_as="cam_avg")
    assert report["training"] is None


def test_the_summary_prints_percent_beside_interval_and_floor():
    values = (("classification_error", 0.0131), ("f1_foreground", 0.72543), ("f1_background", None))
    measures = {
        name: {"value": v, "interval": None if v is None else [v - 0.01, v + 0.02], "n": 1} for name, v in values
    }
    measures["object_hausdorff"] = {"value": 52.25, "interval": [50.0, 54.0], "n": 1}
    floor = {"name": "all-ones", "f1_foreground": 0.6601, "f1_background": 0.0}
    lines = [line.split() for line in summary({"measures": measures, "floor": floor}).splitlines()]
    titles = [MEASURES[key].title.split() for key in measures]
    assert lines[1] == [*titles[0], "(%)", "1.3", "0.3", "to", "3.3"]
    assert lines[2] == [*titles[1], "(%)", "72.5", "71.5", "to", "74.5", "66.0"]
    assert lines[3] == [*titles[2], "(%)", "n/a", "0.0"]
    assert lines[4] == [*titles[3], "(px)", "52.2", "50.0", "to", "54.0"]


def class_scores(network: TileNetwork, inferer: WholeTileInferer, image: Tensor | None = None) -> dict[str, Tensor]:
    """What an evaluation of two images has of the network besides its prediction: who says so, and ``[B, c]``."""
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": IMAGES if image is None else image, "label": LABELS}],
        network=network,
        inferer=inferer,
        val_handlers=[WholeImageScores(network, inferer)],
        decollate=False,
    )
    evaluator.run()
    ending = "_probabilities"
    return {key.removesuffix(ending): p for key, p in evaluator.state.output.items() if key.endswith(ending)}


def test_report_other_scores_are_of_localizer_and_classifier():
    network = tiny_network(num_classes=3).eval()
    found = class_scores(network, WholeTileInferer(0.5))
    x = network.normalise(WholeTileInferer(0.5).prepare(IMAGES)[0])
    with torch.no_grad():
        localizer, classifier = network.localize(x).logits.softmax(1), network.classify(x).softmax(1)
    torch.testing.assert_close(found, {"localizer": localizer, "whole_image": classifier})
    assert not torch.allclose(localizer, classifier)
    items = decollate_batch({"localizer_probabilities": found["localizer"], "label": LABELS})
    state = evaluate({"e": ClassificationError("localizer_probabilities")}, [items])
    assert state.metrics["e"] == pytest.approx(float((localizer.argmax(1) != LABELS).float().mean()))


def test_the_other_opinions_are_means_over_the_views():
    network, inferer = tiny_network(num_classes=3).eval(), WholeTileInferer(0.5, flips="horizontal")
    found, of_the_flipped = (class_scores(network, inferer, one) for one in (IMAGES, IMAGES.flip(-1)))
    x = [network.normalise(WholeTileInferer(0.5).prepare(one)[0]) for one in (IMAGES, IMAGES.flip(-1))]
    with torch.no_grad():
        localizer = [network.localize(one).logits.softmax(1) for one in x]
        classifier = [network.classify(one).softmax(1) for one in x]
    assert not torch.allclose(*localizer, atol=1e-5)
    torch.testing.assert_close(found, {"localizer": sum(localizer) / 2, "whole_image": sum(classifier) / 2})
    torch.testing.assert_close(found, of_the_flipped, rtol=0, atol=1e-6)


@pytest.mark.parametrize("class_from", ["first_stage", "localizer", "classifier"])
def test_a_refined_network_has_the_scores_of_its_first_stage(class_from):
    first = tiny_network(num_classes=3).eval()
    network = RefinedNetwork(
        tiny_trunk(), 3, base=first.settings(), decoder_width=8, class_from=class_from, seed=0
    ).eval()
    network.base.load_state_dict(first.state_dict())
    found = class_scores(network, WholeTileInferer(0.5))
    torch.testing.assert_close(found, class_scores(first, WholeTileInferer(0.5)))
    assert not torch.allclose(found["localizer"], found["whole_image"])


def test_report_refined_network_or_ensemble_has_one_score_only():
    base = {"class": "ClassActivationNetwork"}
    refined = RefinedNetwork(tiny_trunk(), base=base, decoder_width=8).eval()
    ensemble = EnsembleNetwork([tiny_network(seed=seed) for seed in (0, 1)])
    assert class_scores(refined, WholeTileInferer()) == class_scores(ensemble, WholeTileInferer()) == {}


def test_report_of_ensemble_names_models_and_sums_times(tmp_path):
    files = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        files.append(tmp_path / str(seed) / "model.pt")
        files[-1].write_bytes(b"weights %d" % seed)
        clock = [{"epoch": e, "seconds": 2.0 * e, "cpu_seconds": 3.0, "device": "cpu", "threads": 2} for e in (1, 2)]
        (tmp_path / str(seed) / "clock.json").write_text(json.dumps(clock))
    facts = {"method": "minmax ensemble", "trained_as": "minmax ensemble"}

    def report() -> dict[str, Any]:
        evaluate(metrics(), [[item("a", 0.75, 1)]], [EvaluationReport(tmp_path, facts, files)])
        return json.loads((tmp_path / "evaluation.json").read_text())

    found = report()
    assert found["checkpoint"] == ["model.pt", "model.pt"]
    assert found["checkpoint_sha256"] == [sha256_of(file) for file in files]
    assert found["training"] == {"seconds": 12.0, "cpu_seconds": 12.0, "epochs": 4, "device": "cpu", "threads": 2}
    (tmp_path / "1" / "clock.json").unlink()
    assert report()["training"] is None, "not that of one member only"


def test_the_report_names_the_other_classification_errors(tmp_path):
    report = report_of(tmp_path, [[item("a", 0.75, 1), item("b", 0.75, 0)]])
    assert report["other_classification_errors"] == {"localizer": None, "whole_image": None}
    items = [item("a", 0.75, 1), item("b", 0.75, 0)]
    for one, p in zip(items, (0.75, 0.125), strict=True):
        one["localizer_probabilities"] = torch.tensor([1 - p, p])  # right, right
        one["whole_image_probabilities"] = torch.tensor([p, 1 - p])  # wrong, wrong
    others = {
        f"classification_error_{who}": ClassificationError(f"{who}_probabilities")
        for who in ("localizer", "whole_image")
    }
    evaluate({**metrics(), **others}, [items], [EvaluationReport(tmp_path, {}, tmp_path / "model.pt")])
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["other_classification_errors"] == {"localizer": 0, "whole_image": 1}
    assert value(report, "classification_error") == 0.5


def test_images_of_several_classes_are_reported_with_all_of_them(tmp_path):
    batch = [item(name, 0.75, 1) for name in "ab"]
    for one, p, label in zip(batch, [(0.5, 0.75), (0.25, 0.125)], [[1.0, 1.0], [0.0, 1.0]], strict=True):
        one["localization"] = replace(one["localization"], probabilities=p, multi_label=True)
        one |= {"probabilities": torch.tensor(p), "label": torch.tensor(label)}
    report = report_of(tmp_path, [batch])
    assert value(report, "classification_error") == 0.5
    table = rows(tmp_path / "evaluation.csv")
    assert [row["label"] for row in table] == ["benign;malignant", "malignant"]
    assert [row["predicted"] for row in table] == ["benign;malignant", "no class"]
    assert [row["probability_of_label"] for row in table] == ["0.500000;0.750000", "0.125000"]
    assert [row["classification_error"] for row in table] == ["0.000000", "1.000000"]


def test_the_other_opinions_on_several_classes_are_sigmoids():
    network, image = tiny_network(num_classes=3, multi_label=True).eval(), torch.rand(1, 3, 64, 96)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": image, "label": torch.zeros(1, 3)}],
        network=network,
        inferer=WholeTileInferer(),
        val_handlers=[WholeImageScores(network, WholeTileInferer())],
        decollate=False,
    )
    evaluator.run()
    x = network.normalise(image)
    with torch.no_grad():
        expected = {"localizer": network.localize(x).logits.sigmoid(), "whole_image": network.classify(x).sigmoid()}
    for who, p in expected.items():
        torch.testing.assert_close(evaluator.state.output[f"{who}_probabilities"], p)


def test_summary_marks_intervals_without_width_and_training_data():
    found = {"value": 1.0, "interval": [0.99996, 1.0], "n": 6}
    wide = {"value": 0.5, "interval": [0.25, 0.75], "n": 6}
    report = {"measures": {"roc_auc": found, "f1_foreground": wide}, "floor": {}, "trained_on": "trained on GlaS"}
    lines = summary(report).splitlines()
    assert [line.rstrip().endswith("*") for line in lines[1:3]] == [True, False]
    assert lines[3:] == ["trained on GlaS", f"* {NO_WIDTH}"]
