# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Imports run downwards only; the package's root is small; a module's file name says which one is meant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "glas_wsol"
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What ``lint-imports`` says of the package in a folder, where ``pyproject.toml`` lies too."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "glas_wsol", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contract_of_the_package_is_kept(copied):
    done = lint(copied)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "added"),
    [
        ("utils/labels.py", "from glas_wsol.results import localization"),
        ("results/boxes.py", "def later() -> None:\n    from glas_wsol import writers"),
        ("metrics/bins.py", "from glas_wsol.losses import constraints"),  # neighbours in one layer
        ("loading.py", "import glas_wsol.commands.predict"),
    ],
    ids=["at the top", "in a function", "of a neighbour", "as a whole"],
)
def test_contract_with_an_upward_import_is_broken(copied, module, added):
    path = copied / "glas_wsol" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n\n{added}\n", encoding="utf-8")
    done = lint(copied)
    assert done.returncode == 1, done.stdout
    assert "glas_wsol." + module.removesuffix(".py").replace("/", ".") in done.stdout


def test_contract_with_an_unplaced_subpackage_is_broken(copied):
    (copied / "glas_wsol" / "attic").mkdir()
    (copied / "glas_wsol" / "attic" / "__init__.py").touch()
    done = lint(copied)
    assert done.returncode == 1
    assert "attic" in done.stdout


def test_no_module_imports_the_package_itself():
    graph = grimp.build_graph("glas_wsol", cache_dir=None)
    assert len(graph.modules) > 100
    assert graph.find_modules_that_directly_import("glas_wsol") == set()


def test_subpackages_form_at_most_ten_layers():
    graph = grimp.build_graph("glas_wsol", cache_dir=None)
    below: dict[str, set[str]] = {}
    for module in graph.modules - {"glas_wsol"}:
        room = module.split(".")[1]
        imported = {one.split(".")[1] for one in graph.find_modules_directly_imported_by(module) if "." in one}
        below.setdefault(room, set()).update(imported - {room})

    @cache
    def layer(room: str) -> int:
        return 1 + max((layer(one) for one in below[room]), default=0)

    assert max(map(layer, below)) <= 10


def test_root_of_the_package_holds_few_modules():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_file_names_of_modules_are_unique():
    # a command is called as what it runs, in its folder alone
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" and path.parent.name != "commands"]
    assert len(files) > 100
    assert {name for name, count in Counter(path.name for path in files).items() if count > 1} == set()
