# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Two processes do what one does: gradients, weights, figures, files; one that is killed ends the other."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.handlers.clock import read_clock
from glas_wsol.transforms import read_mask
from glas_wsol.utils import distributed
from tests.bundles.conftest import BUNDLES, ROOT, config, paper, workflow
from tests.conftest import same
from tests.distributed.conftest import ENVIRONMENT, TORCHRUN
from tests.distributed.ranks import CASES, GLAS, seeds_gradient, settings, step_of


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_four_and_four_images_is_that_of_eight(pair, name):
    alone = step_of(name)
    first, second = (found["steps"][name] for found in pair.found)
    assert alone["gradients"].norm() > 0.1
    error = (first["gradients"] - alone["gradients"]).norm() / alone["gradients"].norm()
    assert float(error) < 1e-12, "in float64; the order of the sums is another"
    assert torch.equal(first["gradients"], second["gradients"])
    assert float(abs(first["loss"] - alone["loss"])) < 1e-12
    if CASES[name].get("parted"):
        assert alone["forwards"] == first["forwards"] == 4
        lockstep = CASES[name].keys() & {"alive_only", "counted"}
        assert second["forwards"] == (4 if lockstep else 1), "all of its images died at once"


def test_ranks_second_stage_gradient_is_of_the_whole_batch(pair):
    for found in pair.found:
        torch.testing.assert_close(found["seeds"], seeds_gradient(), rtol=1e-12, atol=0)


def test_an_overflow_in_one_process_skips_the_step_of_both(pair):
    first, second = (found["half"] for found in pair.found)
    assert torch.equal(first["weights"], second["weights"])
    assert first["scale"] == second["scale"] == 2.0**15
    one, two, three = first["weights"]
    assert torch.equal(one, two)
    assert not torch.equal(two, three)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("batch size", r"refine_batch_size=3 cannot be shared by 2 processes .*give a multiple of 2"),
        ("too few images", r"1 image cannot be shared by 2 processes"),
        ("batch statistics", r"set batch_norm=frozen"),
        ("mask normalisation", r"set network_def#normalisation=sample"),
        ("other seeds", r"begin with different networks"),
        ("another weight", r"grown apart \[epoch 1\]"),
        ("not a number", r"the loss is nan"),
        ("record", r"a record needs a single process"),
        ("nothing wrong", r"^$"),
    ],
)
def test_ranks_unsupported_settings_are_refused_by_all(pair, what, words):
    for found in pair.found:
        assert re.search(words, found["refused"][what]), found["refused"][what]
        assert "\n" not in found["refused"][what]


def test_images_are_shared_out_in_order_each_once(pair):
    first, second = pair.found
    assert first["portion"] + second["portion"] == list(range(7))
    assert first["gathered"] == second["gathered"] == [0, 0, 0, 1]


def tree(output: Path) -> list[str]:
    """Names of all files; TensorBoard's say when and by which process they were written."""
    names = [p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()]
    return sorted(re.sub(r"(tfevents\.).*", r"\1", name) for name in names)


def test_the_files_are_those_of_one_process(pair, alone):
    for run in ("paper", "evaluation", "stages", "early"):
        # taken up again, TensorBoard's are written once more
        assert sorted(set(tree(pair.output / run))) == sorted(set(tree(alone / run))), run


def test_ranks_only_rank_zero_writes_shared_files(pair):
    first, second = (set(found["written"]) for found in pair.found)
    assert {"two/paper/models/model.pt", "two/paper/models/last.pt", "two/paper/models/clock.json"} <= first
    assert {"two/evaluation/evaluation.json", "two/evaluation/test/predictions.csv"} <= first
    assert any("tfevents" in name for name in first)
    own = re.compile(r"two/(evaluation/test|birds/valid)/((masks|overlays)/[^/]+|\.predictions\.csv\.unfinished\.1)$")
    assert [name for name in second if not own.match(name)] == []
    assert len([name for name in second if name.startswith("two/evaluation/test/masks/test")]) == 4


@pytest.mark.parametrize("file", ["paper/models/model.pt", "stages/stage_one/model.pt", "stages/models/model.pt"])
def test_ranks_weights_equal_one_process_up_to_rounding(pair, alone, file):
    trained, expected = load(pair.output / file), load(alone / file)
    assert trained.keys() == expected.keys()
    for name, value in trained.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5, msg=name)


def test_ranks_frozen_statistics_are_the_same_in_both(pair):
    first, second = (found["refined"] for found in pair.found)
    names = [name for name in first if name.endswith("group_statistics")]
    assert len(names) == 3
    for name in names:
        assert first[name][1].min() > 0
        assert torch.equal(first[name], second[name]), name


