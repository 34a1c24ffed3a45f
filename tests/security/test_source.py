# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The package has no way to execute what it reads: no pickle, no unrestricted loader, no shell, no way round."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest
import torch

import glas_wsol
from glas_wsol.errors import WeightsError
from glas_wsol.networks import weights
from glas_wsol.networks.weights import fetch, read_state_dict

PACKAGE = Path(glas_wsol.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pty", "telnetlib"}
_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execve", "os.spawnv"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "pandas.read_pickle", "pd.read_pickle"),
    *("shutil.unpack_archive", "logging.config.fileConfig", "fileConfig", "logging.config.listen"),
    *("tempfile.mktemp", "subprocess.getoutput", "subprocess.getstatusoutput"),
    "xml.etree.ElementTree.fromstring",
}
_METHODS = {"extractall", "extract", "read_pickle", "to_pickle"}


def dotted(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else ["?"]), *reversed(parts)])


def doors(source: str) -> list[str]:
    """What in a source could execute what a file says, or leave the folder it writes to."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in _MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [f"import {node.module}"] if (node.module or "").split(".")[0] in _MODULES else []
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [f"import {name}" for name in whole if name in _CALLS or name in ("torch.load", "yaml.Loader")]
        elif isinstance(node, (ast.Name, ast.Attribute)):
            name = dotted(node)
            found += [name] if name in _CALLS else []
            found += [name] if isinstance(node, ast.Attribute) and node.attr in _METHODS and name != "?" else []
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {word.arg: word.value for word in node.keywords}
        if name in (
            "torch.load",
            "monai.bundle.load",
            "load_state_dict_from_url",
            "torch.hub.load_state_dict_from_url",
        ):
            only = given.get("weights_only")
            found += [] if isinstance(only, ast.Constant) and only.value is True else [f"{name} without weights_only"]
        for word in ("shell", "allow_pickle"):
            value = given.get(word)
            found += [] if value is None or (isinstance(value, ast.Constant) and value.value is False) else [word]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_source_of_the_package_has_a_door(path):
    # one reads back, from memory, the TorchScript that it has just made
    own = ["torch.jit.load"] if path.name == "export_file.py" else []
    assert doors(path.read_text(encoding="utf-8")) == own


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=safe)",
        "from torch import load",
        "read = torch.load\nread(f)",
        "yaml.load(f, yaml.SafeLoader)",
        "archive.extractall(folder)",
        "tarfile.open(f).extract(m)",
        "eval(text)",
        "run = exec",
        "os.system(c)",
        "subprocess.run(c, shell=True)",
        "np.load(f, allow_pickle=True)",
        "__import__(name)",
        "logging.config.fileConfig(f)",
    ],
)
def test_a_door_would_be_found(source):
    if source == "read = torch.load\nread(f)":
        assert [name for name in aliases(source) if name == "torch.load"]
    else:
        assert doors(source) != []


def aliases(source: str) -> list[str]:
    """Loaders that are handed on instead of called."""
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    handed = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in called]
    return [dotted(node) for node in handed if dotted(node) in ("torch.load", "np.load", "subprocess.run")]


def test_no_loader_is_handed_on_under_another_name():
    assert [(path.name, name) for path in SOURCES for name in aliases(path.read_text(encoding="utf-8"))] == []


def test_a_refused_file_is_not_tried_in_another_way(tmp_path, monkeypatch):
    calls = []
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **given: calls.append(given) or real(*args, **given))
    (tmp_path / "a.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="plain tensors"):
        read_state_dict(tmp_path / "a.pt")
    assert [given["weights_only"] for given in calls] == [True], "one try, and a restricted one"
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.pt").read_bytes())
    with pytest.raises(WeightsError, match="damaged"):
        read_state_dict(tmp_path / "a.safetensors")
    assert len(calls) == 1, "a file called safetensors is never taken for a pickle"
    assert not (tmp_path / "owned").exists()


def test_downloaded_weights_are_those_of_the_digest_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(weights.torch.hub, "get_dir", lambda: str(tmp_path))
    digest = hashlib.sha256(b"weights").hexdigest()
    sent = b"other weights"
    monkeypatch.setattr(
        weights.torch.hub, "download_url_to_file", lambda url, target, hash_prefix: Path(target).write_bytes(sent)
    )
    with pytest.raises(WeightsError, match="wrong SHA-256"):
        fetch(f"https://example.org/w.pt#sha256={digest}")
    for address in ("https://example.org/w.pt", f"http://example.org/w.pt#sha256={digest}", "file:///w.pt#sha256=00"):
        with pytest.raises(WeightsError, match="https and a digest"):
            fetch(address)
