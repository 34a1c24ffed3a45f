# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import hashlib
import pickle
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from itertools import chain
from pathlib import Path

import pytest

from glas_wsol.data import Datalist, Item
from glas_wsol.data.splits import FOLDS, parse_fold, split_by_fold
from glas_wsol.errors import ConfigError, SplitError

CLASSES = ("benign", "malignant")


def items(labels: str, groups: str | None = None) -> list[Item]:
    """One item per digit of ``labels``, in the group of the letter below it."""
    return [
        Item(Path(f"{n}.png"), int(label), f"i{n:03}", group=groups[n] if groups else None)
        for n, label in enumerate(labels)
    ]


def valid_names(data: list[Item], scheme: str, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> list[list[str]]:
    parts = [split_by_fold(data, classes, f"{scheme}-{k}", seed)["valid"] for k in range(FOLDS)]
    return [[item.name for item in part] for part in parts]


def test_stratified_folds_are_a_partition_of_even_classes():
    data = items("0" * 37 + "1" * 48)
    folds = valid_names(data, "stratified")
    assert sorted(chain(*folds)) == [item.name for item in data]
    assert [len(fold) for fold in folds] == [17] * 5
    label = {item.name: item.label for item in data}
    for fold in folds:
        counts = Counter(label[name] for name in fold)
        assert counts[0] in (7, 8)
        assert counts[1] in (9, 10)


def test_train_is_everything_that_is_not_validation():
    data = items("01" * 20)
    splits = split_by_fold(data, CLASSES, "stratified-3")
    assert set(splits) == {"train", "valid"}
    assert sorted(item.name for part in splits.values() for item in part) == [item.name for item in data]


def test_folds_depend_on_the_seed_and_not_on_the_order():
    data = items("01" * 20)
    assert valid_names(data, "stratified", seed=1) != valid_names(data, "stratified", seed=2)
    assert [sorted(fold) for fold in valid_names(data[::-1], "stratified")] == valid_names(data, "stratified")


def test_folds_stay_what_they_were():
    # A figure computed on a fold is only worth something while the fold stays the same.
    data = items("00000000111111111", "AABBCDEFFFGHHIJJK")
    assert valid_names(data, "stratified", seed=7)[0] == ["i001", "i002", "i008", "i012"]
    assert valid_names(data, "patient", seed=7)[0] == ["i006", "i007", "i008", "i009"]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides(seed):
    data = items("0011010101100111010110101001", "AABBCCDDEEFFGGHHIIJJKKLLMMNN")
    folds = valid_names(data, "patient", seed)
    assert sorted(chain(*folds)) == [item.name for item in data]
    group = {item.name: item.group for item in data}
    homes = [{group[name] for name in fold} for fold in folds]
    assert sum(map(len, homes)) == len(set(group.values()))


@pytest.mark.parametrize("seed", range(10))
def test_grouped_folds_are_as_even_as_uneven_groups_allow(seed):
    # The patients of GlaS: as many benign, then malignant images each.
    sizes = [(0, 16), (4, 0), (4, 4), (0, 4), (0, 1), (11, 4), (1, 0), (4, 8), (4, 0), (0, 4), (8, 0), (0, 4), (0, 2)]
    sizes += [(0, 1), (1, 0)]
    labels = "".join("0" * benign + "1" * malignant for benign, malignant in sizes)
    groups = "".join(letter * sum(size) for letter, size in zip("ABCDEFGHIJKLMNO", sizes, strict=True))
    data = items(labels, groups)
    label = {item.name: item.label for item in data}
    for fold in valid_names(data, "patient", seed):
        counts = Counter(label[name] for name in fold)
        assert counts[0] >= 4
        assert counts[1] >= 6
        assert 14 <= len(fold) <= 21


def test_paper_is_fold_0_by_groups_where_there_are_groups():
    grouped = items("01" * 15, "AABBCCDDEEFFGGHHIIJJKKLLMMNNOO")
    assert split_by_fold(grouped, CLASSES, "paper") == split_by_fold(grouped, CLASSES, "patient-0")
    loose = items("01" * 15)
    assert split_by_fold(loose, CLASSES, "paper") == split_by_fold(loose, CLASSES, "stratified-0")


def test_the_first_folds_of_a_tiny_set_have_every_class():
    for k in range(3):
        split_by_fold(items("0000000111"), CLASSES, f"stratified-{k}")
    data = items("0001111111")
    for k in range(3):
        split_by_fold(data, CLASSES, f"stratified-{k}")
    with pytest.raises(SplitError, match="valid split of fold 'stratified-3' has no image of 'benign'") as caught:
        split_by_fold(data, CLASSES, "stratified-3", source="here")
    assert caught.value.where == "here"
    assert "stratified-0, stratified-1, stratified-2" in str(caught.value)
    assert "stratified-3, " not in caught.value.fix


def test_a_group_fold_without_groups_names_the_folds_that_work():
    with pytest.raises(SplitError, match=r"the images have no group.*stratified-0, .*stratified-4$"):
        split_by_fold(items("01" * 5), CLASSES, "patient-0")
    some = [replace(item, group=None if item.name == "i003" else "A") for item in items("01" * 5)]
    with pytest.raises(SplitError, match="1 image has no group to keep together, such as i003"):
        split_by_fold(some, CLASSES, "patient-0")


def test_groups_that_allow_no_fold_are_said():
    data = items("0000011111", "AAAAABBBBB")  # every class is one patient
    with pytest.raises(SplitError, match=r"no image of .*stratified-0") as caught:
        split_by_fold(data, CLASSES, "patient-0")
    assert "patient" not in caught.value.fix
    with pytest.raises(SplitError, match="add images"):
        split_by_fold(items("01"), CLASSES, "stratified-0")
    with pytest.raises(SplitError, match="no training image"):
        split_by_fold([], CLASSES, "paper")


@pytest.mark.parametrize(
    "fold", ["", "patient", "patient-5", "patient--1", "stratified-x", "fold-0", "Paper", "paper-0", 0]
)
def test_an_unknown_fold_is_refused(fold):
    with pytest.raises(ConfigError, match="use one of paper, patient-0"):
        parse_fold(fold)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "0", None])
