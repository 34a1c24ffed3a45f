# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The one result: mask, class and evidence of tissue, blank and nearly blank tiles."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.errors import ConfigError, ImageFileError, NumericalError
from glas_wsol.networks import ClassActivationNetwork, FixedMaskNetwork
from glas_wsol.results.boxes import Box
from glas_wsol.results.class_scores import DECIDABLE, LOCALIZER, UNDECIDABLE, ClassProbabilities, ClassScores
from glas_wsol.results.localization import Localization
from glas_wsol.results.postprocessing import LocalizePredictiond, separate_objects
from glas_wsol.results.provenance import Provenance
from tests.conftest import tiny_network, tiny_trunk

SIZE = (66, 97)
RAMP = torch.linspace(0.02, 0.98, SIZE[0] * SIZE[1]).view(SIZE)  # a mask of a confident network


def tissue(seed: int = 0, contrast: float = 1.0) -> Tensor:
    tile, _ = tissue_tile(np.random.default_rng(seed), bool(seed % 2), SIZE, scale=0.25)
    image = torch.from_numpy(tile).permute(2, 0, 1).float() / 255
    return image.mean() + contrast * (image - image.mean())


def prediction(decidable: Tensor, probabilities: list[float]) -> Tensor:
    """What the network's contract says: channel 0 is R-, channel k is R+ p(k)."""
    return torch.cat(
        [1 - decidable[None], decidable * torch.tensor(probabilities, dtype=decidable.dtype).view(-1, 1, 1)]
    )


def localize(image: Tensor, decidable: Tensor = RAMP, p=(0.3, 0.7), **more) -> dict:
    names = ("threshold", "mask_threshold", "names_class", "min_box_area", "stain", "hole_area", "speck_area")
    names += ("short_side", "training_mpp", "provenance")
    options = {k: more.pop(k) for k in names if k in more}
    item = {"image": image, "pred": prediction(decidable, list(p)), **more}
    return LocalizePredictiond(["benign", "malignant"], **options)(item)


def result(**changes) -> Localization:
    values = {"name": "a", "path": "", "classes": ("x", "y", "z"), "probabilities": (0.2, 0.5, 0.3), "evidence": True}
    values["decidable"] = np.float32([[0.2, 0.5, 0.9], [0.49999, 0.1, 0.6]])
    return Localization(**{**values, **changes})


def test_the_mask_is_cleaned_and_the_map_is_the_networks():
    soft = np.full((9, 14), 0.875, np.float32)
    soft[:, 8:], soft[3:5, 2:4], soft[6, 11:13] = 0.125, 0.25, 0.75
    found = result(decidable=soft, hole_area=5, speck_area=3)
    expected = np.zeros((9, 14), bool)
    expected[:, :8] = True
    np.testing.assert_array_equal(found.mask, expected)
    np.testing.assert_array_equal(found.decidable, soft)
    assert found.boxes[0].score == pytest.approx((68 * 0.875 + 4 * 0.25) / 72)
    np.testing.assert_array_equal(replace(found, hole_area=4).mask[3:5, 2:4], np.zeros((2, 2), bool))
    assert replace(found, speck_area=2).decidable_area == 74
    assert not replace(found, threshold=0.9).mask.any()
    assert found.mask is found.mask
    with pytest.raises(ValueError, match="read-only"):
        found.mask[0, 0] = False


def test_the_mask_is_what_reaches_the_threshold():
    assert result().mask.tolist() == [[False, True, True], [False, False, True]]
    assert result(threshold=0.55).mask.tolist() == [[False, False, True], [False, False, True]]
    assert result().mask.dtype == bool
    assert result().decidable_fraction == 0.5


def test_the_class_is_the_most_probable():
    assert (result().label, result().class_name, result().probability) == (1, "y", 0.5)


def test_without_evidence_the_mask_is_empty_and_no_class_is_said():
    blank = result(evidence=False)
    assert not blank.mask.any()
    assert (blank.class_name, blank.probability, blank.decidable_fraction) == ("no evidence", None, 0.0)


