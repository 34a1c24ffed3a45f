# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One of two processes is killed: the other does not hang, and the run is taken up from its last whole epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
import torch

from tests.bundles.conftest import ROOT, config, paper, workflow
from tests.distributed.conftest import ENVIRONMENT, TORCHRUN
from tests.distributed.ranks import GLAS, settings


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_killed_process_ends_all_and_the_run_resumes(folder, alone, tmp_path):
    asked = settings(GLAS, folder / "data" / GLAS, tmp_path / "out", epochs=2)
    files = [config(GLAS, name) for name in ("train", "paper", "multi_gpu_train")]
    command = [*TORCHRUN, "-m", "tests.distributed.slow", "run", "--config_file", str(files)]
    for name, value in asked.items():
        command += [f"--{name}", str(value)]
    (tmp_path / "processes").mkdir()
    environment = {**ENVIRONMENT, "PROCESSES": str(tmp_path / "processes")}
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen(command, stdout=said, stderr=said, env=environment, cwd=ROOT)
    last, deadline = tmp_path / "out" / "models" / "last.pt", time.monotonic() + 900
    while not last.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert last.exists(), (tmp_path / "said").read_text()[-3000:]
    first, second = (int((tmp_path / "processes" / str(rank)).read_text()) for rank in range(2))
    os.kill(second, signal.SIGKILL)
    assert run.wait(timeout=300) != 0, "a process waits an hour for another that lives"
    assert not is_running(first)
    told = (tmp_path / "said").read_text()
    assert "another process of this run has ended" in told or "terminated: " in told, told[-3000:]
    assert "Traceback" not in told.partition("torch/distributed/elastic")[0], "torchrun's own is no fault of ours"
    state = torch.load(last, weights_only=True)
    assert state["trainer"]["epoch"] == 1
    workflow("train", paper(GLAS), **asked).run()  # one process goes on where two began
    weights, expected = (
        torch.load(where / "models" / "model.pt", weights_only=True) for where in (tmp_path / "out", alone / "paper")
    )
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5, msg=name)
    assert not list((tmp_path / "out").rglob("*.part"))
