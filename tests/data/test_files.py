# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from glas_wsol.data.files import distinct_names, existing, is_file, natural_key
from glas_wsol.errors import DatalistError

ROOT = Path("/data")


def named(*paths: str) -> list[str]:
    return distinct_names([ROOT / path for path in paths], ROOT)


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["train_10", "train_9", "train_1"], key=natural_key) == ["train_1", "train_9", "train_10"]
    assert sorted(["9", "a", "10", "010", "0", "00"], key=natural_key) == ["0", "00", "9", "010", "10", "a"]
    assert natural_key("1" * 5000) < natural_key("2" * 5000)


def test_a_name_is_the_path_below_the_root_without_suffix():
    assert named("a.png", "sub/b.tar.png") == ["a", "sub__b.tar"]
    assert named("/elsewhere/deep/a.png", "../b.png") == ["a", "b"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("a.png", "a.tif", "b.png"), ["a.png", "a.tif", "b"]),
        (("A.png", "a.tif"), ["A.png", "a.tif"]),
        (("/one/a.png", "/two/a.png"), ["one__a.png", "two__a.png"]),
        (("caf\u00e9.png", "cafe\u0301.tif"), ["caf\u00e9.png", "cafe\u0301.tif"]),
    ],
)
def test_images_of_one_stem_keep_their_suffix(paths, names):
    assert named(*paths) == names


def test_names_never_collide_whatever_the_paths():
    paths = ["a.png", "A.png", "a.tif", "a.png.bmp", "sub/a.png", "sub__a.png", "sub__a.png.tif", "../a.png"]
    names = named(*paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert names == list(reversed(named(*reversed(paths))))
    assert not any("/" in name for name in names)


def test_what_cannot_be_a_file_is_none(tmp_path):
    assert not is_file(tmp_path / ("x" * 5000))
    assert not is_file(tmp_path / "nul\0.png")
    assert not is_file(tmp_path)


@pytest.mark.parametrize("source", ["", "nowhere", "x" * 5000])
def test_a_missing_source_is_refused_by_name(tmp_path, source):
    with pytest.raises(DatalistError, match="no such file or folder"):
        existing(tmp_path / source if source else source)


def test_distinct_names_too_long_for_files_are_cut_and_distinct():
    deep = [Path("/data", *["é" * 40] * 4, f"{end}.png") for end in ("a", "b", "x" * 190)]
    names = distinct_names(deep, ROOT)
    assert all(len(name.encode()) <= 200 for name in names)
    assert len(set(names)) == 3
    assert names[0].endswith("é__a")
    assert names[0].startswith(hashlib.sha256(deep[0].relative_to(ROOT).as_posix().encode()).hexdigest()[:8])
    assert distinct_names([Path("/data", "y" * 200 + ".png")], ROOT) == ["y" * 200]
