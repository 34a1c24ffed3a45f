# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from glas_wsol.data import CUB5_CLASSES, cub_datalist, load_datalist
from glas_wsol.errors import ConfigError, DatalistError, SplitError

# The paper's validation images, in the files' own spelling.
LISTED = {
    "019.Gray_Catbird/Gray_Catbird": "0118_20476 0127_20034 0134_20596 0023_20668 0100_20674 0091_20416",
    "171.Myrtle_Warbler/Myrtle_Warbler": "0103_166963 0059_166946 0043_166708 0007_166897 0101_166942 0107_166917",
    "108.White_necked_Raven/White_Necked_Raven": (
        "0027_797355 0053_797360 0063_797361 0010_797350 0020_102730 0018_102746"
    ),
    "099.Ovenbird/Ovenbird": "0035_92785 0059_92470 0027_93086 0137_92639 0077_92590 0064_93208",
    "178.Swainson_Warbler/Swainson_Warbler": "0004_794874 0039_794859 0019_174692 0048_794887 0047_794870 0034_794890",
}
VALID = [f"{bird}_{number}" for bird, numbers in LISTED.items() for number in numbers.split()]
OTHERS = [f"{bird}_{number:04}_{number}" for bird in LISTED for number in range(5001, 5031)]  # 24 train, 6 test
ALBATROSS = [f"001.Black_footed_Albatross/Black_Footed_Albatross_{n:04}_{n}" for n in range(1, 13)]
FOLDERS = sorted({name.split("/")[0] for name in [*VALID, *ALBATROSS]})


def write_cub(root: Path) -> Path:
    """The five classes with 30 + 6 images each and a sixth one with 10 + 2, in the order of their folders."""
    names = sorted([*VALID, *OTHERS, *ALBATROSS])
    test = {*(name for n, name in enumerate(OTHERS) if n % 30 >= 24), *ALBATROSS[10:]}
    for name in names:
        for tree, suffix in (("images", ".jpg"), ("segmentations", ".png")):
            (root / tree / name).parent.mkdir(parents=True, exist_ok=True)
            (root / tree / (name + suffix)).touch()
    tables = {
        "classes.txt": [f"{n} {folder}" for n, folder in enumerate(FOLDERS, 1)],
        "images.txt": [f"{n} {name}.jpg" for n, name in enumerate(names, 1)],
        "image_class_labels.txt": [f"{n} {FOLDERS.index(name.split('/')[0]) + 1}" for n, name in enumerate(names, 1)],
        "train_test_split.txt": [f"{n} {int(name not in test)}" for n, name in enumerate(names, 1)],
    }
    for name, lines in tables.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_cub(tmp_path_factory.mktemp("birds") / "CUB_200_2011")


@pytest.fixture
def cub(tmp_path) -> Path:
    return write_cub(tmp_path / "CUB_200_2011")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_papers_fold(whole):
    datalist = cub_datalist(whole)
    assert datalist.name == "CUB_200_2011 (layout of CUB5)"
    assert [name[4:] for name in datalist.classes] == [
        "Gray_Catbird",
        "Myrtle_Warbler",
        "White_necked_Raven",
        "Ovenbird",
        "Swainson_Warbler",
    ]
    assert {split: len(part) for split, part in datalist.splits.items()} == {"train": 120, "valid": 30, "test": 30}
    assert {
        item.image.relative_to(whole / "images").with_suffix("").as_posix() for item in datalist.splits["valid"]
    } == {*VALID}
    for split, count in (("train", 24), ("valid", 6), ("test", 6)):
        assert Counter(item.label for item in datalist.splits[split]) == dict.fromkeys(range(5), count)
    for item in datalist.splits["test"]:
        assert item.image.parent.name == datalist.classes[item.label] == CUB5_CLASSES[item.label]


def test_images_and_masks_belong_together(whole):
    item = next(item for item in cub_datalist(whole).select("valid", masks=True) if "Raven_0027" in item["name"])
    assert item == {
        "image": str(whole / "images/108.White_necked_Raven/White_Necked_Raven_0027_797355.jpg"),
        "label": 2,
        "name": "White_Necked_Raven_0027_797355",
        "mask": str(whole / "segmentations/108.White_necked_Raven/White_Necked_Raven_0027_797355.png"),
    }


def test_the_folder_above_and_masks_beside(cub):
    before = cub_datalist(cub)
    shutil.move(cub / "segmentations", cub.parent)
    after = load_datalist(cub.parent)
    assert after.select("test", masks=True)[0]["mask"].startswith(str(cub.parent / "segmentations"))
    assert after.select("train") == before.select("train")
    shutil.rmtree(cub.parent / "segmentations")
    assert all(item.mask is None for part in cub_datalist(cub).splits.values() for item in part)


