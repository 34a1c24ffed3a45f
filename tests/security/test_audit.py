# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What is shipped passes the audit; what would run a stranger's code is named, without being run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from glas_wsol.__main__ import main
from glas_wsol.audit import audit, audit_config, audit_content, plain_data_faults
from glas_wsol.bundle import look_at_configs
from glas_wsol.bundle import startup as bundle
from glas_wsol.bundle.export import export_bundle
from glas_wsol.errors import ConfigError
from glas_wsol.handlers import write_model
from glas_wsol.networks.checkpoint import model_card
from tests.conftest import tiny_network
from tests.reliability.conftest import tell

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*ROOT.glob("bundles/*/configs/*.json"), *ROOT.glob("configs/**/*.json")])


def test_every_shipped_config_passes():
    assert len(SHIPPED) > 20
    assert list(map(str, audit(SHIPPED))) == []
    assert main(["audit", *map(str, SHIPPED)]) == 0
    assert main(["audit", *(str(path) for path in (ROOT / "bundles").iterdir())]) == 0


TARGET = {"_target_": "os.system", "command": "touch owned"}
HOSTILE: dict[str, tuple[Any, str]] = {
    # components
    "a function of the system": ({"x": TARGET}, "outside the list"),
    "nested deeply": ({"x": [{"y": {"z": [1, TARGET]}}]}, "x#0#y#z#1"),
    "evaluation": ({"x": {"_target_": "builtins.eval", "source": "1"}}, "outside the list"),
    "evaluation by its bare name": ({"x": {"_target_": "eval", "source": "1"}}, "none of MONAI's"),
    "a process": ({"x": {"_target_": "subprocess.Popen", "args": "id"}}, "outside the list"),
    "a module that torch imports": ({"x": {"_target_": "torch.os.system", "command": "id"}}, "outside the list"),
    "a module that a listed one imports": ({"x": {"_target_": "monai.data.utils.os.system"}}, "belongs to posix"),
    "a loader that a listed one imports": ({"x": {"_target_": "monai.data.utils.np.load"}}, "belongs to numpy"),
    "an unrestricted pickle": ({"x": {"_target_": "torch.load", "f": "x.pt"}}, "outside the list"),
    "a pickle that a data set caches": ({"x": {"_target_": "PersistentDataset", "data": []}}, "outside the list"),
    "a repository": ({"x": {"_target_": "torch.hub.load", "repo_or_dir": "a/b"}}, "outside the list"),
    "a compiler": ({"x": {"_target_": "torch.utils.cpp_extension.load"}}, "outside the list"),
    "another bundle": ({"x": {"_target_": "monai.bundle.run", "config_file": "x.json"}}, "outside the list"),
    "another bundle by its bare name": ({"x": {"_target_": "run", "config_file": "x.json"}}, "outside the list"),
    "a command of MONAI": ({"x": {"_target_": "run_cmd", "cmd_list": ["id"]}}, "outside the list"),
    "an archive": ({"x": {"_target_": "extractall", "filepath": "x.zip"}}, "outside the list"),
    "a child process of this package": (
        {"x": {"_target_": "glas_wsol.experiments.study.run_study.run_study"}},
        "outside the list",
    ),
    "an import of this package's own module": ({"x": {"_target_": "glas_wsol.bundle.sys.exit"}}, "belongs to sys"),
    "the bundle's own code": ({"x": {"_target_": "scripts.evil.Net"}}, "outside the list"),
    "a name made of a private one": ({"x": {"_target_": "torch.nn.Module.__init__"}}, "private"),
    "a target that a reference names": ({"a": "collections.deque", "x": {"_target_": "@a"}}, "stands for one"),
    "a target that an expression names": ({"x": {"_target_": "$'os' + '.system'"}}, "stands for one"),
    "a target that a macro names": ({"a": "b", "x": {"_target_": "%a"}}, "stands for one"),
    "a target given by a path": ({"network_def#_target_": "os.system"}, "outside the list"),
    "a target given by another path": ({"+network_def::_target_": "os.system"}, "outside the list"),
    "the debugger": ({"x": {"_target_": "Identity", "_mode_": "debug"}}, "no mode but"),
    "the debugger, nested": (
        {"x": {"_target_": "Compose", "transforms": [{"_target_": "Identity", "_mode_": "debug"}]}},
        "no mode",
    ),
    "a mode that an expression makes": ({"x": {"_target_": "Identity", "_mode_": "$'de' + 'bug'"}}, "no mode but"),
    "the debugger as an argument": ({"x": {"_target_": "Identity", "_debug_": True}}, "debugger"),
    "a reader that is a process": ({"x": {"_target_": "LoadImage", "reader": "subprocess.Popen"}}, "outside the list"),
    "a reader that a reference names": ({"a": "posix.system", "x": {"reader": "@a"}}, "stands for one"),
    "a name for something that imports it": ({"x": {"_target_": "Compose", "transforms": "os.system"}}, "own library"),
    # expressions
    "the import of an expression": ({"x": "$__import__('os').system('touch owned')"}, "uses __import__"),
    "an import": ({"imports": ["$import os"], "x": "$os.system('id')"}, "imports os"),
    "an import of a part": ({"imports": ["$from os import system"]}, "imports os.system"),
    "an import under another name": ({"imports": ["$import subprocess as np"]}, "imports subprocess"),
    "an import of what torch imports": ({"imports": ["$from torch import os"]}, "imports torch.os"),
    "an import elsewhere": ({"x": "$import torch"}, "outside of the list of imports"),
    "an allowed import renamed": ({"imports": ["$import sys as torch"]}, "renames"),
    "a module by reference": ({"imports": ["$import torch"], "x": "$@imports#1.hub.load('a/b', 'c')"}, "whole modules"),
    "a module by a relative reference": (
        {"imports": ["$import torch"], "x": {"y": "$@##imports#0.hub"}},
        "whole modules",
    ),
    "a module by a plain reference": (
        {"imports": ["$import torch"], "x": {"_target_": "Compose", "m": "@imports#0"}},
        "whole modules",
    ),
    "a module by the table of references": ({"x": "$__local_refs['imports::0'].hub"}, "whole modules"),
    "everything by an empty reference": ({"x": "$@['imports'][0]"}, "whole config"),
    "a module as a value": ({"x": "$[torch][0]"}, "uses torch"),
    "getattr by a name": ({"x": "$getattr(torch, 'o' + 's')"}, "not spelt out"),
    "getattr of a module": ({"x": "$getattr(torch, 'serialization')"}, "uses torch"),
    "a chain of getattr": ({"x": "$getattr(getattr(@net, '__class__'), '__subclasses__')()"}, "__subclasses__"),
    "getattr as a value": ({"x": "$list(map(getattr, [@a], ['os']))"}, "uses"),
    "classes of a tuple": ({"x": "$().__class__.__base__.__subclasses__()"}, "__subclasses__"),
    "globals of a method": ({"x": "$@net.forward.__globals__['os']"}, "__globals__"),
    "a frame": ({"x": "$(i for i in @a).gi_frame.f_back"}, "gi_frame"),
    "a format": ({"x": "$'{0.x}'.format(@net)"}, "format"),
    "a text with underscores": ({"x": "$'{0.__class__}'"}, "has the text"),
    "a dynamic evaluation": ({"x": "$eval('1')"}, "uses eval"),
    "an execution": ({"x": "$exec('import os')"}, "uses exec"),
    "a compilation": ({"x": "$compile('1', '', 'eval')"}, "uses compile"),
    "a file": ({"x": "$open('/etc/passwd').read()"}, "uses open"),
    "the names in scope": ({"x": "$globals()['torch']"}, "uses globals"),
    "torch's loader": ({"x": "$torch.load('x.pt', weights_only=False)"}, "uses torch.load"),
    "numpy's loader": ({"x": "$np.load('x.npy', allow_pickle=True)"}, "uses np.load"),
    "the system through torch": ({"x": "$torch.os.system('id')"}, "uses torch.os.system"),
    "the system through MONAI": ({"x": "$monai.bundle.scripts.os.system('id')"}, "uses monai.bundle"),
    "an import through MONAI": (
        {"x": "$monai.utils.optional_import('os')[0].system('id')"},
        "monai.utils.optional_import",
    ),
    "the modules of sys": ({"imports": ["$import sys"], "x": "$sys.modules['os'].system('id')"}, "sys.modules"),
    "another search path": ({"imports": ["$import sys"], "x": "$sys.path.append('somewhere')"}, "sys.path.append"),
    "an assignment": ({"x": "$(np := @a)"}, "NamedExpr"),
    "inside a lambda": ({"x": "$lambda engine: __import__('os')"}, "uses __import__"),
    "a default of a lambda": ({"x": "$lambda engine=eval('1'): engine"}, "uses eval"),
    "inside a comprehension": ({"x": "$[exec(i) for i in @a]"}, "uses exec"),
    "inside an f-string": ({"x": "$f'{eval(str(1))}'"}, "uses eval"),
    "an expression of a component": ({"x": {"_target_": "Identity", "_disabled_": "$exit()"}}, "uses exit"),
    "a requirement of a component": ({"x": {"_target_": "Identity", "_requires_": ["$quit()"]}}, "uses quit"),
    "no expression": ({"x": "$import os; os.system('id') if"}, "no expression"),
    # other files
    "another file": ({"x": "%evil.json#y"}, "another file"),
    "another file, YAML": ({"x": {"y": ["%/elsewhere/evil.yaml"]}}, "another file"),
    "a module by a macro": ({"imports": ["$import torch"], "x": "%imports#0"}, "whole modules"),
}


