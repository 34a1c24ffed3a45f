# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What an exported bundle holds, and when an export is refused or leaves the earlier one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import glas_wsol
from glas_wsol.bundle.export import export_bundle
from glas_wsol.errors import ConfigError, OutputError, WeightsError

ROOT = Path(__file__).parents[2]
PACKAGE = Path(glas_wsol.__file__).parent


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle with the leftovers of a run in it."""
    folder = tmp_path / "source" / "birds"
    contents = {
        "configs/metadata.json": '{"version": "1"}',
        "configs/inference.json": json.dumps({"card": {"trunk": "resnet101", "classes": []}, "device": "cpu"}),
        "docs/README.md": "text",
        "LICENSE": "Apache",
        "models/model.pt": "old weights",
        "models/model.ts": "old script",
        "models/model.onnx": "old graph",
        "configs/__pycache__/a.pyc": "",
    }
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "best.pt").write_bytes(b"new weights")
    (folder / "best.json").write_text(json.dumps({"trunk": "resnet18", "classes": ["ä", "b"], "epoch": 3}))
    return folder / "best.pt"


def test_export_after_a_run_holds_bundle_and_package_only(bundle, tmp_path):
    copy = export_bundle(bundle, tmp_path / "out" / "dist")
    assert copy == tmp_path / "out" / "dist" / "birds"
    sources = {f"glas_wsol/{name}" for name in files(PACKAGE) if name.endswith((".py", ".json"))}
    assert "glas_wsol/__init__.py" in sources
    assert {name for name in files(copy) if not name.startswith("glas_wsol/")} == {
        "configs/metadata.json",
        "configs/inference.json",
        "docs/README.md",
        "LICENSE",
        "models/model.pt",
    }
    assert {name for name in files(copy) if name.startswith("glas_wsol/")} >= sources
    assert not [name for name in files(copy) if "__pycache__" in name or name.endswith((".pyc", ".ts", ".onnx"))]
    assert (copy / "models").is_dir()
    assert (copy / "glas_wsol" / "errors.py").read_bytes() == (PACKAGE / "errors.py").read_bytes()
    assert [path.name for path in (tmp_path / "out" / "dist").iterdir()] == ["birds"], "nothing temporary is left"


@pytest.mark.parametrize("name", ["glas_minmax_entropy", "cub5_minmax_entropy"])
def test_export_own_bundle_has_every_config(name, tmp_path):
    copy = export_bundle(ROOT / "bundles" / name, tmp_path)
    adapted = 0
    for config in (ROOT / "bundles" / name / "configs").iterdir():
        original, copied = config.read_text(), (copy / "configs" / config.name).read_text()
        assert copied == original.replace("sys.path.append(@bundle_root)", "sys.path.insert(0, @bundle_root)")
        assert "sys.path.append" not in copied
        adapted += copied != original
    assert adapted >= 2, "train.json and inference.json name the bundle's own package"
    assert "sys.path.append(@bundle_root)" in (ROOT / "bundles" / name / "configs" / "train.json").read_text()


def test_a_model_goes_with_its_card(bundle, model, tmp_path):
    copy = export_bundle(bundle, tmp_path / "dist", model)
    assert (copy / "models" / "model.pt").read_bytes() == b"new weights"
    assert (copy / "models" / "model.json").read_bytes() == model.with_suffix(".json").read_bytes()
    config = json.loads((copy / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert config["card"] == {"trunk": "resnet18", "classes": ["ä", "b"]}, "only what the config asks for"
    assert config["device"] == "cpu"
    assert json.loads((bundle / "configs" / "inference.json").read_text())["card"]["trunk"] == "resnet101"


def test_a_model_without_a_card_goes_alone(bundle, model, tmp_path):
    model.with_suffix(".json").unlink()
    copy = export_bundle(bundle, tmp_path / "dist", model)
    assert files(copy / "models") == {"model.pt"}
    assert (copy / "configs" / "inference.json").read_bytes() == (bundle / "configs" / "inference.json").read_bytes()


def test_an_earlier_export_is_replaced_as_a_whole(bundle, model, tmp_path):
    first = export_bundle(bundle, tmp_path / "dist", model)
    (first / "stale.txt").write_text("")
    (bundle / "docs" / "README.md").write_text("newer")
    second = export_bundle(bundle, tmp_path / "dist")
    assert second == first
    assert (second / "docs" / "README.md").read_text() == "newer"
    assert not (second / "stale.txt").exists()
    assert (second / "models" / "model.pt").read_text() == "old weights"
    assert files(second / "models") == {"model.pt"}


@pytest.mark.parametrize("at", ["docs", "metrics"])  # of the bundle, of the package
def test_a_failure_half_way_leaves_the_earlier_export_whole(bundle, tmp_path, monkeypatch, at):
    copy = export_bundle(bundle, tmp_path / "dist")
    before = {name: (copy / name).read_bytes() for name in files(copy)}
    failed, copytree = [], shutil.copytree

    def failing(source, *args, **kwargs):
        if Path(source).name == at:
            failed.append(source)
            raise OSError("No space left on device")
        return copytree(source, *args, **kwargs)

    monkeypatch.setattr(shutil, "copytree", failing)
    with pytest.raises((OSError, OutputError)):
        export_bundle(bundle, tmp_path / "dist")
    assert len(failed) == 1
    assert {name: (copy / name).read_bytes() for name in files(copy)} == before
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["birds"]


def test_a_folder_that_is_no_export_is_not_touched(bundle, tmp_path):
    other = tmp_path / "dist" / "birds"
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="choose another output folder"):
        export_bundle(bundle, tmp_path / "dist")
    assert files(tmp_path / "dist") == {"birds/thesis.txt"}
    with pytest.raises(OutputError, match="not an exported bundle"):
        export_bundle(bundle, bundle.parent)  # onto itself
    assert (bundle / "LICENSE").is_file()


def test_what_is_not_a_bundle_or_not_there_is_refused(bundle, tmp_path):
    with pytest.raises(ConfigError, match="not a bundle"):
        export_bundle(bundle / "configs", tmp_path / "dist")
    with pytest.raises(WeightsError, match="no such model"):
        export_bundle(bundle, tmp_path / "dist", tmp_path / "nowhere.pt")
    assert not (tmp_path / "dist").exists()
