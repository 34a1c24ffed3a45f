# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Workers of a dask cluster leave what one process does; work that kills its worker fails alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from glas_wsol.__main__ import main
from glas_wsol.errors import ConfigError
from glas_wsol.experiments.study.dask_children import DaskChildren
from glas_wsol.workers import dask_workers
from glas_wsol.workers.dask_workers import dask_cluster
from tests.cohorts.test_jobs import everything, many, once
from tests.cohorts.test_predict_slides import as_it_was, images, model, rows

__all__ = ["as_it_was", "images", "many", "model", "once"]
from tests.cohorts.deadly_work import slow_start, work

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


@pytest.fixture(scope="module", autouse=True)
def quick_starts():
    """Workers are forked from a process that has loaded the package once: to start anew takes most of these tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed", "glas_wsol.cohorts.slide_run", "glas_wsol.cohorts.tile_batches"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed.utils, "_forkserver_preload_set", True)
        with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
            yield


@pytest.fixture(scope="module")
def address(quick_starts):
    """Two processes with a scheduler, started before the run, as those of a cluster are."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "600s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        yield cluster.scheduler_address


def test_work_that_kills_its_worker_fails_alone(address, tmp_path, capsys):
    with dask_cluster(address, None, False, tmp_path) as cluster:
        done = dict(cluster(work, [(number, tmp_path) for number in range(8)], slow_start, (tmp_path,)))
    assert done == {n: None if n == 3 else n * n for n in range(8)}
    assert "dask: 2 workers; dashboard http://127.0.0.1" in capsys.readouterr().out


def has_ended(pid: int) -> None:
    """Wait for the end of a process, which whoever is its parent then may not have noticed yet."""
    until = time.monotonic() + 60
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_commands_of_a_study_run_and_end_on_workers(address, tmp_path):
    def run(children, code: str) -> int:
        with (tmp_path / "log.txt").open("ab") as log:
            return children([sys.executable, "-c", code], log)

    def started(times: int) -> int:
        until = time.monotonic() + 120
        while len(pids := pid_file.read_text().split() if pid_file.exists() else []) < times:
            assert time.monotonic() < until
            time.sleep(0.05)
        return int(pids[-1])

    pid_file = tmp_path / "pids"
    say = f"import os, time; open({str(pid_file)!r}, 'a').write(f'{{os.getpid()}} {{os.getppid()}} ')"
    say += "; print('said', flush=True)"
    with dask_cluster(address, None, False, tmp_path) as cluster, ThreadPoolExecutor(1) as pool:
        children = DaskChildren(cluster)
        assert run(children, f"{say}; raise SystemExit(7)") == 7
        later = pool.submit(run, children, f"{say}; time.sleep(150)")
        worker = started(4)
        os.kill(worker, signal.SIGKILL)
        assert started(6) != worker  # once more, in another
        try:
            has_ended(int(pid_file.read_text().split()[2]))  # nothing goes on without its worker
        finally:
            children.stop()
        assert later.result() == -signal.SIGTERM
        assert run(children, say) == -1
    assert (tmp_path / "log.txt").read_text() == "said\n" * 3


def test_nobody_at_an_address_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_workers, "_ANSWER", 0.5)
    with (
        pytest.raises(ConfigError, match="no dask scheduler answers"),
        dask_cluster("tcp://127.0.0.1:9", 1, False, tmp_path),
    ):
        pass


def test_workers_without_a_gpu_are_refused(address, tmp_path):
    with pytest.raises(ConfigError, match="none of the 2 workers has a GPU"), dask_cluster(address, 1, True, tmp_path):
        pass


def test_slide_that_kills_its_workers_is_the_only_failure(model, many, once, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["predict", str(many), "--model", str(model), "--output", str(out), "--device", "cpu", "--dask", "local"]
    deadly = {"distributed.worker.preload": ["tests.cohorts.deadly_slide"], "deadly-slide": str(tmp_path / "deaths")}
    with dask.config.set(deadly):
        assert main(words) == 3
    assert (tmp_path / "deaths").read_text() == "killed\n" * 2
    assert "dask: 1 worker; dashboard http://127.0.0.1:" in capsys.readouterr().out
    failed = {row["image"].rpartition("/")[2]: row["what"] for row in rows(out / "failed.csv")}
    assert failed.pop("slide.svs") == "the process died, most likely for lack of memory"
    assert sorted(failed) == ["broken.png", "unknown.tif"]
    assert [row["name"] for row in rows(out / "slides.csv")] == ["glass"]
    assert main(words) == 3  # the same command again does what is left
    assert everything(out) == everything(once)