def test_all_classes_in_their_order(whole):
    datalist = cub_datalist(whole, classes="all")
    assert datalist.classes == tuple(FOLDERS)
    assert {split: len(part) for split, part in datalist.splits.items()} == {"train": 128, "valid": 32, "test": 32}
    assert datalist == cub_datalist(whole, classes="all", fold="stratified-0")
    assert set(Counter(item.label for item in datalist.splits["valid"]).values()) == {2, 6}


@pytest.fixture(scope="module")
def all_species(tmp_path_factory) -> Path:
    """Two hundred classes as in the whole set, with 3 to 6 training images and one test image each."""
    root = tmp_path_factory.mktemp("all") / "CUB_200_2011"
    tables: dict[str, list[str]] = {
        name: [] for name in ("classes", "images", "image_class_labels", "train_test_split")
    }
    number = 0
    for label in range(1, 201):
        folder = f"{label:03}.Bird_{label}"
        tables["classes"].append(f"{label} {folder}")
        (root / "images" / folder).mkdir(parents=True)
        trained = 3 + label % 4
        for place in range(trained + 1):
            number += 1
            file = f"{folder}/Bird_{label}_{place:04}_{number}.jpg"
            (root / "images" / file).touch()
            tables["images"].append(f"{number} {file}")
            tables["image_class_labels"].append(f"{number} {label}")
            tables["train_test_split"].append(f"{number} {int(place < trained)}")
    for name, lines in tables.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_all_two_hundred_classes_by_the_one_door(all_species):
    with pytest.raises(ConfigError, match=r"no class '019\.Gray_Catbird'"):
        load_datalist(all_species)  # the five are the default, and not in this set
    datalist = load_datalist(all_species.parent, classes="all")
    assert (datalist.name, len(datalist.classes)) == ("CUB_200_2011 (layout of CUB200)", 200)
    assert (datalist.classes[0], datalist.classes[199]) == ("001.Bird_1", "200.Bird_200")
    for split in ("train", "valid", "test"):
        assert {item["label"] for item in datalist.select(split)} == set(range(200))
    for item in datalist.splits["test"]:
        assert datalist.classes[item.label] == item.image.parent.name
    assert {split: len(part) for split, part in datalist.splits.items()} == {"train": 700, "valid": 200, "test": 200}
    assert datalist.summary().splitlines()[2].split()[:3] == ["train", "700", "2-5"], "per class, summed up"
    assert max(map(len, datalist.summary().splitlines())) < 200


def test_folds_of_all_classes_are_limited_by_smallest_class(all_species):
    folds = [load_datalist(all_species, fold=f"stratified-{k}", classes="all", seed=1).splits for k in range(3)]
    names = [item.name for splits in folds for item in splits["valid"]]
    assert len(names) == len(set(names))
    assert len({splits["test"] for splits in folds}) == 1
    with pytest.raises(SplitError, match=r"has no image of .*set 'fold' to one of stratified-0, stratified-1, strat"):
        load_datalist(all_species, fold="stratified-4", classes="all")


def test_chosen_classes_by_the_one_door(all_species):
    datalist = load_datalist(all_species, classes=["Bird_150", "003.bird_3", "Bird_77"])
    assert (datalist.name, datalist.classes) == (
        "CUB_200_2011 (layout of CUB (3 classes))",
        ("150.Bird_150", "003.Bird_3", "077.Bird_77"),
    )
    assert [item.image.parent.name for item in datalist.splits["test"]] == ["003.Bird_3", "077.Bird_77", "150.Bird_150"]
    assert [item.label for item in datalist.splits["test"]] == [1, 2, 0]


def test_five_other_birds_are_not_cub5(whole):
    others = ["Ovenbird", "Black_footed_Albatross", "Gray_Catbird", "Myrtle_Warbler", "Swainson_Warbler"]
    assert cub_datalist(whole, classes=others, fold="stratified-0").name == "CUB_200_2011 (layout of CUB (5 classes))"
    assert cub_datalist(whole, classes=CUB5_CLASSES, fold="stratified-0").name == "CUB_200_2011 (layout of CUB5)"
    assert (
        cub_datalist(whole, classes=CUB5_CLASSES[::-1], fold="stratified-0").name
        == "CUB_200_2011 (layout of CUB (5 classes))"
    )


