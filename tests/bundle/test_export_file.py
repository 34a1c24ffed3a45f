# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A model exported to one file gives what the model gives, for images of any size; and what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import glas_wsol
from glas_wsol.__main__ import main
from glas_wsol.bundle import export_file
from glas_wsol.bundle.export_targets import TARGETS, export
from glas_wsol.errors import ConfigError, NumericalError, OutputError, WeightsError
from glas_wsol.networks import EnsembleNetwork, FixedMaskNetwork, RefinedNetwork
from glas_wsol.networks.frozen_norm import freeze, measure_statistics
from glas_wsol.networks.trunks import TRUNKS, TrunkSpec
from tests.conftest import tiny_network, tiny_trunk

SIZES = [(70, 131), (200, 97), (64, 64), (33, 40)]  # none is that of the export
CARDS = {"minmax": {"scale": 0.5, "stain": "H&E"}, "refined": {"scale": 1.0}, "several": {"scale": 0.5}}


@pytest.fixture(scope="module", autouse=True)
def narrow_trunk() -> Iterator[None]:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(*tiny_trunk().stages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, "narrow", TrunkSpec(build, list, 8, (0.5,) * 3, (0.5,) * 3))
        yield


def write_model(folder: Path, network: Any, classes: list[str], **card: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "model.pt")
    card = {"network": network.settings(), "trunk": "narrow", "classes": classes, "short_side": None, **card}
    (folder / "model.json").write_text(json.dumps(card))
    return folder / "model.pt"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    first = tiny_network(num_classes=2)
    refined = RefinedNetwork(tiny_trunk(), 2, base=first.settings(), seed=0)
    refined.base.load_state_dict(first.state_dict())
    freeze(refined, measure_statistics(refined, torch.rand(2, 1, 3, 96, 128)))
    several = tiny_network(num_classes=3, multi_label=True)
    networks = {"minmax": (first, 2), "refined": (refined, 2), "several": (several, 3)}
    names = ["benign", "malignant", "ä b"]
    return {k: write_model(folder / k, one, names[:c], **CARDS[k]) for k, (one, c) in networks.items()}


def of_pt2(file: Path) -> Callable[[torch.Tensor], Any]:
    return torch.export.load(file).module()


def of_onnx(file: Path) -> Callable[[torch.Tensor], Any]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape[:2]) for one in session.get_inputs()] == [("image", [1, 3])]
    assert all(isinstance(side, str) for side in session.get_inputs()[0].shape[2:]), "height and width are free"
    names = ["decidable", "probabilities"]
    return lambda image: [torch.from_numpy(one) for one in session.run(names, {"image": image.numpy()})]


def of_torchscript(file: Path) -> Callable[[torch.Tensor], Any]:
    return torch.jit.load(file)


READERS = {"pt2": of_pt2, "onnx": of_onnx, "torchscript": of_torchscript}


TRACED = [pytest.param("refined", to, marks=pytest.mark.slow) for to in ("pt2", "onnx")]  # the first stage is in it
PROGRAMS: dict[str, torch.export.ExportedProgram] = {}


