# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The doctor finds what is wrong, says what to do, and ends with status 1 on a fault only."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from glas_wsol import doctor
from glas_wsol.__main__ import main
from glas_wsol.bundle.export import export_bundle
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.doctor import Check, installation
from glas_wsol.handlers import write_model
from glas_wsol.networks import build_network

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "glas_minmax_entropy"
NAMED = {"monai": "monai", "torch": "pytorch", "numpy": "numpy"}


def statuses(checks: list[Check]) -> set[str]:
    return {one.status for one in checks}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    network = build_network({}, trunk="efficientnet_lite0", weights="none", num_classes=2, seed=0)
    card = {"trunk": "efficientnet_lite0", "classes": ["benign", "malignant"], "network": network.settings()}
    write_model(network, folder, {**card, "alarm": {"score": 0.9, "verdict": "ALARM"}})
    made = export_bundle(BUNDLE, folder / "dist", folder / "model.pt")
    about = json.loads((made / "configs" / "metadata.json").read_text())
    exact = about["required_packages_version"]  # newer ones than were tested may be installed here
    about["required_packages_version"] = {name: metadata.version(name) for name in exact}
    about |= {f"{word}_version": metadata.version(name) for name, word in NAMED.items()}
    (made / "configs" / "metadata.json").write_text(json.dumps(about))
    return made


