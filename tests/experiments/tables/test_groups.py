# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs sort into rows and groups; what cannot be compared is refused and named."""

from __future__ import annotations

import pytest

from glas_wsol.errors import ConfigError
from glas_wsol.experiments.tables.groups import group_runs
from glas_wsol.experiments.tables.recipes import unshared_settings
from glas_wsol.experiments.tables.runs import find_runs, read_run
from glas_wsol.metrics.measures import MEASURES
from tests.experiments.tables.conftest import write_run

ROWS = {"f1_foreground": [0.25, 0.5, 1.0]}


@pytest.fixture
def write(tmp_path):
    """Adds a run, all in one place; `groups` reads them."""

    def add(name, **facts):
        return write_run(tmp_path / "runs" / name, facts.pop("rows", ROWS), **facts)

    add.groups = lambda: group_runs([read_run(folder, MEASURES) for folder in find_runs([tmp_path / "runs"])])
    return add


def test_groups_of_methods_passes_and_trunks_are_in_table_order(write):
    write("1", method="unet")
    write("2", method="minmax", passes=4)
    write("3", method="minmax", passes=0)
    write("4", method="minmax", passes=0, trunk="resnet101")
    write("5", method="minmax", passes=0, trunk_weights_sha256="")
    write("6", method="all_ones")
    write("7", method="mine")
    (group,) = write.groups()
    assert [(method.title, method.backbone) for method in group.methods] == [
        ("All-ones", ""),
        ("Min-max entropy, passes 0", "resnet101"),
        ("Min-max entropy, passes 0", "resnet18"),
        ("Min-max entropy, passes 0", "resnet18 (random)"),
        ("Min-max entropy, passes 4", "resnet18"),
        ("U-Net", "resnet18"),
        ("mine", "resnet18"),
    ]
    assert group.label(group.methods[1]) == "Min-max entropy, passes 0, resnet101"
    assert group.label(group.methods[4]) == "Min-max entropy, passes 4"


def test_seeds_and_folds_are_runs_of_one_row(write):
    for seed in (0, 2):
        for fold in ("patient-0", "patient-1"):
            write(f"{seed}{fold}", seed=seed, fold=fold, names=[f"{fold}{i}" for i in range(3)])
    (group,) = write.groups()
    (method,) = group.methods
    assert (method.seeds, method.folds, method.n_images, len(method.runs)) == ((0, 2), ("patient-0", "patient-1"), 6, 4)
    assert group.missing(method) == []


def test_data_sets_phantoms_and_splits_are_tables_of_their_own(write):
    write("a")
    write("b", split="valid")
    write("c", synthetic=True)
    write("d", dataset="CUB5")
    assert [group.heading for group in write.groups()] == [
        "CUB5, split test",
        "GlaS, split test",
        "GlaS, split valid",
        "phantom (synthetic tissue), split test",
    ]


def test_a_run_twice_is_refused_and_both_are_named(write):
    first, second = write("a", seed=1), write("b", seed=1)
    with pytest.raises(ConfigError, match=f"two runs of CAM-Avg with seed 1 and fold paper .{first}, {second}.: name"):
        write.groups()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"recipe": {"epochs": 20}}, "epochs is 10 there and 20 here"),
        ({"recipe": {"lr": 0.1}}, "lr is absent there and 0.1 here"),
        ({"threshold": 0.4}, "threshold is 0.5 there and 0.4 here"),
        ({"selection_rule": "last"}, "selection_rule is 'fewest validation errors' there and 'last' here"),
        ({"trunk_weights_sha256": "cd" * 32}, "trunk_weights_sha256 is"),
    ],
)
def test_two_recipes_in_one_row_are_refused(write, other, said):
    first, second = write("a", seed=0), write("b", seed=1, **other)
    with pytest.raises(ConfigError) as error:
        write.groups()
    assert "two runs of CAM-Avg are not of one recipe" in str(error.value)
    assert said in str(error.value)
    assert f"[{first}, {second}]" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("views", [{"flips": True}, {"rotations": True}, {"scales": [0.5, 1.0]}])
def test_runs_evaluated_with_other_views_are_not_mixed_in_a_row(write, views):
    plain = {"flips": False, "rotations": False, "scales": [1.0]}
    write("a", seed=0, views=plain)
    write("b", seed=1)  # an older report: it knows no views, and had none
    assert len(write.groups()[0].methods) == 1
    write("c", seed=2, views={**plain, **views})
    (name,) = views
    with pytest.raises(ConfigError, match=f"views: {name} is .* there and .* here"):
        write.groups()