@torch.no_grad()
@pytest.mark.parametrize(("kind", "to"), [*((kind, "torchscript") for kind in CARDS), *TRACED])
def test_export_of_any_size_equals_the_eager_pipeline(kind, to, models, tmp_path, monkeypatch):
    def once(module: torch.nn.Module) -> torch.export.ExportedProgram:
        if kind not in PROGRAMS:
            PROGRAMS[kind] = trace(module)
        return PROGRAMS[kind]

    trace = export_file._program
    monkeypatch.setattr(export_file, "_program", once)  # tracing takes most of the time, and two formats start from it
    file = export(models[kind], tmp_path, to)
    assert file.stem == "model"
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
    run, localize = READERS[to](file), glas_wsol.load(models[kind])
    for number, size in enumerate(SIZES):
        image = torch.rand(3, *size, generator=torch.Generator().manual_seed(number))
        image[:, : size[0] // 2, : size[1] // 3] *= 0.2
        decidable, probabilities = run(image[None])
        found = localize(image)
        np.testing.assert_allclose(decidable[0, 0].numpy(), found.decidable, atol=1e-3)
        np.testing.assert_allclose(probabilities[0].numpy(), found.probabilities, atol=1e-3)


def test_torchscript_holds_what_it_is(models, tmp_path):
    file = export(models["minmax"], tmp_path / "new" / "tiles.pt", "torchscript")
    assert file == tmp_path / "new" / "tiles.pt"
    extra = {export_file.DESCRIPTION: ""}
    torch.jit.load(file, _extra_files=extra)
    said = json.loads(extra[export_file.DESCRIPTION])
    assert said["classes"] == ["benign", "malignant"]
    assert (said["scale"], said["mpp"], said["threshold"]) == (0.5, None, 0.5)
    assert "Not for diagnosis" in said["intended_use"]
    assert len(said["models"][0]) == 64


@torch.no_grad()
def test_ensemble_exports_to_torchscript_as_it_localizes(models, tmp_path):
    other = write_model(tmp_path / "other", tiny_network(seed=5), ["benign", "malignant"], **CARDS["minmax"])
    members = [models["minmax"], other]
    run = torch.jit.load(export(members, tmp_path / "both.ts", "torchscript"))
    assert isinstance(glas_wsol.load(members).network, EnsembleNetwork)
    image = torch.rand(3, 90, 61)
    found = glas_wsol.load(members)(image)
    decidable, probabilities = run(image[None])
    np.testing.assert_allclose(decidable[0, 0].numpy(), found.decidable, atol=1e-3)
    np.testing.assert_allclose(probabilities[0].numpy(), found.probabilities, atol=1e-3)
    with pytest.raises(ConfigError, match="one model, not an ensemble"):
        export(members, tmp_path / "dist")


def test_export_of_a_model_to_a_bundle_takes_its_own_bundle(models, tmp_path):
    copy = export(models["minmax"].parent, tmp_path)
    assert copy == tmp_path / "glas_minmax_entropy"
    assert (copy / "models" / "model.pt").read_bytes() == models["minmax"].read_bytes()
    run = torch.jit.load(export(copy, tmp_path / "again.ts", "torchscript"))
    assert run(torch.rand(1, 3, 40, 70))[0].shape == (1, 1, 40, 70)


def test_bundle_with_a_model_named_apart_exports_that(models, tmp_path):
    file = export("glas", tmp_path, "torchscript", model=models["minmax"])
    assert zipfile.is_zipfile(file)
    with pytest.raises(ConfigError, match="named twice"):
        export(models["minmax"], tmp_path, "torchscript", model=models["minmax"])


def test_a_network_that_cannot_be_exported_is_refused(models, tmp_path, monkeypatch):
    baseline = write_model(tmp_path / "ones", FixedMaskNetwork("all_ones"), ["benign", "malignant"], trunk="none")
    with pytest.raises(ConfigError, match="untrained baseline has nothing to export"):
        export(baseline, tmp_path / "out", "pt2")

    def fail(*_: Any) -> bytes:
        raise RuntimeError("aten::strange is not known\nand more lines")

    target = export_file.FILE_TARGETS["torchscript"]
    monkeypatch.setitem(export_file.FILE_TARGETS, "torchscript", target.__class__(target.suffixes, (), fail, fail))
    with pytest.raises(
        ConfigError, match=r"MinMaxEntropyNetwork cannot .* \(aten::strange is not known\).*--to bundle"
    ):
        export(models["minmax"], tmp_path / "out", "torchscript")
    assert not (tmp_path / "out").exists()


def test_an_export_that_differs_from_the_model_is_not_written(models, tmp_path, monkeypatch):
    target = export_file.FILE_TARGETS["torchscript"]

    def off(content: bytes) -> Callable[[torch.Tensor], Any]:
        run = target.read(content)
        return lambda image: (run(image)[0] + 0.01, run(image)[1])

    changed = target.__class__(target.suffixes, (), target.write, off)
    monkeypatch.setitem(export_file.FILE_TARGETS, "torchscript", changed)
    with pytest.raises(NumericalError, match=r"differs from the model by 0\.01"):
        export(models["minmax"], tmp_path / "out", "torchscript")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_export_is_not_touched(models, tmp_path):
    (tmp_path / "model.ts").write_text("thesis")
    with pytest.raises(OutputError, match="this file is no export"):
        export(models["minmax"], tmp_path, "torchscript")
    assert (tmp_path / "model.ts").read_text() == "thesis"
    first = export(models["minmax"], tmp_path / "a.ts", "torchscript")
    assert export(models["minmax"], tmp_path / "a.ts", "torchscript") == first, "an export is replaced"


def test_export_of_a_bundle_with_several_views_is_refused(models, tmp_path):
    copy = export("glas", tmp_path, model=models["minmax"])
    config = copy / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"flips": false', '"flips": true'))
    with pytest.raises(ConfigError, match=r"sets flips.*name its model\.pt"):
        export(copy, tmp_path, "torchscript")


def test_wrong_words_of_an_export_are_refused(models, tmp_path):
    assert set(TARGETS) == {"bundle", "pt2", "onnx", "torchscript", "bioimageio"}
    with pytest.raises(ConfigError, match=r"no target named 'tflite'.*choose one of bundle, pt2"):
        export(models["minmax"], tmp_path, "tflite")
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export(models["minmax"], tmp_path / "model.pt2", "onnx")
    with pytest.raises(WeightsError, match="no trained model"):
        export(tmp_path, tmp_path / "out", "pt2")
    with pytest.raises(ConfigError, match="no bundle here"):
        export(tmp_path / "nowhere", tmp_path / "out")


def test_the_command_says_what_it_made_or_why_not(models, tmp_path, capsys):
    assert main(["export", str(models["minmax"]), str(tmp_path), "--to", "torchscript"]) == 0
    assert capsys.readouterr().out.strip() == f"exported {tmp_path / 'model.ts'}"
    assert main(["export", str(models["minmax"]), str(tmp_path / "a.ts"), "--to", "onnx"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a file for --to onnx ends in .onnx" in said