@pytest.fixture
def table(tmp_path) -> Path:
    """Four images of two classes, each of a patient of its own."""
    rows = ["image,label,mask,patient,split"]
    for number, (label, patient, split) in enumerate(
        [("a", "p1", "train"), ("b", "p2", "train"), ("a", "p3", "valid"), ("b", "p4", "valid")]
    ):
        Image.fromarray(np.full((20, 31, 3), 9 * number, np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(np.ones((20, 31), np.uint8)).save(tmp_path / f"{number}_mask.png")
        rows.append(f"{number}.png,{label},{number}_mask.png,{patient},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    return tmp_path / "list.csv"


def test_this_machine_can_run_it(capsys, tmp_path):
    assert main(["doctor", "--output", str(tmp_path / "new")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines[:-1]} == {"python", "packages", "torch", "device", "weights", "output"}
    assert lines[-1].startswith("faults: 0")
    assert not (tmp_path / "new").exists(), "nothing is made"


def test_for_other_programs(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--json", "--output", str(tmp_path / "file" / "out"), "--weights", "none"])
    assert left.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["counts"]["fault"] == 1
    (fault,) = [one for one in said["checks"] if one["status"] == "fault"]
    assert fault["name"] == "output"
    assert "a file is in its way" in fault["what"]
    assert fault["fix"] == "choose another folder"


def installed(monkeypatch, python: str = ">=3.10", version: str = "0.1.0", requires: tuple[str, ...] = ()) -> None:
    known = SimpleNamespace(metadata={"Requires-Python": python}, version=version, requires=list(requires))
    monkeypatch.setattr(installation, "_distribution", lambda: known)


def test_another_python_is_a_fault(monkeypatch):
    installed(monkeypatch, python=">=3.99")
    (found,) = doctor.check_python()
    assert found.status == "fault"
    assert ">=3.99 is needed" in found.what


def test_packages_are_those_of_the_installed_metadata(monkeypatch):
    numpy = metadata.version("numpy")
    asked = (f"numpy=={numpy}", "numpy>=999", "numpy==0.1", "no-such-package>=2", 'no-such-extra; extra == "dicom"')
    installed(monkeypatch, requires=asked)
    first, *others = doctor.check_packages()
    assert first.what.endswith("required packages: 1")
    assert [(one.status, one.what.split()[0]) for one in others] == [
        ("fault", "numpy"),
        ("warning", "numpy"),
        ("fault", "no-such-package"),
        ("ok", "no-such-extra"),
    ]
    assert others[2].fix == 'pip install "no-such-package>=2"'


def test_a_real_list_is_read():
    distribution = metadata.distribution("glas_wsol")
    names = {Requirement(text).name for text in distribution.requires}
    assert {"torch", "monai"} <= names
    assert statuses(doctor.check_packages()) <= {"ok", "warning"}


def test_a_copy_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr(installation, "_NAME", "no_such_distribution")
    (found,) = doctor.check_packages()
    assert found.status == "warning"
    assert "--bundle" in found.fix
    assert statuses(doctor.check_python()) == {"ok"}


def test_a_device_that_is_not_there_is_a_fault(monkeypatch):
    found = doctor.check_torch("cuda:99")[-1]
    assert found.status == "fault"
    assert "--device cpu" in found.fix
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert any("finds no device" in one.what for one in doctor.check_torch() if one.status == "warning")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    assert any("OMP_NUM_THREADS" in one.fix for one in doctor.check_torch() if one.status == "warning")


def test_a_device_that_computes_wrongly_is_a_fault(monkeypatch):
    conv2d, calls = torch.nn.functional.conv2d, []
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *a: (calls.append(a), conv2d(*a) * len(calls))[1])
    assert "something else" in doctor.check_torch("cpu")[-1].what


def test_weights(tmp_path):
    (found,) = doctor.check_weights()
    assert found.status == "ok"
    assert "579344248a93e230" in found.what
    (found,) = doctor.check_weights("resnet18")
    assert found.status == "warning"
    assert "random weights" in found.what
    assert "torchvision" in found.fix
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    for given in (str(tmp_path / "bad.pth"), str(tmp_path / "none.pth")):
        (found,) = doctor.check_weights("resnet18", given)
        assert (found.status, given in found.what) == ("fault", True)
    (found,) = doctor.check_weights("resnet18", "https://example.org/a.pth#sha256=" + 64 * "0")
    assert found.status == "warning", "nothing is downloaded"


def test_a_bundle_and_its_model(bundle):
    configs, *packages, model, alarm = doctor.check_bundle(bundle)
    assert [configs.status, model.status, alarm.status] == ["ok", "ok", "warning"]
    assert {one.status for one in packages} <= {"ok", "warning"}, "a warning: another version than it was tested with"
    assert "benign, malignant" in model.what
    assert "ALARM: these masks should not be trusted (estimated failure probability 0.90)" in alarm.what


def test_what_is_wrong_with_a_bundle(bundle, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "configs" / "evaluate.json").write_text("{")
    about = json.loads((copy / "configs" / "metadata.json").read_text())
    about["required_packages_version"]["no-such-package"] = "1.0"
    about |= {"version": "0.0.9", "numpy_version": "1.0.0"}
    (copy / "configs" / "metadata.json").write_text(json.dumps(about))
    with (copy / "models" / "model.pt").open("ab") as file:
        file.write(b"\0")
    found = doctor.check_bundle(copy)
    faults = [one.what for one in found if one.status == "fault"]
    assert len(faults) == 3, faults
    assert "the config cannot be read" in faults[0]
    assert "no-such-package is not installed" in faults[1]
    assert "not the one that model.json beside it describes" in faults[2] or "damaged" in faults[2]
    warned = " ".join(one.what for one in found if one.status == "warning")
    assert "0.0.9" in warned
    assert "==1.0.0 was tested" in warned
    shutil.rmtree(copy / "models")
    assert doctor.check_bundle(copy)[-1].status == "warning", "a bundle may have no model yet"
    (copy / "configs" / "metadata.json").write_text("[]")
    assert any("metadata cannot be read" in one.what for one in doctor.check_bundle(copy))
    assert statuses(doctor.check_bundle(tmp_path / "nowhere")) == {"fault", "warning"}


def test_data_is_counted_by_class_and_split(table):
    found = doctor.check_data(table)
    assert [one.what for one in found[1:3]] == [
        "train: n 2, a 1, b 1, groups 2, masks yes",
        "valid: n 2, a 1, b 1, groups 2, masks yes",
    ]
    assert found[3].what == "all 4 images can be read"


def test_patients_on_both_sides_are_a_warning(tmp_path):
    tissue = write_tissue_phantom(tmp_path / "tissue", train=20, test=0, size=(64, 70), scale=0.12)
    assert statuses(doctor.check_data(tissue, "patient-0")) == {"ok"}
    (warned,) = [one for one in doctor.check_data(tissue, "stratified-0") if one.status == "warning"]
    assert "patients have images in both train and valid" in warned.what
    assert "choose the fold patient-0" in warned.what
    (taken,) = [one for one in doctor.check_data(tissue, "paper") if one.status == "warning"]
    assert "the paper's fold is of 85 tiles, this phantom has 20: fold patient-0 is taken" in taken.what


def test_every_fault_of_the_data_is_a_line(table, capsys):
    folder = table.parent
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    Image.fromarray(np.ones((31, 20), np.uint8)).save(folder / "2_mask.png")
    faults = [one.what for one in doctor.check_data(table) if one.status == "fault"]
    assert len(faults) == 2
    assert "1.png" in faults[0]
    assert faults[1].endswith("20 x 31 px, and its image 31 x 20 px")
    assert statuses(doctor.check_data(table, pixels=False)) == {"ok"}
    table.write_text(table.read_text() + "\nlost.png,a,,p,train\n0.png,,,p,train\n")
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--data", str(table), "--weights", "none", "--trunk", "resnet18"])
    assert left.value.code == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fault")]
    assert len(lines) >= 2
    assert any("line 6" in line and "lost.png" in line for line in lines)
    assert any("line 7" in line for line in lines)


def test_images_to_localize_need_no_label(table, tmp_path):
    (found,) = doctor.check_images(table)
    assert found.what == "all 4 images can be read"
    (tmp_path / "3.png").write_text("no image")
    masks, table, fault = doctor.check_images(tmp_path)
    assert masks.what == "4 masks, such as 0_mask.png, passed over"
    assert table.what == "1 other file passed over (.csv)"
    assert fault.status == "fault"
    assert "3.png" in fault.what
    assert doctor.check_images(tmp_path, pixels=False)[0].what == "4 images"
    assert statuses(doctor.check_images(tmp_path / "nowhere")) == {"fault"}


def test_an_output_folder(tmp_path, monkeypatch):
    assert statuses(doctor.check_output(tmp_path)) == {"ok"}
    room = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    assert statuses(doctor.check_output(tmp_path / "a" / "b")) == {"warning"}

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert "Read-only file system" in doctor.check_output(tmp_path)[0].what
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_one_line():
    assert str(Check("data", "fault", "a\nb.png", "rename it")) == "fault   data      a\\nb.png: rename it"