def test_a_method_that_names_no_class_has_a_mask_and_no_class():
    unnamed = result(probabilities=())
    assert (unnamed.label, unnamed.class_name, unnamed.probability) == (None, "", None)
    assert unnamed.decidable_fraction == 0.5
    assert result(probabilities=(), evidence=False).class_name == "no evidence"


def test_the_class_without_evidence_is_known_but_not_said():
    assert (result(evidence=False).label, result(evidence=False).probability) == (1, None)


def test_boxes_are_those_of_the_mask():
    assert result().boxes == (Box(1, 0, 2, 2, 3, pytest.approx((0.5 + 0.9 + 0.6) / 3)),)
    assert result(threshold=0.7).boxes == (Box(2, 0, 1, 1, 1, pytest.approx(0.9)),)
    assert result(evidence=False).boxes == ()
    assert result(threshold=0.7, min_box_area=0.2).boxes == (), "one of six pixels is less than a fifth"
    assert len(result(threshold=0.7, min_box_area=1 / 6).boxes) == 1
    kept = result()
    assert kept.boxes is kept.boxes, "found once"
    assert len(replace(kept, threshold=0.7).boxes) == 1


def test_a_result_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        result().name = "b"


def test_nothing_in_a_result_can_be_changed_behind_its_back():
    source = np.float32([[0.2, 0.7]])
    found = result(decidable=source, image=np.zeros((1, 2, 3), np.uint8))
    for array in (found.decidable, found.image):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    source[0, 0] = 0.1  # the caller's own array stays the caller's


