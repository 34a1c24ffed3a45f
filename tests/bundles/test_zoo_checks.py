# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What MONAI's model zoo checks of a bundle, offline."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, load, onnx_export, verify_metadata, verify_net_in_out

import glas_wsol
from glas_wsol.networks.weights import read_state_dict
from tests.bundles.conftest import BUNDLES, ROOT, config

# The mandatory part of MONAI's bundle specification (metadata.json and tensor descriptions), written from its text.
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
SCHEMA = {
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format", "changelog", "name"),
    ],
    "properties": {
        **{k: {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"} for k in ("monai_version", "pytorch_version")},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "additionalProperties": TENSOR},
                "outputs": {"type": "object", "additionalProperties": TENSOR},
            },
        },
    },
}

# Of the model zoo's template of a README.
SECTIONS = (
    *("Authors", "Tags", "Model Description", "Data", "Preprocessing", "Performance", "Additional Usage Steps"),
    *("System Configuration", "Limitations", "Citation Info", "References"),
)

# Import names of what the metadata declares under its package's name.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "skimage": "scikit-image", "ignite": "pytorch-ignite"} | {
    "dask": "distributed",
    "dask_jobqueue": "dask-jobqueue",
}


@pytest.fixture(params=BUNDLES)
def bundle(request) -> Path:
    return ROOT / "bundles" / request.param


def test_metadata_is_verified_against_the_schema(bundle, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))  # MONAI uses a schema that is there already
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    broken = json.loads((bundle / "configs" / "metadata.json").read_text())
    del broken["network_data_format"]["inputs"]["image"]["dtype"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "broken.json"), filepath=str(tmp_path / "schema.json"))


def test_the_bundle_has_the_files_of_the_specification(bundle):
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf", "configs/metadata.json"):
        assert (bundle / name).is_file(), name
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert metadata["version"] == glas_wsol.__version__
    assert (bundle / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_readme_has_the_sections_of_the_template_and_no_link_leads_out(bundle):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert [title for title in SECTIONS if title not in titles] == []
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        place, _, anchor = link.partition("#")
        file = (bundle / "docs" / place).resolve()
        assert anchor in anchors if not place else file.is_file() and file.is_relative_to(bundle), link


def test_every_imported_package_is_declared(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    extras = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    optional = re.findall(r'"([\w.-]+)[<>=]', extras)
    declared = {"torch", "monai", "numpy", *metadata["required_packages_version"], *optional}
    imported = set()
    for path in (ROOT / "glas_wsol").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    foreign = {DISTRIBUTIONS.get(n, n) for n in imported - set(sys.stdlib_module_names) - {"glas_wsol"}}
    assert foreign <= declared


@pytest.mark.parametrize("n", [1, 2])
def test_network_input_and_output_are_as_declared(bundle, n):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        device="cpu",
        n=n,
        trunk="resnet18",
    )


def what_to_export(trained) -> dict[str, str]:
    return {
        "net_id": "network_def",
        "ckpt_file": str(trained.model),
        "meta_file": str(ROOT / "bundles" / trained.bundle / "configs" / "metadata.json"),
        "config_file": config(trained.bundle, "inference"),
        "checkpoint": str(trained.model),
    }


def test_the_exported_torchscript_equals_the_eager_network(trained, tmp_path):
    network = eager(trained)
    ckpt_export(filepath=str(tmp_path / "model.ts"), **what_to_export(trained))
    files = {"metadata.json": "", "inference.json": ""}
    scripted = torch.jit.load(tmp_path / "model.ts", _extra_files=files)
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(scripted.eval()(image), network(image))
    assert json.loads(files["metadata.json"])["name"]


def eager(trained) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(config(trained.bundle, "inference"))
    parser["checkpoint"] = str(trained.model)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(read_state_dict(trained.model))
    return network.eval()


@pytest.mark.filterwarnings("ignore")
def test_the_exported_onnx_equals_the_eager_network(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx_export(filepath=str(tmp_path / "model.onnx"), input_shape=[1, 3, 64, 96], **what_to_export(trained))
    image = torch.rand(1, 3, 64, 96)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), eager(trained)(image), rtol=1e-4, atol=1e-5)


def test_monai_loads_the_bundle_in_a_users_own_code(trained, tmp_path):
    from glas_wsol.bundle.export import export_bundle

    copy = export_bundle(ROOT / "bundles" / trained.bundle, tmp_path, trained.model)
    network = load(
        name=trained.bundle, bundle_dir=str(tmp_path), source="github", repo="owner/name/tag", workflow_type="inference"
    )
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), eager(trained)(image))
    assert copy.is_dir()
