# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from glas_wsol.experiments.study import plan, runner
from glas_wsol.experiments.study.manifest import inspect
from glas_wsol.experiments.study.runner import Children, environment, execute
from tests.experiments.study.conftest import Pretend


def test_processors_are_shared_out_unless_the_user_has(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("A_VARIABLE", "kept")
    assert environment(4)["OMP_NUM_THREADS"] == "1"
    two = environment(2)
    assert (two["OMP_NUM_THREADS"], two["OMP_WAIT_POLICY"], two["A_VARIABLE"]) == ("3", "PASSIVE", "kept")
    assert environment(9)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(2)["OMP_NUM_THREADS"] == "5"


def test_a_child_s_output_status_and_environment(tmp_path):
    code = "import os, sys; print(os.environ['WORD']); print('bad', file=sys.stderr); sys.exit(3)"
    with (tmp_path / "log").open("ab") as log:
        assert Children({**os.environ, "WORD": "said"})([sys.executable, "-c", code], log) == 3
    assert sorted((tmp_path / "log").read_text().split()) == ["bad", "said"]


@pytest.mark.parametrize("stubborn", [False, True])
def test_stopping_ends_children_and_starts_none(tmp_path, monkeypatch, stubborn):
    monkeypatch.setattr(runner, "_PATIENCE", 0.3 if stubborn else 120)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    code = f"{ignore}import time; print('up', flush=True); time.sleep(600)"
    children, statuses = Children(os.environ), []
    with (tmp_path / "log").open("ab") as log:
        thread = threading.Thread(target=lambda: statuses.append(children([sys.executable, "-c", code], log)))
        thread.start()
        until(lambda: "up" in (tmp_path / "log").read_text())
        children.stop()
        thread.join(120)
        assert statuses == [-9 if stubborn else -15]
        assert children([sys.executable, "-c", "print('late')"], log) == -1
    assert "late" not in (tmp_path / "log").read_text()


def until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Meeting(Pretend):
    """Trainings that wait for one another: they end only if two run at a time, and note how many do."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier, self.now, self.most = threading.Barrier(2, timeout=120), 0, 0

    def __call__(self, command, log):
        with self.guard:
            self.now += 1
            self.most = max(self.most, self.now)
        if "--split" not in command:
            self.barrier.wait()
        status = super().__call__(command, log)
        with self.guard:
            self.now -= 1
        return status


def test_several_at_a_time(request_of):
    runs = plan(request_of(seeds=[0, 1, 2, 3]))
    children, outcomes = Meeting(), []
    execute([(run, inspect(run)) for run in runs], children, outcomes.append, jobs=2)
    assert children.most == 2
    assert {outcome.run.name for outcome in outcomes} == {run.name for run in runs}
    assert not any(outcome.error for outcome in outcomes)


class Slow(Pretend):
    """The row that others explain takes as long as it takes another one to pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = threading.Event()

    def __call__(self, command, log):
        if self.name(command).startswith("cam_avg"):
            self.passed.wait(60)
        return super().__call__(command, log)


def test_a_run_waits_for_the_model_it_needs_while_others_pass(request_of):
    runs = plan(request_of(methods=["grad_cam", "cam_avg", "wildcat"], seeds=[0]))
    assert [run.method for run in runs] == ["cam_avg", "grad_cam", "wildcat"]
    children, outcomes = Slow(), []

    def note(outcome) -> None:
        outcomes.append(outcome)
        children.passed.set()

    execute([(run, inspect(run)) for run in runs], children, note, jobs=2)
    assert [outcome.run.method for outcome in outcomes] == ["wildcat", "cam_avg", "grad_cam"]


def test_an_interruption_stops_the_children_and_keeps_the_time(request_of):
    runs = plan(request_of(seeds=[0, 1, 2]))
    children = Pretend()

    def interrupt(_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute([(run, inspect(run)) for run in runs], children, interrupt)
    assert children.stops == 1
    assert children.trained == [runs[0].name]


def test_the_seconds_of_all_attempts_are_added(request_of):
    (run,) = plan(request_of(seeds=[0]))

    class Taking(Pretend):
        def __call__(self, command, log):
            time.sleep(0.25)
            return super().__call__(command, log)

    execute([(run, inspect(run))], Taking({run.name}), lambda _: None)
    first = inspect(run).manifest["seconds"]
    assert 0.2 <= first < 60
    execute([(run, inspect(run))], Taking(), lambda _: None)
    assert inspect(run).manifest["seconds"] >= first + 0.5


def test_a_run_that_writes_no_figures_has_failed(request_of):
    (run,) = plan(request_of(seeds=[0]))

    class Empty(Pretend):
        def __call__(self, command, log):
            status = super().__call__(command, log)
            (run.folder / "evaluation.npz").unlink(missing_ok=True)
            return status

    outcomes = []
    execute([(run, inspect(run))], Empty(), outcomes.append)
    assert "the run wrote no evaluation.npz" in outcomes[0].error
    assert not inspect(run).manifest["finished"]


def test_without_a_told_error_the_last_line_is_told(request_of, tmp_path):
    (run,) = plan(request_of(seeds=[0]))

    class Crash(Pretend):
        def __call__(self, command, log):
            log.write("Traceback\n  File\r100 %|█|\nMemoryError: all of it\n\n".encode())
            return 1

    outcomes = []
    execute([(run, inspect(run))], Crash(), outcomes.append)
    assert outcomes[0].error == "MemoryError: all of it"
    assert Path(run.folder / "log.txt").is_file()
