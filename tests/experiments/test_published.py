# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The rows' order and titles, and the paper's figures against what is known of its test sets."""

from __future__ import annotations

import pytest

from glas_wsol.bundle.methods import METHODS, order_of, title_of
from glas_wsol.experiments.published import (
    PUBLISHED,
    PUBLISHED_DATASETS,
    PUBLISHED_TIME_RATIO,
    published_backbone,
    published_value,
)


def test_methods_are_in_the_tables_order():
    floors, cams = (
        ["all_ones", "centre_gaussian", "stain"],
        ["cam_avg", "cam_max", "cam_lse", "grad_cam", "grad_cam_pp"],
    )
    assert list(METHODS) == [*floors, *cams, "wildcat", "deep_mil", "components", "minmax", "minmax_refined", "unet"]
    assert [key for key, method in METHODS.items() if method.key != key] == []
    assert [key for key, m in METHODS.items() if m.supervision == "pixel labels"] == ["unet"]
    assert [key for key, m in METHODS.items() if m.supervision == "none"] == ["all_ones", "centre_gaussian", "stain"]
    assert {key: m.weights_of for key, m in METHODS.items() if m.weights_of} == {
        "grad_cam": "cam_avg",
        "grad_cam_pp": "cam_avg",
    }


def test_titles():
    assert title_of("minmax", 4) == "Min-max entropy, passes 4"
    assert title_of("minmax") == "Min-max entropy"
    assert title_of("cam_lse") == "CAM-LSE"
    assert title_of("components") == "Components (ours)"
    assert title_of("minmax_refined", 0) == "Ours + stage two, passes 0"
    assert title_of("my_own", 2) == "my_own, passes 2"


def test_order_of_unknown_method_comes_last():
    rows = [("zeta", None), ("unet", None), ("minmax", 4), ("alpha", 1), ("minmax", 0), ("all_ones", None)]
    wanted = [("all_ones", None), ("minmax", 0), ("minmax", 4), ("unet", None), ("alpha", 1), ("zeta", None)]
    assert sorted(rows, key=lambda row: order_of(*row)) == wanted


def test_published_errors_are_counts_of_wrong_test_images():
    for row, datasets in PUBLISHED.items():
        assert datasets.keys() == PUBLISHED_DATASETS.keys()
        for dataset, (error, *_) in datasets.items():
            if error is not None:
                n = PUBLISHED_DATASETS[dataset]
                nearest = 100 * round(error * n / 100) / n
                assert error == pytest.approx(nearest, abs=0.0101), (row, dataset)  # some are cut off, not rounded


def test_values_are_shares_and_only_of_what_the_paper_measured():
    assert published_value("GlaS", False, "minmax", 4, "f1_foreground") == 0.7254
    assert published_value("GlaS", False, "minmax", 0, "f1_foreground") == 0.3999
    assert published_value("CUB5", False, "deep_mil", None, "f1_background") == 0.566
    assert published_value("CUB5", False, "unet", None, "f1_foreground") == 0.6006
    assert published_value("GlaS", False, "cam_max", None, "classification_error") == 0.0
    for arguments in (
        ("GlaS", True, "minmax", 4, "f1_foreground"),  # a phantom in the layout of GlaS
        ("GlaS", False, "minmax", 2, "f1_foreground"),
        ("GlaS", False, "grad_cam", None, "f1_foreground"),
        ("GlaS", False, "cam_avg", None, "pixel_average_precision"),
        ("GlaS", False, "unet", None, "classification_error"),
        ("CUB200", False, "cam_avg", None, "f1_foreground"),
    ):
        assert published_value(*arguments) is None


def test_backbones_and_time():
    assert [
        published_backbone(key)
        for key in ("minmax", "wildcat", "all_ones", "components", "minmax_refined", "unet", "my_own")
    ] == [
        "resnet101",
        "resnet18",
        None,
        None,
        None,
        None,
        None,
    ]
    assert pytest.approx({"CUB5": 141 / 65}, abs=0.01) == PUBLISHED_TIME_RATIO