def test_both_regions_make_up_the_image():
    found = result()
    np.testing.assert_array_equal(found.decidable + found.undecidable, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(found.undecidable_mask, ~found.mask)
    assert result(evidence=False).undecidable_mask.all()
    assert found.size == (2, 3)


def test_areas_are_in_pixels_and_with_pixel_size_in_um2():
    assert (result().decidable_area, result().square_micrometres(3)) == (3, None)
    assert result(mpp=(0.5, 0.25)).square_micrometres(result().decidable_area) == 0.375


def test_what_m_and_c_say_reaches_the_result():
    said = {LOCALIZER: torch.tensor([0.25, 0.75]), UNDECIDABLE: torch.tensor([0.5, 0.5]), DECIDABLE: torch.zeros(0)}
    found = localize(tissue(), **said)["localization"]
    assert found.class_scores.localizer == ClassProbabilities((0.25, 0.75))
    assert found.class_scores.undecidable == ClassProbabilities((0.5, 0.5))
    assert found.class_scores.decidable == ClassProbabilities(found.probabilities), (
        "the class named is what C says of X+"
    )
    other = localize(tissue(), **{**said, DECIDABLE: torch.tensor([0.125, 0.875])})["localization"]
    assert other.class_scores.decidable == ClassProbabilities((0.125, 0.875))
    assert other.probabilities == found.probabilities
    alone = localize(tissue(), **{LOCALIZER: torch.tensor([0.25, 0.75])})["localization"]
    assert alone.class_scores == ClassScores(localizer=ClassProbabilities((0.25, 0.75)))
    assert localize(tissue())["localization"].class_scores == ClassScores()
    assert localize(tissue(), names_class=False, **said)["localization"].class_scores == ClassScores()


def test_result_holds_image_pixel_size_and_provenance():
    image, made = tissue(), Provenance(("12ab",))
    of_dicom = MetaTensor(image, meta={"filename_or_obj": "a.dcm", "mpp": (2.0, 1.0)})
    found = localize(of_dicom, provenance=made)["localization"]
    np.testing.assert_allclose(found.image, image.permute(1, 2, 0).numpy().clip(0, 1) * 255, atol=0.51)
    assert found.image.dtype == np.uint8
    assert (found.mpp, found.provenance) == ((2, 1), made)
    assert localize(image)["localization"].mpp is None


def test_unknown_pixel_size_is_assumed_and_said_once_a_kind(caplog):
    known, unknown, doubted = (
        MetaTensor(tissue(), meta={"filename_or_obj": f"{n}.png", "mpp": mpp, "mpp_doubt": doubt})
        for n, (mpp, doubt) in enumerate([((0.25, 0.25), ""), ((np.nan, np.nan), ""), ((np.nan, np.nan), "72 dpi")])
    )
    finish = LocalizePredictiond(["benign", "malignant"], training_mpp=0.62)
    results = [
        finish({"image": one, "pred": prediction(RAMP, [0.5, 0.5])})["localization"]
        for one in (known, unknown, doubted, unknown, doubted)
    ]
    assert [one.assumed_mpp for one in results] == [None, 0.62, 0.62, 0.62, 0.62]
    assert results[0].pixel_size_remark == ""
    assert results[1].pixel_size_remark == "pixel size not known: 0.62 um assumed, that of the training images"
    assert "not known (its file has 72 dpi): 0.62 um assumed" in results[2].pixel_size_remark
    assert results[1].pixel_size_remark in str(results[1])
    assert results[1].square_micrometres(1) is None, "nothing is computed from what is assumed"
    assert len(caplog.records) == 2


def test_model_without_pixel_size_says_so_of_a_known_one(caplog):
    image = MetaTensor(tissue(), meta={"filename_or_obj": "a.png", "mpp": (0.25, 0.25)})
    found = localize(image)["localization"]
    assert "the model records no pixel size" in found.pixel_size_remark
    assert (found.mpp, found.assumed_mpp) == ((0.25, 0.25), None)
    assert localize(tissue())["localization"].pixel_size_remark == ""
    assert len(caplog.records) == 1


def test_areas_of_cleaning_hold_at_the_training_pixel_size():
    decidable = torch.zeros(20, 30)
    decidable[4:8, 5:15] = 1  # 40 px
    shape = (3, 20, 30)
    for own, kept in ((0.62, False), (0.31, False), (1.24, True)):  # specks below 50, 200 and 12.5 px of the image
        image = MetaTensor(torch.rand(shape), meta={"filename_or_obj": "a.png", "mpp": (own, own)})
        found = localize(image, decidable, training_mpp=0.62, speck_area=50)["localization"]
        assert replace(found, evidence=True).mask.any() == kept, own


@pytest.mark.parametrize(("short_side", "kept"), [(20, False), (10, False), (40, True)])
def test_areas_of_cleaning_hold_at_the_training_short_side(short_side, kept):
    decidable = torch.zeros(20, 30)
    decidable[4:8, 5:15] = 1  # 40 px; specks below 50, 200 and 12.5 px of the image
    found = localize(torch.rand(3, 20, 30), decidable, short_side=short_side, speck_area=50)["localization"]
    assert replace(found, evidence=True).mask.any() == kept


@pytest.mark.parametrize("size", [SIZE, (5, 3), (1, 1)])
def test_tile_of_one_colour_has_empty_mask_for_any_map(size):
    found = localize(torch.full((3, *size), 0.9), torch.linspace(0, 1, size[0] * size[1]).view(size))["localization"]
    assert not found.evidence
    assert not found.mask.any()


@pytest.mark.parametrize("p", [(0.3, 0.7), (0.999, 0.001)])
def test_the_probabilities_come_back_from_the_channels_sums(p):
    item = localize(tissue(), p=p)
    assert item["probabilities"].tolist() == pytest.approx(p, abs=1e-5)
    assert item["probabilities"].dtype == torch.float32
    assert item["localization"].probabilities == pytest.approx(p, abs=1e-5)
    assert sum(item["localization"].probabilities) == pytest.approx(1, abs=1e-12)
    assert item["localization"].label == int(np.argmax(p))


def test_a_network_that_names_no_class_gives_no_probabilities():
    item = localize(tissue(), p=(0.5, 0.5), names_class=False)
    assert "probabilities" not in item
    assert item["localization"].probabilities == ()
    assert item["localization"].classes == ("benign", "malignant")
    assert np.array_equal(item["localization"].mask, localize(tissue())["localization"].mask)


def test_the_least_area_of_a_box_reaches_the_result():
    decidable = torch.full(SIZE, 0.1)
    decidable[10:12, 20:25] = 0.8  # 10 of 6402 px
    kept = localize(tissue(), decidable)["localization"]
    assert kept.boxes == (Box(20, 10, 5, 2, 10, pytest.approx(0.8, abs=1e-6)),)
    assert localize(tissue(), decidable, min_box_area=0.0016)["localization"].boxes == ()
    with pytest.raises(ConfigError, match="min_box_area"):
        LocalizePredictiond(["a", "b"], min_box_area=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_refused_in_one_line(value):
    decidable = RAMP.clone()
    decidable[3, 5] = value
    with pytest.raises(NumericalError, match=r"not a finite number.*tile_7\.bmp"):
        localize(MetaTensor(tissue(), meta={"filename_or_obj": "tile_7.bmp"}), decidable)


def test_decidable_region_is_one_minus_first_channel():
    item = localize(tissue())
    np.testing.assert_allclose(item["localization"].decidable, RAMP.numpy(), atol=1e-6)
    assert item["localization"].decidable.dtype == np.float32
    assert np.array_equal(item["localization"].mask, item["localization"].decidable >= 0.5)
    assert item["localization"].classes == ("benign", "malignant")
    assert localize(tissue(), threshold=0.8)["localization"].decidable_fraction == pytest.approx(0.18 / 0.96, abs=1e-3)


def test_the_file_is_in_the_path_and_the_item_s_name_wins():
    image = MetaTensor(tissue(), meta={"filename_or_obj": "folder/tile_7.bmp"})
    found = localize(image, name="seven")["localization"]
    assert (found.name, found.path) == ("seven", "folder/tile_7.bmp")
    assert localize(tissue(), name="seven")["localization"].path == ""


def test_the_item_keeps_what_it_had():
    image = tissue()
    item = {"image": image, "pred": prediction(RAMP, [0.5, 0.5]), "label": 1}
    given = dict(item)
    out = LocalizePredictiond(["a", "b"])(item)
    assert item.keys() == given.keys()
    assert out["label"] == 1
    assert out["image"] is image
    assert "truth" not in out


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0, [[False, True, True], [True, True, True]]), (127, [[False, False, False], [False, True, True]])],
)
@pytest.mark.parametrize("convert", [np.int32, torch.tensor, lambda v: MetaTensor(torch.tensor(v))])
def test_truth_is_what_lies_above_the_mask_threshold(threshold, expected, convert):
    votes = convert([[[0, 1, 51], [127, 128, 255]]])
    truth = localize(tissue()[:, :2, :3], RAMP[:2, :3], mask=votes, mask_threshold=threshold)["truth"]
    assert truth.dtype == torch.bool
    assert truth.tolist() == [expected]


