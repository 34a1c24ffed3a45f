# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A bundle of a stranger is data: nothing of its configs runs, in no command that is given it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

import glas_wsol
from glas_wsol.__main__ import main
from glas_wsol.bundle.export import export_bundle
from glas_wsol.bundle.inference_run import plan_inference
from glas_wsol.doctor import check_bundle
from glas_wsol.errors import ConfigError
from glas_wsol.handlers import write_model
from glas_wsol.networks import build_network
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.utils.configs import executed_parts
from tests.conftest import tiny_network

ROOT = Path(__file__).parents[2]
GLAS = ROOT / "bundles" / "glas_minmax_entropy"
CARD = {"trunk": "efficientnet_lite0", "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network = build_network({}, trunk=CARD["trunk"], weights="package", num_classes=2, seed=0)
    write_model(network, folder, {**CARD, "stain": None, "network": network.settings()})
    return export_bundle(GLAS, folder / "dist", folder / "model.pt")


@pytest.fixture
def foreign(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "foreign"))


@pytest.fixture
def tile(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (71, 93, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tile.png")
    return tmp_path / "tile.png"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, before)


def change(bundle: Path, edit: Callable[[dict[str, Any]], Any], name: str = "inference") -> None:
    file = bundle / "configs" / f"{name}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def predicted(tile: Path, output: Path, *words: object) -> int:
    return main(["predict", str(tile), "--output", str(output), "--device", "cpu", *map(str, words)])


def test_nothing_of_a_foreign_bundle_runs(foreign, tile, tmp_path, capsys):
    owned = tmp_path / "owned"
    touch = f"$__import__('pathlib').Path({str(owned)!r}).touch()"
    target = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(owned)]}}
    (foreign / "evil.py").write_text(f"open({str(owned)!r}, 'w')\n")
    (foreign / "glas_wsol" / "__init__.py").write_text(f"open({str(owned)!r}, 'w')\n")
    (foreign / "scripts").mkdir()
    (foreign / "scripts" / "__init__.py").write_text(f"open({str(owned)!r}, 'w')\n")

    def edit(content: dict[str, Any]) -> None:
        content["imports"] += ["$import evil", touch]
        content["initialize"] = [touch, *content["initialize"], target]
        content |= {"network_def": target, "network": touch, "evaluator": {"_target_": "scripts.Evaluator"}}
        content |= {"run": [touch], "finalize": [touch], "handlers": [target], "something_new": touch}
        content["preprocessing"] = {"_target_": "Compose", "transforms": [target]}
        content["postprocessing"]["provenance"] = target
        content["inferer"]["_requires_"] = [touch]

    for file in (foreign / "configs").glob("*.json"):
        if file.stem in ("train", "evaluate"):
            change(foreign, lambda content: content.update({"imports": [touch], "initialize": [touch]}), file.stem)
    change(foreign, edit)
    ConfigParser(ConfigParser.load_config_file(foreign / "configs" / "inference.json")).get_parsed_content("run")
    assert owned.exists(), "MONAI runs it"
    owned.unlink()

    found = glas_wsol.load(foreign, device="cpu")(tile)
    assert predicted(tile, tmp_path / "out", "--model", foreign) == 0
    assert predicted(tile, tmp_path / "again", "--model", foreign / "models" / "model.pt", "--bundle", foreign) == 0
    said = capsys.readouterr().out
    assert str(foreign / "configs") not in said.split("this is: ")[1].splitlines()[0], "the package's own config is run"
    assert "is not this package's own and is not run" in said
    check_bundle(foreign)
    assert main(["doctor", "--bundle", str(foreign), "--weights", "none"]) in (0, None)
    copy = export_bundle(foreign, tmp_path / "dist", foreign / "models" / "model.pt")
    glas_wsol.load(copy, device="cpu")
    assert not owned.exists()
    for output in (tmp_path / "out", tmp_path / "again"):
        mask = np.asarray(Image.open(output / "masks" / "tile.png"))
        assert np.array_equal(mask > 0, found.mask)