def test_ranks_resumed_run_equals_that_of_one_process(pair, alone):
    for run in ("paper/models", "stages/stage_one", "stages/models", "early/models"):
        last, expected = load(pair.output / run / "last.pt"), load(alone / run / "last.pt")
        assert last["trainer"] == expected["trainer"], run
        assert {**last["recipe"], "first_stage": ""} == {**expected["recipe"], "first_stage": ""}, run  # a digest
        assert same(last["lr_scheduler"], expected["lr_scheduler"]), run
        assert last["best"]["best_metric_epoch"] == expected["best"]["best_metric_epoch"], run
        assert last["best"]["best_metric"] == pytest.approx(expected["best"]["best_metric"], abs=1e-4), run
        card, other = (json.loads((where / run / "model.json").read_text()) for where in (pair.output, alone))
        assert card.keys() == other.keys()
        told, expected = card.pop("validation"), other.pop("validation")
        assert told == {key: pytest.approx(value, abs=1e-4) for key, value in expected.items()}
        described, expected = card.pop("familiarity", None) or {}, other.pop("familiarity", None) or {}
        assert {kind: one["usual"] for kind, one in described.items()} == {
            kind: pytest.approx(one["usual"], abs=1e-4) for kind, one in expected.items()
        }
        assert {**card, "sha256": "", "recipe": ""} == {**other, "sha256": "", "recipe": ""}


def test_early_stopping_stops_all_processes_in_the_same_epoch(pair, alone):
    for where in (pair.output, alone):
        last = load(where / "early" / "models" / "last.pt")
        assert last["trainer"]["epoch"] == 2, "of 4"
        assert last["early_stop"]["counter"] == 1


def test_ranks_seeds_equal_one_process_up_to_rounding(pair, alone):
    names = [p.relative_to(alone) for p in (alone / "stages" / "models" / "seeds").rglob("*.png")]
    assert len(names) == 14 * 4, "two rounds, seeds and masks"
    for name in names:
        ours, theirs = (read_mask(where / name).astype(int) for where in (pair.output, alone))
        assert (np.abs(ours - theirs) > 1).mean() < 0.01, name


def test_the_clock_counts_the_work_of_all_processes(pair, alone):
    shared, single = (read_clock(where / "stages" / "models" / "clock.json") for where in (pair.output, alone))
    assert [one["epoch"] for one in shared] == [one["epoch"] for one in single] == [1, 2, 3]
    assert {one["device"] for one in shared} == {"2 x cpu"}
    assert {one["device"] for one in single} == {"cpu"}


def test_an_evaluation_has_the_bytes_of_one_process(pair, alone):
    """Seven images on two processes: figures, intervals, tables, masks."""
    report = json.loads((alone / "evaluation" / "evaluation.json").read_text())
    assert report["n"] == report["measures"]["f1_foreground"]["n"] == 7
    for path in sorted((alone / "evaluation").rglob("*")):
        if path.is_file() and path.suffix != ".npz":
            name = path.relative_to(alone)
            assert (pair.output / name).read_bytes() == path.read_bytes(), name
    ours, theirs = (np.load(where / "evaluation" / "evaluation.npz") for where in (pair.output, alone))
    assert ours.files == theirs.files
    for key in ours.files:
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_ranks_overlays_of_both_bundles_are_equal_and_complete():
    for name in ("multi_gpu_train", "multi_gpu_evaluate"):
        one, other = (json.loads(Path(config(bundle, name)).read_text()) for bundle in BUNDLES)
        assert one == other
        assert (
            one["finalize"]
            == ["@conclude", {"_target_": "glas_wsol.utils.distributed.end"}][name.endswith("evaluate") :]
        )


def test_a_port_that_is_taken_is_told_in_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        meeting = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": taken.getsockname()[1]}
        for name, value in meeting.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(ConfigError, match=r"cannot meet at 127\.0\.0\.1:\d+ .*\[distributed\]: .*--master_port"):
            distributed.begin("cpu", minutes=0.05)
    assert distributed.world_size() == 1


def test_without_torchrun_the_overlay_says_what_to_do(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun --standalone --nproc_per_node=2"):
        distributed.begin("cpu")


@pytest.mark.parametrize(
    ("device", "backend", "devices", "words"),
    [
        ("cuda:0", None, 2, "device=cuda"),
        ("cuda", None, 1, "process 1 of this machine, and 1 CUDA devices"),
        ("cuda", "gloo", 0, "and 0 CUDA devices"),
        ("cpu", "mpi", 0, "backend='mpi'"),
    ],
)
def test_a_device_that_is_not_there_or_not_ones_own_is_refused(monkeypatch, device, backend, devices, words):
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "a", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(ConfigError, match=words):
        distributed.begin(device, backend=backend)
    assert distributed.world_size() == 1


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