def test_named_classes_in_the_order_of_the_names(whole):
    datalist = cub_datalist(whole, classes=["ovenbird", "001.Black_footed_albatross"], fold="stratified-2")
    assert datalist.classes == ("099.Ovenbird", "001.Black_footed_Albatross")
    assert Counter(item.label for item in datalist.splits["test"]) == {0: 6, 1: 2}


def test_stratified_folds_part_the_official_training_images(whole):
    parts = [cub_datalist(whole, fold=f"stratified-{k}").splits for k in range(5)]
    names = [item.name for splits in parts for item in splits["valid"]]
    assert len(names) == len(set(names)) == 150
    assert {splits["test"] for splits in parts} == {cub_datalist(whole).splits["test"]}


def test_birds_have_no_patients(whole):
    with pytest.raises(SplitError, match=r"no group.*set 'fold' to one of stratified-0"):
        cub_datalist(whole, fold="patient-0")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cub50", 'use "cub5", "all" or a list'),
        (["Ovenbird", "Gray_Catbrid"], r"no class 'Gray_Catbrid' .*did you mean '019\.Gray_Catbird'"),
        (["Ovenbird", "099.Ovenbird"], "two or more different"),
        (["Ovenbird"], "two or more different"),
    ],
)
def test_unknown_classes_are_refused(whole, classes, message):
    with pytest.raises(ConfigError, match=message):
        cub_datalist(whole, classes=classes)


def test_the_papers_fold_needs_its_validation_images(cub):
    edit(cub / "images.txt", "Ovenbird_0035_92785", "Ovenbird_5001_5001x")
    shutil.move(
        cub / "images/099.Ovenbird/Ovenbird_0035_92785.jpg", cub / "images/099.Ovenbird/Ovenbird_5001_5001x.jpg"
    )
    with pytest.raises(SplitError, match=r"29 of the paper's 30 validation images.*stratified-0"):
        cub_datalist(cub)
    assert len(cub_datalist(cub, fold="stratified-0").splits["valid"]) == 30


def test_every_fault_at_once(cub):
    (cub / "images/099.Ovenbird/Ovenbird_0059_92470.jpg").unlink()
    (cub / "images/171.Myrtle_Warbler/Myrtle_Warbler_0103_166963.jpg").unlink()
    (cub / "images/001.Black_footed_Albatross/Black_Footed_Albatross_0001_1.jpg").unlink()  # not of the five
    with pytest.raises(DatalistError) as caught:
        cub_datalist(cub)
    assert sorted(caught.value.faults) == [
        "images/099.Ovenbird/Ovenbird_0059_92470.jpg is missing",
        "images/171.Myrtle_Warbler/Myrtle_Warbler_0103_166963.jpg is missing",
    ]


def test_faults_of_the_tables(cub):
    edit(cub / "images.txt", "5 001", "4 001")
    edit(cub / "train_test_split.txt", "\n7 1", "\n7 yes")
    edit(cub / "image_class_labels.txt", "\n8 1", "\n8 77")
    edit(cub / "image_class_labels.txt", "\n9 1", "\n9")
    edit(cub / "image_class_labels.txt", "\n10 1", "\n")
    with pytest.raises(DatalistError) as caught:
        cub_datalist(cub)
    assert caught.value.faults == (
        "images.txt line 5: '4' comes twice",
        "image_class_labels.txt line 9: '9' is not a number and a value",
        "images.txt: image 10 has no class",
        "images.txt: image 7 is in no split",
        "image_class_labels.txt: no class '77' in classes.txt",
    )


def test_images_of_one_name_would_be_mixed_up(cub):
    edit(cub / "images.txt", "099.Ovenbird/Ovenbird_0035_92785", "108.White_necked_Raven/Ovenbird_0059_92470")
    (cub / "images/108.White_necked_Raven/Ovenbird_0059_92470.jpg").touch()
    with pytest.raises(DatalistError, match="2 images are named Ovenbird_0059_92470"):
        cub_datalist(cub)


def test_folders_that_are_not_cub(cub, tmp_path):
    with pytest.raises(DatalistError, match=r"images\.txt and classes\.txt"):
        cub_datalist(tmp_path / "CUB_200_2011/images")
    (cub / "train_test_split.txt").unlink()
    (cub / "image_class_labels.txt").unlink()
    with pytest.raises(DatalistError, match=r"image_class_labels\.txt is missing; train_test_split\.txt is missing"):
        cub_datalist(cub)


def test_only_as_many_images_as_cub_has_are_called_cub(whole, monkeypatch):
    monkeypatch.setattr("glas_wsol.data.cub._ALL_IMAGES", len((whole / "images.txt").read_text().splitlines()))
    assert cub_datalist(whole).name == "CUB5"
