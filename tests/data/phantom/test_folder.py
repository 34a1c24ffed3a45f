# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Processes that draw a phantom are started only where that runs no script again."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from glas_wsol.data.phantom import folder as phantom_folder


def test_a_script_without_a_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    call = f"write_tissue_phantom({str(tmp_path / 'p')!r}, train=6, test=2, size=(64, 72), scale=0.15, workers=2)"
    script.write_text(f"from glas_wsol.data.phantom.tissue import write_tissue_phantom\nprint('once')\n{call}\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr[-1000:]
    assert (tmp_path / "p" / "testB_1.bmp").is_file() or (tmp_path / "p" / "testA_2.bmp").is_file()


@pytest.mark.parametrize(
    ("main", "safe"),
    [
        ({"__spec__": SimpleNamespace(name="monai.bundle.__main__")}, True),
        ({"__spec__": SimpleNamespace(name="my_script")}, False),
        ({"__file__": "my_script.py"}, False),
        ({"__file__": "bin/glas-wsol"}, True),
        ({}, True),
    ],
)
def test_processes_are_started_only_where_nothing_runs_twice(main, safe, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**main))
    assert phantom_folder._may_spawn() is safe
