# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from glas_wsol.errors import ConfigError
from glas_wsol.utils import shipped_bundles
from glas_wsol.utils.shipped_bundles import bundle_folder, bundle_folders, shipped_root

ROOT = Path(__file__).parents[2]


def test_shipped_root_of_a_checkout_is_the_repository():
    assert shipped_root() == ROOT
    assert [one.name for one in bundle_folders()] == ["glas_minmax_entropy", "cub5_minmax_entropy"]


def test_shipped_root_of_an_installation_is_the_package(tmp_path, monkeypatch):
    (tmp_path / "glas_wsol" / "bundles" / "glas_minmax_entropy" / "configs").mkdir(parents=True)
    monkeypatch.setattr(shipped_bundles, "_PACKAGE", tmp_path / "glas_wsol")
    assert shipped_root() == tmp_path / "glas_wsol"
    assert bundle_folder("glas") == tmp_path / "glas_wsol" / "bundles" / "glas_minmax_entropy"


@pytest.mark.parametrize("name", ["cub", "cub5", "cub5_minmax_entropy", ROOT / "bundles" / "cub5_minmax_entropy"])
def test_bundle_folder_takes_names_and_paths(name, tmp_path, monkeypatch):
    (tmp_path / "cub" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # a folder of that name changes nothing
    assert bundle_folder(name) == ROOT / "bundles" / "cub5_minmax_entropy"


def test_bundle_folder_without_configs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no bundle here .*: give glas or cub, or a folder that holds configs/"):
        bundle_folder(tmp_path)
