# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from glas_wsol.data import Datalist, Item, datalist, folder_datalist, images_datalist, load_datalist
from glas_wsol.errors import ConfigError, DatalistError, GlasWsolError, ImageFileError, SplitError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def classes(root: Path, count: int = 10, prefix: str = "") -> Path:
    return touch(root, *(f"{prefix}{name}/{n}.png" for name in ("benign", "malignant") for n in range(count)))


def sizes(data: Datalist) -> dict[str, int]:
    return {split: len(part) for split, part in data.splits.items()}


def names(data: Datalist, split: str) -> list[str]:
    return [item.name for item in data.splits[split]]


def test_the_value_types_are_here():
    assert datalist.Datalist is Datalist
    assert datalist.Item is Item


# Recognition


def glas(root: Path) -> Path:
    rows = [f"train_{n},{n},{'benign' if n % 2 else 'malignant'}" for n in range(1, 11)]
    touch(root, *(f"train_{n}.bmp" for n in range(1, 11)))
    (root / "Grade.csv").write_text("\n".join(["name,patient ID,grade (GlaS)", *rows]))
    return root


def cub(root: Path) -> Path:
    images = [f"{'001.Albatross' if n % 2 else '002.Ani'}/bird_{n}.jpg" for n in range(20)]
    touch(root / "images", *images)
    (root / "classes.txt").write_text("1 001.Albatross\n2 002.Ani\n")
    (root / "images.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(images)))
    (root / "image_class_labels.txt").write_text("".join(f"{n} {2 - n % 2}\n" for n in range(20)))
    (root / "train_test_split.txt").write_text("".join(f"{n} {int(n < 15)}\n" for n in range(20)))
    return root


def table(root: Path) -> Path:
    classes(root)
    rows = [f"{name}/{n}.png,{name}" for name in ("benign", "malignant") for n in range(10)]
    (root / "index.csv").write_text("\n".join(["image,label", *rows]))
    return root


def test_every_kind_is_recognised(tmp_path):
    made = {
        kind: make(tmp_path / kind)
        for kind, make in {"glas": glas, "cub": cub, "table": table, "folder": classes}.items()
    }
    settings = {"fold": "stratified-1", "classes": "all"}
    found = {kind: load_datalist(root, **settings) for kind, root in made.items()}
    assert {kind: data.name for kind, data in found.items()} == {
        "glas": "glas (layout of GlaS)",
        "cub": "cub (layout of CUB (2 classes))",
        "table": "index.csv",
        "folder": "folder",
    }
    for kind, root in made.items():
        assert load_datalist(root, kind=kind, **settings) == found[kind]
        assert load_datalist(str(root), seed=1, **settings) != found[kind]
    assert load_datalist(made["table"] / "index.csv", **settings) == found["table"]
    assert sizes(found["cub"]) == {"train": 12, "valid": 3, "test": 5}


def test_settings_reach_the_reader(tmp_path):
    order = ["malignant", "benign"]
    assert load_datalist(classes(tmp_path / "a"), label_names=order).classes == tuple(order)
    assert load_datalist(table(tmp_path / "b"), label_names=order).classes == tuple(order)
    assert load_datalist(table(tmp_path / "b"), kind="folder").name == "b"
    assert load_datalist(cub(tmp_path / "c"), classes=["Ani", "Albatross"]).classes == ("002.Ani", "001.Albatross")


def test_what_was_looked_for_is_said(tmp_path):
    touch(tmp_path, "a.png", "empty/readme.txt")
    with pytest.raises(DatalistError) as caught:
        load_datalist(tmp_path)
    assert [word for word in ("Grade.csv", "images.txt", "index.csv", "sub-folders") if word in str(caught.value)] == [
        "Grade.csv",
        "images.txt",
        "index.csv",
        "sub-folders",
    ]
    with pytest.raises(DatalistError, match="no such file or folder"):
        load_datalist(tmp_path / "nowhere")
    with pytest.raises(DatalistError, match="no such file or folder"):
        load_datalist("")
    with pytest.raises(ConfigError, match=r"no kind 'imagenet'.*auto, glas, cub, table, folder"):
        load_datalist(tmp_path, kind="imagenet")


@pytest.mark.parametrize("kind", ["auto", "glas", "cub", "table", "folder"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\x00", b"image\n", b"\xff\xfe"])
def test_no_reader_fails_otherwise_than_in_one_line(tmp_path, kind, content):
    (tmp_path / "odd").write_bytes(content)
    for source in (tmp_path, tmp_path / "odd"):
        with pytest.raises(GlasWsolError) as caught:
            load_datalist(source, kind=kind)
        assert "\n" not in str(caught.value)


# Folders of classes


def test_a_folder_of_classes(tmp_path):
    data = folder_datalist(classes(tmp_path / "tiles"))
    assert data.name == "tiles"
    assert data.classes == ("benign", "malignant")
    assert sizes(data) == {"train": 16, "valid": 4}
    item = next(item for item in data.splits["train"] if item.label == 1)
    assert item.image.parent.name == "malignant"
    assert item.name == f"malignant__{item.image.stem}"
    assert data == folder_datalist(tmp_path / "tiles", "stratified-0")
    with pytest.raises(SplitError, match=r"no group.*stratified-0"):
        folder_datalist(tmp_path / "tiles", "patient-0")


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_masks_lie_in_a_parallel_tree(tmp_path, prefix):
    classes(tmp_path, prefix=prefix)
    touch(tmp_path, *(f"masks/benign/{n}.tif" for n in range(10)), "masks/malignant/3.png", "masks/flat.png")
    data = folder_datalist(tmp_path)
    masks = {item.name: item.mask for part in data.splits.values() for item in part}
    assert len(masks) == 20
    assert masks["benign__4"] == tmp_path / "masks/benign/4.tif"
    assert masks["malignant__3"] == tmp_path / "masks/malignant/3.png"
    assert masks["malignant__4"] is None


def test_split_folders_are_the_splits(tmp_path):
    for prefix in ("train/", "Val/", "test/"):
        classes(tmp_path, 2, prefix)
    touch(tmp_path, "masks/test/benign/1.png")
    data = folder_datalist(tmp_path, "stratified-4")
    assert sizes(data) == {"train": 4, "valid": 4, "test": 4}
    assert names(data, "valid")[0] == "Val__benign__0"
    assert [item["name"] for item in data.select("test", masks=True) if "mask" in item] == ["test__benign__1"]
    touch(tmp_path, "test/normal/1.png")
    with pytest.raises(DatalistError, match="class folder 'normal' is in test and not in train"):
        folder_datalist(tmp_path)


def test_faults_of_class_folders(tmp_path):
    touch(tmp_path, "benign/1.png", ".hidden/1.png", "notes/readme.txt")
    with pytest.raises(DatalistError, match="the only class folder is 'benign'"):
        folder_datalist(tmp_path)
    classes(tmp_path)
    (tmp_path / "malignant/link.png").symlink_to(tmp_path / "benign/1.png")
    with pytest.raises(DatalistError) as caught:
        folder_datalist(tmp_path, label_names=["benign", "normal"])
    assert caught.value.faults == (
        "folder 'malignant' is none of benign, normal",
        "malignant/link.png is benign/1.png once more",
    )
    (tmp_path / "malignant/link.png").unlink()
    (tmp_path / "malignant/link.png").symlink_to(tmp_path / "malignant/link.png")  # a loop
    with pytest.raises(DatalistError) as caught:
        folder_datalist(tmp_path)
    assert caught.value.faults == ("malignant/link.png is not a file",)


# Images to run on


def listed(source: Path, **settings) -> dict[str, str]:
    return {item["name"]: Path(item["image"]).name for item in images_datalist(source, **settings)}


def test_images_of_a_folder_in_natural_order(tmp_path):
    touch(tmp_path, "t10.bmp", "t9.PNG", "a.jpg", "b.jpeg", "c.tif", "d.tiff", "e.dcm")
    touch(tmp_path, "t9_anno.bmp", ".hidden.png", "._t9.png", "notes.txt", "Grade.csv", "sub/x.png", ".git/y.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    # a link that leads nowhere is listed: it is an image that somebody misses
    assert list(listed(tmp_path)) == ["a", "b", "broken", "c", "d", "e", "t9", "t10"]
    assert list(listed(tmp_path, recursive=True)) == ["a", "b", "broken", "c", "d", "e", "sub__x", "t9", "t10"]
    assert images_datalist(tmp_path)[0] == {"image": str(tmp_path / "a.jpg"), "name": "a"}


def test_the_results_of_an_earlier_run_are_no_images_to_run_on(tmp_path):
    touch(tmp_path, "a.png", "sub/b.png", "out/masks/a.png", "out/overlays/a.png", "outer/c.png")
    everything = {"a", "sub__b", "out__overlays__a", "outer__c"}  # a folder of masks has no images
    assert set(listed(tmp_path, recursive=True)) == everything
    for out in (tmp_path / "out", str(tmp_path / "sub" / ".." / "out")):
        assert set(listed(tmp_path, recursive=True, exclude=out)) == {"a", "sub__b", "outer__c"}
    assert set(listed(tmp_path, recursive=True, exclude=tmp_path / "nowhere")) == everything
    with pytest.raises(DatalistError, match="no bmp, png"):
        images_datalist(touch(tmp_path / "other", "out/a.png"), recursive=True, exclude=tmp_path / "other" / "out")


@pytest.mark.parametrize("out", ["", "out"])
def test_images_inside_the_output_folder_itself_are_listed(tmp_path, out):
    # A phantom lies in the run's own folder.
    touch(tmp_path, "out/phantom/a.png", "out/phantom/sub/b.png")
    phantom = tmp_path / "out" / "phantom"
    assert set(listed(phantom, recursive=True, exclude=tmp_path / out)) == {"a", "sub__b"}
    with pytest.raises(ConfigError, match="among the images"):
        images_datalist(phantom, recursive=True, exclude=phantom)
    assert images_datalist(phantom / "a.png", exclude=phantom)[0]["name"] == "a"


def test_the_output_folder_may_be_relative(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "out/masks/a.png")
    monkeypatch.chdir(tmp_path)
    assert set(listed(tmp_path, recursive=True, exclude="out")) == {"a"}
    assert set(listed(Path(), recursive=True, exclude=str(tmp_path / "out"))) == {"a"}


def test_images_of_one_stem_have_two_names(tmp_path):
    touch(tmp_path, "a.png", "a.tif", "b.png")
    assert listed(tmp_path) == {"a.png": "a.png", "a.tif": "a.tif", "b": "b.png"}


def test_awkward_names(tmp_path):
    odd = [
        "with space.png",
        "-rf.png",
        "\u00e9t\u00e9.png",
        "\u7ec4\u7ec7.png",
        "\U0001f52c.png",
        "line\nend.png",
        "dot..png",
    ]
    touch(tmp_path, *odd)
    assert sorted(listed(tmp_path).values()) == sorted(odd)


def test_one_image(tmp_path):
    touch(tmp_path, "a.tif", "a.png", "a_anno.png")
    assert listed(tmp_path / "a.png") == {"a": "a.png"}
    assert listed(tmp_path / "a_anno.png") == {"a_anno": "a_anno.png"}


def test_a_relative_source_gives_absolute_paths(tmp_path, monkeypatch):
    touch(tmp_path, "here/a.png")
    monkeypatch.chdir(tmp_path)
    assert images_datalist("here")[0]["image"] == str(tmp_path / "here/a.png")


def test_images_of_a_table_in_its_order(tmp_path):
    touch(tmp_path, "b.png", "sub/a.png", "c.png")
    (tmp_path / "list.csv").write_text(f"label;image\n;sub/a.png\n2;b.png\n1;{tmp_path}/c.png\n")
    assert listed(tmp_path / "list.csv") == {"sub__a": "a.png", "b": "b.png", "c": "c.png"}
    (tmp_path / "list.csv").write_text("image\nb.png\nx.png\nsub/../b.png\n\nsub\n")
    with pytest.raises(DatalistError) as caught:
        images_datalist(tmp_path / "list.csv")
    assert caught.value.faults == (
        "line 3: image 'x.png' is not a file",
        "line 4: image 'sub/../b.png' again, after line 2",
        "line 6: image 'sub' is not a file",
    )


def test_nothing_to_run_on_is_said(tmp_path):
    touch(tmp_path, "sub/a.png", "slide.svs", "train_1_anno.bmp")
    with pytest.raises(DatalistError, match=r"no bmp, png, .* image directly in it, 1 other file .*svs.*--recursive"):
        images_datalist(tmp_path)
    with pytest.raises(DatalistError, match="no such file or folder"):
        images_datalist(tmp_path / "b.png")
    with pytest.raises(ImageFileError, match=r"not a known kind of image .*slide\.svs.*use bmp, png"):
        images_datalist(tmp_path / "slide.svs")


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind here"
)
def test_a_folder_that_must_not_be_read_is_said(tmp_path):
    touch(tmp_path, "a.png", "locked/b.png")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(DatalistError, match="cannot be read"):
            images_datalist(tmp_path, recursive=True)
        with pytest.raises(DatalistError, match="is not readable"):
            images_datalist(tmp_path / "locked")
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_only_a_table_can_name_several_classes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        for n in range(6):
            (tmp_path / "folders" / name / f"{n}.png").touch()
    with pytest.raises(ConfigError, match=r"only a table's labels.*multi_label=false"):
        load_datalist(tmp_path / "folders", multi_label=True)
    rows = [f"folders/{'ab'[n % 2]}/{n % 6}.png,{'a;b' if n < 4 else 'ab'[n % 2]}" for n in range(6)]
    (tmp_path / "datalist.csv").write_text("\n".join(["image,label", *rows]))
    datalist = load_datalist(tmp_path / "datalist.csv", "stratified-1", multi_label=True)
    assert sorted(item.labels for part in datalist.splits.values() for item in part) == [(0,), *[(0, 1)] * 4, (1,)]
    with pytest.raises(ConfigError, match="give true or false"):
        load_datalist(tmp_path / "datalist.csv", multi_label="some")


def test_folders_named_as_splits_are_no_classes(tmp_path):
    touch(tmp_path, *(f"{name}/{n}.png" for name in ("train", "test") for n in range(6)))
    with pytest.raises(DatalistError, match="'test' and 'train' are splits and hold no class folders"):
        folder_datalist(tmp_path)


# What is said


@pytest.mark.parametrize("name", ["a.png", "a.TIF", "a.webp", "a.dcm"])
@pytest.mark.parametrize("kind", ["auto", "table", "folder"])
def test_an_image_is_no_data_set_and_is_called_one(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"\x89PNG\xff")
    with pytest.raises(DatalistError, match=r"this is one image, and no data set.*give the folder of the images"):
        load_datalist(tmp_path / name, kind=kind)


def test_another_file_is_asked_for_a_folder_or_table(tmp_path):
    (tmp_path / "own.xlsx").write_bytes(b"PK\xff\xfe")
    with pytest.raises(DatalistError, match=r"not UTF-8 text.*give a folder, or a table that is saved as CSV UTF-8"):
        load_datalist(tmp_path / "own.xlsx")


@pytest.mark.parametrize("source", [None, 3, ["a"], b"a"])
@pytest.mark.parametrize("read", [load_datalist, images_datalist, folder_datalist])
def test_what_is_no_path_is_refused_by_its_name(source, read):
    with pytest.raises(DatalistError) as caught:
        read(source)
    assert str(caught.value).startswith(f"1 fault in the data: it is no path [{source!r}]: give the path of a folder")


def test_two_masks_are_not_answered_with_class_folders(tmp_path):
    touch(classes(tmp_path), "benign/1_mask.png", "masks/benign/1.png")
    with pytest.raises(DatalistError) as caught:
        load_datalist(tmp_path)
    assert "keep one" in str(caught.value)
    assert caught.value.fix == "correct these files and folders"
    with pytest.raises(DatalistError, match=r"the only class folder.*make one sub-folder of images per class"):
        folder_datalist(touch(tmp_path / "one", "benign/1.png"))


def test_a_table_in_a_folder_of_classes_is_named(tmp_path):
    touch(classes(tmp_path), "labels.csv", "benign/notes.csv")
    (table, others) = load_datalist(tmp_path).warnings
    assert table == "1 table, labels.csv, not read: to use it, give its path in the place of the folder's"
    assert others == "2 other files passed over (.csv)"


@pytest.mark.parametrize("names", [3, "ab", ["a"], ["a", "a"], ["Class-1", "class_1"], {"a": 1, "b": 2}])
@pytest.mark.parametrize("make", [glas, cub, table, classes])
def test_label_names_that_are_none_are_refused(tmp_path, names, make):
    with pytest.raises(ConfigError, match="are not two or more different names"):
        load_datalist(make(tmp_path), fold="stratified-0", classes="all", label_names=names)