def mask(value: float, size=SIZE, path: str = "masks/a.png") -> MetaTensor:
    made = torch.zeros(1, *size)
    made[:, : size[0] // 2] = value
    return MetaTensor(made, meta={"filename_or_obj": path})


def test_the_path_of_the_true_mask_is_kept():
    assert localize(tissue(), mask=mask(255))["truth_path"] == "masks/a.png"
    assert localize(tissue(), mask=mask(255).as_tensor())["truth_path"], "never empty where there is a truth"
    assert "truth_path" not in localize(tissue())


@pytest.mark.parametrize("size", [(SIZE[0] - 1, SIZE[1]), SIZE[::-1], (1, 1)])
def test_a_mask_of_another_size_is_refused_in_one_line(size):
    with pytest.raises(ImageFileError, match=rf"size is \({size[0]}, {size[1]}\).*66, 97.*masks/a\.png") as caught:
        localize(tissue(), mask=mask(255, size))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("largest", [1, 127])
def test_result_mask_with_all_values_below_threshold_is_refused(largest):
    with pytest.raises(ImageFileError, match=rf"mask_threshold=127, the largest is {largest} .*masks/a\.png"):
        localize(tissue(), mask=mask(largest), mask_threshold=127)


@pytest.mark.parametrize(("value", "pixels"), [(0, 0), (128, SIZE[0] // 2 * SIZE[1])])
def test_result_mask_empty_or_just_above_threshold_is_accepted(value, pixels):
    assert int(localize(tissue(), mask=mask(value), mask_threshold=127)["truth"].sum()) == pixels


IDS = [
    [7, 7, 0, 0, 3, 0],
    [7, 2, 2, 0, 0, 3],
    [0, 2, 2, 0, 0, 0],
    [0, 0, 0, 0, 7, 7],
]


def test_objects_touching_glands_are_separated_by_id_or_place():
    assert separate_objects(torch.tensor([IDS])).tolist() == [
        [1, 1, 0, 0, 2, 0],  # 2: its two pixels touch by a corner
        [1, 3, 3, 0, 0, 2],
        [0, 3, 3, 0, 0, 0],
        [0, 0, 0, 0, 4, 4],
    ]
    binary = (torch.tensor([IDS]) > 0).int() * 255
    assert separate_objects(binary).tolist() == [
        [1, 1, 0, 0, 2, 0],
        [1, 1, 1, 0, 0, 2],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 3, 3],
    ]


def test_votes_are_no_ids():
    votes = [[255, 204, 102, 0, 128], [0, 153, 51, 0, 255], [0, 0, 0, 0, 127]]
    item = localize(tissue()[:, :3, :5], RAMP[:3, :5], mask=torch.tensor([votes]), mask_threshold=127)
    assert item["truth_objects"].tolist() == [[1, 1, 0, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("convert", [np.int32, np.float32, torch.tensor, lambda v: MetaTensor(torch.tensor(v).float())])
def test_objects_cover_the_truth_whatever_holds_them(convert):
    ids = np.zeros(SIZE, int)
    ids[:4, :6] = IDS
    ids[50:, 90:] = 260
    item = localize(tissue(), mask=convert(ids[None].tolist()))
    objects = item["truth_objects"]
    assert isinstance(objects, np.ndarray)
    assert not isinstance(objects, Tensor)
    assert (objects.dtype, objects.shape) == (np.int32, SIZE)
    assert np.array_equal(objects > 0, item["truth"][0].numpy())
    assert sorted(np.unique(objects)) == list(range(6))
    assert "truth_objects" not in localize(tissue())


def test_objects_of_empty_or_negative_truth_are_none():
    assert not separate_objects(np.zeros((1, 3, 4), np.int32)).any()
    assert separate_objects(np.array([[-1.0, -1.0, 0.0, 2.5]])).tolist() == [[0, 0, 0, 1]]


def test_the_reason_is_kept_and_the_stain_reaches_the_judge():
    assert localize(tissue())["localization"].reason == ""
    assert localize(torch.full((3, *SIZE), 0.9))["localization"].reason == "blank"
    bird = tissue()[[1, 0, 2]]  # green tissue is none
    assert localize(bird)["localization"].reason == ""
    found = localize(bird, stain="H&E")["localization"]
    assert (found.reason, found.evidence, found.mask.any()) == ("no H&E tissue", False, False)
    assert localize(tissue(), stain="H&E")["localization"].evidence
    assert localize(bird, stain="")["localization"].evidence
    with pytest.raises(ConfigError, match="choose H&E, or null"):
        LocalizePredictiond(["a", "b"], stain="PAS")


def test_a_floor_s_mask_is_not_judged():
    ones = torch.cat([torch.zeros(1, 40, 70), torch.full((2, 40, 70), 0.5)])
    item = {"pred": ones, "image": torch.full((3, 40, 70), 0.9), "name": "blank"}
    assert not LocalizePredictiond(("a", "b"), names_class=False)(item)["localization"].mask.any()
    assert LocalizePredictiond(("a", "b"), names_class=False, judge_evidence=False)(item)["localization"].mask.all()


def multi_label_network(p: tuple[float, ...], **changes) -> Localization:
    return result(probabilities=p, multi_label=True, **changes)


@pytest.mark.parametrize(
    ("p", "labels", "name", "named"),
    [
        ((0.9, 0.2, 0.5), (0, 2), "x;z", {"x": 0.9, "z": 0.5}),
        ((0.1, 0.8, 0.49999), (1,), "y", {"y": 0.8}),
        ((0.1, 0.4, 0.3), (), "no class", {}),
        ((), (), "", {}),
    ],
)
def test_multi_label_classes_from_probability_half_are_named(p, labels, name, named):
    found = multi_label_network(p)
    assert (found.labels, found.predicted, found.class_name, found.named) == (labels, name, name, named)
    blank = multi_label_network(p, evidence=False)
    assert (blank.labels, blank.predicted, blank.class_name, blank.named) == (labels, name, "no evidence", {})
    assert found.probability == (max(p) if p else None)


def test_single_label_most_probable_class_is_always_named():
    found = result(probabilities=(0.2, 0.45, 0.35))
    assert (found.labels, found.predicted, found.named) == ((1,), "y", {"y": 0.45})
    assert not found.multi_label
    assert result(evidence=False).named == {}


def test_multi_label_probabilities_are_those_given_as_presence():
    presence = torch.tensor([0.75, 0.875])
    shared = {"image": tissue(), "pred": prediction(RAMP, [0.3, 0.7]), "presence": presence}
    item = LocalizePredictiond(["a", "b"], multi_label=True)(shared)
    assert torch.equal(item["probabilities"], presence)
    assert item["localization"].probabilities == (0.75, 0.875)
    assert item["localization"].class_name == "a;b"
    np.testing.assert_allclose(item["localization"].decidable, RAMP.numpy(), atol=1e-6)
    one = LocalizePredictiond(["a", "b"])(shared)["localization"]
    assert one.probabilities == pytest.approx((0.3, 0.7), abs=1e-5), "of one class, it is not looked at"
    unnamed = LocalizePredictiond(["a", "b"], names_class=False, multi_label=True)(shared)["localization"]
    assert unnamed.probabilities == ()


def test_multi_label_without_presence_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="ClassScoreInferer"):
        LocalizePredictiond(["a", "b"], multi_label=True)({"image": tissue(), "pred": prediction(RAMP, [1, 0])})
    with pytest.raises(ConfigError, match="give true or false"):
        LocalizePredictiond(["a", "b"], multi_label="both")


def test_holes_and_specks_are_measured_at_image_size():
    decidable = torch.full(SIZE, 0.1)
    decidable[10:50, 10:70] = 0.9
    decidable[20:24, 20:25] = 0.2  # a hole of 20 px
    decidable[60:63, 80:90] = 0.8  # a speck of 30 px
    plain = localize(tissue(), decidable)["localization"]
    clean = localize(tissue(), decidable, hole_area=21, speck_area=31)["localization"]
    assert clean.mask[22, 22]
    assert not clean.mask[61, 85]
    assert clean.mask.sum() == plain.mask.sum() + 20 - 30
    assert clean.probabilities == plain.probabilities


def test_for_network_labels_of_other_kind_are_refused():
    cam, multi_label = ClassActivationNetwork(tiny_trunk()), tiny_network(num_classes=3, multi_label=True)
    with pytest.raises(ConfigError, match="ClassActivationNetwork has multi_label=False") as caught:
        LocalizePredictiond.for_network(cam, True, classes="ab")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="the labels have multi_label=False"):
        LocalizePredictiond.for_network(multi_label, False, classes="abc")
    with pytest.raises(ConfigError, match="give true or false"):
        LocalizePredictiond.for_network(cam, "two", classes="ab")
    for network, labels in ((cam, False), (multi_label, True), (FixedMaskNetwork("stain"), True)):
        made = LocalizePredictiond.for_network(network, labels, classes="abc")
        assert made.multi_label == (labels and made.names_class)