def test_an_impossible_seed_is_refused(seed):
    with pytest.raises(ConfigError, match="seed"):
        split_by_fold(items("01" * 5), CLASSES, "stratified-0", seed)


@pytest.fixture
def datalist() -> Datalist:
    train, valid = items("0110", "ABCD"), items("01", "EF")
    train[0] = replace(train[0], mask=Path("0_mask.png"))
    test = [replace(item, mask=Path("m.png")) for item in items("0")]
    return Datalist("tiles", CLASSES, {"test": tuple(test), "valid": tuple(valid), "train": tuple(train)}, "/src")


def test_select_gives_monai_items_without_masks(datalist):
    assert datalist.select("train")[0] == {"image": "0.png", "label": 0, "name": "i000", "group": "A"}
    assert [item["label"] for item in datalist.select("training")] == [0, 1, 1, 0]
    assert not any("mask" in item for split in ("train", "valid", "test") for item in datalist.select(split))
    assert "group" not in datalist.select("test")[0]


def test_select_gives_masks_on_demand_where_present(datalist):
    assert [item.get("mask") for item in datalist.select("train", masks=True)] == ["0_mask.png", None, None, None]
    assert not any("mask" in item for item in datalist.select("valid", masks=True))


def test_the_group_is_in_every_item_or_in_none(datalist):
    train = (*datalist.splits["train"][:3], replace(datalist.splits["train"][3], group=None))
    mixed = replace(datalist, splits={"train": train})
    assert not any("group" in item for item in mixed.select("train"))


def test_an_absent_split_is_said_with_those_that_exist(datalist):
    no_test = replace(datalist, splits={"train": datalist.splits["train"], "test": ()})
    assert list(no_test.splits) == ["train"]
    with pytest.raises(
        SplitError,
        match=r"tiles has no 'test' split \[/src\]: mark images of every class as test in the data, or choose of train",
    ):
        no_test.select("test")
    with pytest.raises(SplitError, match="'tset'"):
        datalist.select("tset")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_to_learn_from_has_every_class(datalist, split):
    with pytest.raises(SplitError, match=f"{split} split of tiles has no image of 'malignant'"):
        replace(datalist, splits={**datalist.splits, split: tuple(items("00"))})


def test_a_datalist_is_frozen_and_travels(datalist):
    with pytest.raises(FrozenInstanceError):
        datalist.name = "other"
    with pytest.raises(TypeError):
        datalist.splits["train"] = ()
    assert pickle.loads(pickle.dumps(datalist)) == datalist == copy.deepcopy(datalist)  # noqa: S301 - just written
    assert list(datalist.splits) == ["train", "valid", "test"]


def test_summary_counts(datalist):
    assert datalist.summary().splitlines() == [
        "tiles, 2 classes, /src",
        "split  n  benign  malignant  groups  masks",
        "train  4  2       2          4       1 of 4",
        "valid  2  1       1          2       no",
        "test   1  1       0          -       yes",
    ]