def test_between_rows_other_views_are_told(write):
    views = {"flips": True, "rotations": False, "scales": [1.0]}
    write("a", method="cam_avg")
    write("b", method="cam_max", views=views)
    (group,) = write.groups()
    differ, _ = unshared_settings({group.label(method): method.first for method in group.methods})
    assert differ == {"views: flips": [("false", ["CAM-Avg"]), ("true", ["CAM-Max"])]}


def test_what_seed_and_fold_decide_may_differ_within_a_row(write):
    one = {"training_images": "x", "network_def#seed": 0, "steps of the schedule": 80, "first_stage": "digest of one"}
    two = {"training_images": "y", "network_def#seed": 1, "steps of the schedule": 90, "first_stage": "of another"}
    write("a", seed=0, recipe=one)
    write("b", seed=1, recipe=two)
    assert len(write.groups()[0].methods) == 1


def test_rows_on_other_images_of_a_fold_are_refused(write):
    first = write("a", method="cam_avg")
    second = write("b", method="cam_max", names=["x", "y", "z"])
    with pytest.raises(ConfigError, match=f"two runs of fold paper .* different images .*{first}, {second}"):
        write.groups()


def test_rows_with_other_labels_of_the_same_images_are_refused(write):
    write("a", method="cam_avg")
    write("b", method="cam_max", images_sha256="0" * 64)
    with pytest.raises(ConfigError, match="different images or labels"):
        write.groups()


@pytest.mark.parametrize(("name", "value"), [("classes", ["a", "b"]), ("mask_threshold", 127)])
def test_rows_measured_in_another_way_are_refused(write, name, value):
    first, second = write("a", method="cam_avg"), write("b", method="cam_max", **{name: value})
    with pytest.raises(ConfigError, match=rf"{name} is .* there and .* here \[{first}, {second}\]"):
        write.groups()


def test_rows_in_another_form_are_refused(write):
    write("a", rows={"pixel_average_precision": [[1, 2, 3, 4]] * 3})
    write("b", rows={"pixel_average_precision": [[1, 2]] * 3}, seed=1)
    with pytest.raises(ConfigError, match="hold pixel_average_precision in different forms"):
        write.groups()


def test_groups_missing_runs_are_listed_but_not_untrained_seeds(write):
    for seed in (0, 1):
        write(f"a{seed}", seed=seed)
    write("b", method="cam_max", seed=1)
    write("c", method="stain")
    (group,) = write.groups()
    stain, avg, largest = group.methods
    assert [group.missing(row) for row in (stain, avg, largest)] == [[], [], [(0, "paper")]]
    assert stain.at((1, "paper")) is stain.runs[0, "paper"]
    assert stain.at((1, "patient-0")) is None
    assert largest.at((0, "paper")) is None


def test_the_seed_of_what_is_not_trained_is_no_seed_of_the_table(write):
    write("a", seed=5)
    write("b", method="stain", seed=0)
    (group,) = write.groups()
    assert group.cells() == [(5, "paper")]
    assert [group.missing(method) for method in group.methods] == [[], []]


def test_what_the_recipes_of_rows_do_not_share(write):
    write("a", method="cam_avg", recipe={"optimizer": "SGD", "weights": "ab" * 32, "method": "cam_avg"})
    write("b", method="cam_max", recipe={"optimizer": "SGD", "sharpness": 10.0, "method": "cam_max"})
    write("c", method="minmax", passes=4, trunk="resnet101", recipe={"optimizer": "AdamW", "crop_size": 480})
    write("d", method="all_ones")
    (group,) = write.groups()
    differ, own = unshared_settings({group.label(method): method.first for method in group.methods})
    assert differ == {
        "trunk": [("resnet18", ["CAM-Avg", "CAM-Max"]), ("resnet101", ["Min-max entropy, passes 4"])],
        "crop_size": [("256", ["CAM-Avg", "CAM-Max"]), ("480", ["Min-max entropy, passes 4"])],
        "optimizer": [("SGD", ["CAM-Avg", "CAM-Max"]), ("AdamW", ["Min-max entropy, passes 4"])],
    }
    assert own == {"sharpness": ["CAM-Max"]}


def test_whose_network_a_row_explains(write):
    write("a", method="grad_cam")
    write("b", method="cam_avg", trained_as="cam_avg")
    write("c", method="mine", trained_as="wildcat")
    assert [(method.name, method.trained_as) for method in write.groups()[0].methods] == [
        ("cam_avg", None),
        ("grad_cam", "cam_avg"),
        ("mine", "wildcat"),
    ]
