# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Two processes, started once, and what one does alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from glas_wsol.data.phantom.birds import write_bird_phantom
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.networks.trunks import TRUNKS
from tests.bundles.conftest import NARROW, ROOT, SMALL
from tests.distributed.ranks import CUB5, GLAS, bundle_runs

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"}


@pytest.fixture(scope="session", autouse=True)
def narrow_trunk():
    """A trunk of the name that the small settings give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, SMALL["trunk"], NARROW)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The data: 14 tiles to train on and 4 to validate, 7 to test; 15 birds to train on, 5 to validate."""
    folder = tmp_path_factory.mktemp("ranks")
    write_tissue_phantom(folder / "data" / GLAS, seed=0, train=18, test=7, size=[104, 155], scale=0.2)
    write_bird_phantom(folder / "data" / CUB5, seed=0, train=20, test=5)
    return folder


@pytest.fixture(scope="session")
def alone(folder) -> Path:
    """All runs of one process."""
    bundle_runs(folder, shared=False)
    return folder / "one"


@dataclass(frozen=True)
class Pair:
    """All runs of two processes, and what each of them found."""

    output: Path
    found: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="session")
def pair(folder, alone) -> Pair:
    command = [*TORCHRUN, "-m", "tests.distributed.ranks", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env=ENVIRONMENT, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-5000:]
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2))
    return Pair(folder / "two", (first, second))