def test_summary_of_many_classes_is_narrow():
    data = tuple(items("0123456789" * 2 + "0"))
    text = Datalist("many", tuple("abcdefghij"), {"train": data}, "/src").summary()
    assert text.splitlines()[1:] == ["split  n   per class  groups  masks", "train  21  2-3        -       no"]


def test_digest_covers_names_and_labels_but_not_folder():
    def digests(data: list[Item]) -> tuple[str, str]:
        made = Datalist("d", CLASSES, {"train": tuple(data), "valid": tuple(items("01"))}, "here")
        return made.digest("train"), made.digest("valid")

    data = items("0011")
    train, valid = digests(data)
    assert len(train) == 64
    assert train != valid
    moved = [replace(item, image=Path("/elsewhere") / item.image, mask=Path("m.png"), group="g") for item in data]
    assert digests(moved) == (train, valid)
    changes = (
        [replace(data[0], label=1), *data[1:]],
        [replace(data[0], name="other"), *data[1:]],
        data[::-1],
        data[:-1],
    )
    found = [digests(changed) for changed in changes]
    assert len({train, *(one for one, _ in found)}) == 1 + len(changes)
    assert {other for _, other in found} == {valid}
    with pytest.raises(SplitError, match="no 'test' split"):
        Datalist("d", CLASSES, {"train": tuple(data), "valid": tuple(items("01"))}, "here").digest("test")


def multi_label_network(labels: list[tuple[int, ...]], groups: str | None = None) -> list[Item]:
    return [
        Item(Path(f"{n}.png"), label, f"i{n:03}", group=groups[n] if groups else None) for n, label in enumerate(labels)
    ]


# 40 of class 0, 15 of class 1, 10 of class 2; classes 1 and 2 nearly always beside class 0
MIXED = [(0,)] * 20 + [(0, 1)] * 12 + [(0, 2)] * 6 + [(1, 2)] * 1 + [(0, 1, 2)] * 2 + [(2,)] * 1


@pytest.mark.parametrize("seed", range(5))
def test_stratified_folds_multi_label_share_out_every_class(seed):
    data = multi_label_network(MIXED)
    classes = ("a", "b", "c")
    folds = valid_names(data, "stratified", seed, classes)
    assert sorted(chain(*folds)) == [item.name for item in data]
    labels = {item.name: item.labels for item in data}
    for fold in folds:
        counts = Counter(label for name in fold for label in labels[name])
        assert counts[0] == 8
        assert counts[1] == 3
        assert counts[2] == 2
        assert len(fold) in (8, 9)
    assert [sorted(fold) for fold in valid_names(data[::-1], "stratified", seed, classes)] == folds


def test_groups_of_several_classes_stay_together():
    data = multi_label_network([(0, 1), (0,), (1,)] * 10, "AABBCCDDEEFFGGHHIIJJKKLLMMNNOO")
    splits = split_by_fold(data, CLASSES, "patient-2")
    sides = [{item.group for item in part} for part in splits.values()]
    assert not sides[0] & sides[1]


def test_datalist_multi_label_counts_prints_and_digests_classes():
    data = multi_label_network([(0,), (0, 1), (1,), (0, 1)])
    datalist = Datalist("x", CLASSES, {"train": tuple(data[:3]), "valid": tuple(data[3:])}, "here")
    assert [item["label"].tolist() for item in datalist.select("train")] == [[1, 0], [1, 1], [0, 1]]
    assert datalist.summary().splitlines()[2].split() == ["train", "3", "2", "2", "-", "no"]
    changed = Datalist("x", CLASSES, {"train": (data[0], data[2], data[1]), "valid": (data[3],)}, "here")
    assert datalist.digest("valid") == changed.digest("valid")
    assert datalist.digest("train") != changed.digest("train")
    assert pickle.loads(pickle.dumps(datalist)) == datalist  # noqa: S301 - our own
    with pytest.raises(SplitError, match="valid split of x has no image of 'malignant'"):
        Datalist("x", CLASSES, {"train": tuple(data), "valid": (data[0],)}, "here")


def test_the_digest_of_one_class_stays_what_it_was():
    datalist = Datalist("x", CLASSES, {"train": tuple(items("01")), "valid": tuple(items("10"))}, "here")
    expected = hashlib.sha256(b'[["i000", 0], ["i001", 1]]').hexdigest()
    assert datalist.digest("train") == expected