@pytest.mark.parametrize("kind", ["json", "yaml"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_run_code_is_named(tmp_path, name, kind):
    content, word = HOSTILE[name]
    path = tmp_path / f"config.{kind}"
    path.write_text(json.dumps(content) if kind == "json" else yaml.safe_dump(content))
    found = audit_config(path)
    assert found, content
    assert any(word in str(finding) for finding in found), list(map(str, found))
    assert all(finding.file == str(path) for finding in found)
    if kind == "json":
        tell(name, f"named: {found[0].where}: {found[0].what}")


@pytest.mark.parametrize(
    "content",
    [
        {"x": TARGET},
        {"x": {"_target_": "monai.data.utils.os.system", "command": "touch owned"}},
        {"x": "$__import__('os').system('touch owned')"},
        {"mods": ["$import torch"], "x": "$@mods#0.os.system('touch owned')"},
        {"a": "os.system", "x": {"_target_": "@a", "command": "touch owned"}},
    ],
)
def test_the_danger_is_real_and_the_audit_is_not(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    assert audit_content(json.loads(json.dumps(content)), "config.json")
    assert not (tmp_path / "owned").exists()
    ConfigParser(content).get_parsed_content("x")
    assert (tmp_path / "owned").exists(), "MONAI runs it"


@pytest.mark.parametrize(
    "content",
    [
        {"x": {"_target_": "torch.nn.Linear", "in_features": 3}},
        {"x": {"_target_": "DiceCELoss"}, "y": {"_target_": "monai.networks.nets.UNet"}},
        {"x": "$[i * 2 for i in @sizes if i > 1]", "y": "$lambda a, b: max(a, b)"},
        {"x": "$torch.cuda.is_available()", "y": "$np.float32", "z": "$torch.nn.functional.softmax(@a, dim=1)"},
        {"x": "an e-mail: a@imports.org", "y": "100 % of it", "z": "model.os.txt", "w": "data/os.csv"},
        {"imports": ["$import torch", "$from monai.data import list_data_collate"]},
        {"x": {"_target_": "LoadImaged", "keys": "image", "reader": "PILReader"}},
    ],
)
def test_what_is_harmless_passes(content):
    assert list(map(str, audit_content(content, "config.json"))) == []


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.json", b"{", "cannot be read"),
        ("a.json", b"[" * 100_000 + b"]" * 100_000, ""),
        ("a.json", b"\xff\xfe{}", "cannot be read"),
        ("a.json", b'{"a": 1' + b" " * 10_000_000 + b"}", "too large"),
        ("a.json", b'{"a": [' + b"1," * 200_000 + b"1]}", "too many values"),
        ("a.yaml", b"x: !!python/object/apply:os.system ['touch owned']\n", "cannot be read"),
        (
            "a.yaml",
            b"a: &a [1,2,3,4,5,6,7,8,9]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("j"))
            ),
            "too many values",
        ),
        ("a.txt", b"{}", "neither JSON nor YAML"),
    ],
    ids=["cut off", "deep", "not UTF-8", "large", "long", "an object", "laughs", "another format"],
)
def test_files_that_are_no_config_are_named(tmp_path, name, data, word):
    (tmp_path / name).write_bytes(data)
    (finding, *_) = audit_config(tmp_path / name)
    assert word in finding.what
    assert len(str(finding)) < 400


def test_the_command_lists_all_and_ends_with_status_1(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"x": TARGET, "y\x1b[2J": "$exit()"}))
    assert main(["audit", str(tmp_path / "a.json"), str(SHIPPED[0])]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "a.json: x#_target_: 'os.system' is outside the list" in out
    assert "\x1b" not in out, "a name must not write to the terminal"
    assert err.startswith("error: 2 places could run")
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match="no such config"):
        audit([tmp_path / "nowhere.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no config in this folder"):
        audit([tmp_path / "empty"])


def test_a_folder_is_audited_with_its_code(tmp_path):
    copy = export_bundle(ROOT / "bundles" / "glas_minmax_entropy", tmp_path)
    assert audit([copy]) == [], "its own copy of this package is known"
    (copy / "glas_wsol" / "erasing.py").write_text("import os\n")
    (copy / "scripts").mkdir()
    (copy / "scripts" / "numpy.py").write_text("import os\n")
    shutil.copy(copy / "scripts" / "numpy.py", copy / "scripts" / "lib.SO")
    assert sorted(Path(one.file).name for one in audit([copy])) == ["erasing.py", "lib.SO", "numpy.py"]


def argv(*files: object) -> list[str]:
    return [str(ROOT / "bundle" / "__main__.py"), "run", "--config_file", str([str(file) for file in files])]


def test_a_run_warns_once_of_what_is_strange_and_not_of_what_is_shipped(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(bundle, "_LOOKED_AT", set())
    look_at_configs(argv(*SHIPPED[:4]))
    look_at_configs(["pytest", "run"])
    assert caplog.messages == []
    (tmp_path / "a b.json").write_text(json.dumps({"x": TARGET, "y": "$exit()"}))
    for _ in range(2):
        look_at_configs(argv(SHIPPED[0], tmp_path / "a b.json"))
    (message,) = caplog.messages
    assert "x#_target_: 'os.system'" in message
    assert "and 1 more" in message
    assert f"audit {shlex.quote(str(SHIPPED[0]))} '{tmp_path}/a b.json'" in message


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
def test_a_models_description_cannot_carry_code_into_an_exported_config(tmp_path, changes):
    write_model(tiny_network(), tmp_path / "model", {"trunk": "resnet18", "classes": ["a", "b"], "scale": 1.0})
    card = tmp_path / "model" / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))
    assert plain_data_faults(model_card(tmp_path / "model" / "model.pt"))
    with pytest.raises(ConfigError, match=r"no plain data: model\.json#"):
        export_bundle(ROOT / "bundles" / "glas_minmax_entropy", tmp_path / "out", tmp_path / "model" / "model.pt")
    assert not list(tmp_path.rglob("inference.json"))