@pytest.mark.parametrize("form", ["$__import__('pathlib').Path('owned').touch()", "@imports#0", "%other.json#x"])
@pytest.mark.parametrize("name", ["flips", "scale", "scales", "threshold", "card"])
def test_an_expression_for_a_known_setting_is_refused(foreign, tile, tmp_path, capsys, name, form):
    def edit(content: dict[str, Any]) -> None:
        if name == "threshold":
            content["postprocessing"]["threshold"] = form
        elif name == "card":
            content["card"]["classes"] = [form]
        else:
            content[name] = [form] if name == "scales" else form

    change(foreign, edit)
    with pytest.raises(ConfigError, match="not run here") as caught:
        glas_wsol.load(foreign, device="cpu")
    assert "\n" not in str(caught.value)
    assert predicted(tile, tmp_path / "out", "--model", foreign) == 1
    said = capsys.readouterr().err
    assert "not run here" in said
    assert said.count("\n") == 1
    if name not in ("card", "scale"):
        value = {"flips": "horizontal", "scales": 1.0, "threshold": 0.5}[name]
        option = "postprocessing#threshold" if name == "threshold" else name
        assert predicted(tile, tmp_path / "out", "--model", foreign, f"--{option}", value) == 0
        glas_wsol.load(foreign, device="cpu", **{name: [value] if name == "scales" else value})
    assert not (tmp_path / "owned").exists()


def test_plain_settings_of_a_foreign_bundle_are_taken(foreign, tile, tmp_path):
    def edit(content: dict[str, Any]) -> None:
        content |= {"flips": "horizontal", "formats": ["png", "json"], "stain": "H&E", "fill_holes": 40}
        content["postprocessing"]["threshold"] = 0.4375
        content["batch_size"] = 2

    change(foreign, edit)
    run = plan_inference([tile], [foreign], tmp_path / "out")
    assert run.files[0].resolve() == GLAS / "configs" / "inference.json"
    taken = {"flips": "horizontal", "formats": ["png", "json"], "stain": "H&E", "fill_holes": 40, "batch_size": 2}
    assert taken.items() <= run.settings.items()
    assert run.settings["postprocessing#threshold"] == 0.4375
    assert predicted(tile, tmp_path / "out", "--model", foreign) == 0
    (entry,) = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    found = glas_wsol.load(foreign, device="cpu")(tile)
    assert (entry["views"]["flips"], entry["threshold"]) == ("horizontal", 0.4375)
    assert found.threshold == 0.4375
    assert found.provenance.views["flips"] == "horizontal"
    assert entry["evidence"] == found.evidence
    assert (tmp_path / "out" / "json" / "tile.json").is_file()
    change(foreign, lambda content: content.update({"batch_size": "two"}))
    assert predicted(tile, tmp_path / "out", "--model", foreign) == 1, "it is checked as any other"


def test_a_path_is_no_expression(foreign, tile, tmp_path, monkeypatch):
    name = "$__import__('os').mkdir('owned')"
    foreign.rename(tmp_path / name)
    shutil.copy(tile, tmp_path / f"{name}.png")
    assert predicted(Path(f"{name}.png"), Path("$out"), "--model", name) == 0
    assert glas_wsol.load(name, device="cpu")(f"{name}.png").name == name
    assert (tmp_path / "$out" / "predictions.csv").is_file()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"trunk": "$__import__('os').system('touch owned')"},
        {"classes": ["benign", "@dataset"]},
        {"network": {"_target_": "os.system"}},
        {"network": {"deep": [{"pooling#_target_": "os.system"}]}},
        {"scale": "%evil.json"},
    ],
)
def test_a_model_card_carries_no_code_into_an_export(tmp_path, changes):
    write_model(tiny_network(), tmp_path / "model", {"trunk": "resnet18", "classes": ["a", "b"], "scale": 1.0})
    card = tmp_path / "model" / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))
    assert executed_parts(model_card(str(tmp_path / "model" / "model.pt")))
    with pytest.raises(ConfigError, match=r"no plain data: model\.json#"):
        export_bundle(GLAS, tmp_path / "out", tmp_path / "model" / "model.pt")
    assert not list(tmp_path.rglob("inference.json"))
