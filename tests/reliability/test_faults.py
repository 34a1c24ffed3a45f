# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What happens to a run from outside: told in one line, nothing half there, and the next run goes on.

benchmarks/reliability.py lets the same happen to whole processes.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from glas_wsol.__main__ import main
from glas_wsol.bundle.excepthook import _end_cleanly_on_sigterm, _say_in_one_line
from glas_wsol.errors import GlasWsolError, OutputError
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.locks import claim, release
from tests.reliability.conftest import CONFIGS, ROOT, Ended, everything, one_line, rows, run
from tests.reliability.files import encoded, picture

HOLD = """
import sys
from glas_wsol.utils.locks import claim
claim(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n, (40 + n, 64)), "PNG"))
    return tmp_path / "in"


@pytest.fixture
def other():
    """Start a process that claims a file, and end it."""
    started = []

    def hold(file: Path) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(file)], cwd=ROOT, text=True, **pipes))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_file_lock_is_held_until_its_process_ends(tmp_path, other):
    file = tmp_path / "results.csv"
    holder = other(file)
    with pytest.raises(OutputError, match=rf"another run is at work here \(process {holder.pid} on .*\)") as caught:
        claim(file)
    assert "\n" not in str(caught.value)
    claim(tmp_path / "others.csv")
    release(tmp_path / "others.csv")
    holder.kill()
    holder.wait()
    assert (tmp_path / ".results.csv.lock").exists(), "what a killed process leaves locks nothing"
    assert claim(file)
    assert claim(file)
    with pytest.raises(AssertionError):
        other(file)
    release(file)
    release(file)
    ended = other(file)
    ended.communicate()
    assert ended.returncode == 0
    assert everything(tmp_path) == {}, "nothing is left behind"
    with pytest.raises(OutputError, match="cannot be written"):
        claim(tmp_path / "nowhere" / "a")


def test_a_second_run_of_inference_in_the_same_folder_is_refused(infer, folder, tmp_path, other):
    out = tmp_path / "out"
    assert infer(folder, out).status == 0
    before = everything(out)
    holder = other(out / "finished.jsonl")
    one_line(infer(folder, out), "another run is at work here", str(holder.pid), "choose another --output")
    holder.communicate()
    assert everything(out) == before
    assert infer(folder, out).status == 0


def test_too_many_open_files_stop_the_run_not_the_image(infer, folder, tmp_path, monkeypatch):
    opened = Path.open

    def refuse(path, *args, **kwargs):
        if path.name == "1.png" and path.parent == folder:
            raise OSError(24, os.strerror(24), str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        one_line(infer(folder, tmp_path / "out"), "too many open files", "1.png", "ulimit")
    assert not (tmp_path / "out" / "failed.csv").exists()
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert infer(folder, tmp_path / "out").status == 0
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 3


def told(error: BaseException, capsys) -> Ended:
    _say_in_one_line(type(error), error, error.__traceback__)
    return Ended(1, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (
            "(pid 47) is killed by signal: Killed. It is possible that dataloader's workers are out of shared memory.",
            "Killed",
        ),
        ("(pid(s) 19372) exited unexpectedly", "exited unexpectedly"),
    ],
)
def test_a_killed_worker_is_told_in_one_line(capsys, words, how):
    error = RuntimeError("Failed to evaluate ConfigExpression:\n '$@evaluator.run()'")
    error.__cause__ = RuntimeError(f"DataLoader worker {words}")
    error.__cause__.__cause__ = FileNotFoundError(2, "No such file or directory")
    one_line(told(error, capsys), "worker was killed", how, "num_workers", "run the same command again")


def test_worker_killed_in_a_message_gives_one_line(capsys):
    source = compile("raise EOFError('unexpected EOF')", "/somewhere/torch/utils/data/dataloader.py", "exec")
    with pytest.raises(EOFError) as caught:
        exec(source)  # noqa: S102 - one line above
    error = RuntimeError("Failed to evaluate ConfigExpression:\n '$@evaluator.run()'")
    error.__cause__ = caught.value
    one_line(told(error, capsys), "worker was killed (before it answered)", "num_workers")
    with pytest.raises(AssertionError):
        one_line(told(EOFError("of something else"), capsys), "worker")


def test_ctrl_c_is_told_in_one_line(capsys):
    said = told(KeyboardInterrupt(), capsys).said
    assert said.startswith("interrupted: run the same command again; it goes on")
    assert said.count("\n") == 1


def _write_and_be_told(path: Path) -> None:
    with atomic_write(path, "w") as file:
        file.write("half")
        file.flush()
        os.kill(os.getpid(), signal.SIGTERM)
        file.write("more")


def test_the_systems_wish_to_end_is_followed_cleanly(tmp_path, capsys):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        thread = threading.Thread(target=_end_cleanly_on_sigterm)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "only a main thread may ask"
        _end_cleanly_on_sigterm()
        with pytest.raises(SystemExit) as left:
            _write_and_be_told(tmp_path / "a.txt")
        assert left.value.code == 143
        assert list(tmp_path.iterdir()) == []
        assert capsys.readouterr().err.startswith("\nterminated: run the same command again")
        own = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_cleanly_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "a handler of somebody else's stays"
        assert own is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("nowhere.json", None, "no such file or folder"),
        ("cut.json", '{"a": 1,\n "b', "line 2"),
        ("cut.yaml", "a: [1,\n", "the config cannot be read"),
        ("a.txt", "{}", "unknown file input"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, capsys, monkeypatch, name, content, word):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    if content is not None:
        (tmp_path / name).write_text(content)
    before = signal.getsignal(signal.SIGTERM)
    try:
        status = main(["train", "phantom", "--output", str(tmp_path / "out"), "--overlays", str(tmp_path / name)])
    finally:
        signal.signal(signal.SIGTERM, before)
    one_line(Ended(status, capsys.readouterr().err), word, name)


# Real disks


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mount a small or a read-only disk in the folder; gone after the test."""
    mounted = []

    def mount(*options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        command = ["mount", *options, str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount: the refusal of the system is made by other tests")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_stops_the_run_and_a_rerun_continues(infer, folder, tmp_path, disk):
    out = disk("-t", "tmpfs", "-o", "size=40k", "none")
    one_line(infer(folder, out, overlays=True), "cannot be written (No space left on device)", "has room")
    assert not (out / "predictions.csv").exists()
    assert not list(out.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(out)], check=True)
    assert infer(folder, out, overlays=True).status == 0
    infer(folder, tmp_path / "undisturbed", overlays=True)
    assert everything(out) == everything(tmp_path / "undisturbed")


def test_a_read_only_disk_is_refused_before_anything_is_computed(infer, folder, tmp_path, disk, capsys, monkeypatch):
    out = disk("-t", "tmpfs", "-o", "size=1m,ro", "none")
    refused = " cannot be written (Read-only file system)"
    for place in (out, out / "below"):
        one_line(infer(folder, place), refused, "choose another --output")
    training = {"output_dir": str(out), "device": "cpu", "dataset_dir": str(folder)}
    files = [str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")]
    one_line(run("train", files, capsys, **training), refused)
    assert infer(folder, tmp_path / "out").status == 0
    for words in (
        ["images", str(ROOT / "tests"), "--output", str(out / "a.csv")],
        ["report", str(tmp_path / "out"), "--output", str(out / "a.html")],
        ["export", str(CONFIGS.parent), str(out)],
        ["phantom", str(out / "phantom"), "--train", "2", "--test", "0"],
    ):
        monkeypatch.setattr("glas_wsol.data.load_datalist", lambda *_, **__: Split())
        assert main(words) == 1
        one_line(Ended(1, capsys.readouterr().err), "ead-only")
    assert list(out.iterdir()) == []


class Split:
    """A datalist of one image."""

    def select(self, split: str) -> list[dict[str, str]]:
        return [{"image": "a.png"}]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on device [a.part]: choose a folder"),
        (errno.EMFILE, "too many open files [a.part]: raise the limit"),
        (errno.EACCES, "permission denied [a.part]: change its permissions, or choose another place"),
        (errno.EEXIST, "file exists [a.part]: see what lies there"),
        (errno.EIO, "input/output error [a.part]: see that the disk"),
    ],
)
def test_system_error_anywhere_gives_one_line(capsys, number, words):
    error = RuntimeError("Failed to evaluate ConfigExpression:\n '$@evaluator.run()'")
    error.__cause__ = OSError(number, os.strerror(number), "a.part")
    one_line(told(error, capsys), words)
    assert GlasWsolError.of_system(OSError(errno.ENOENT, "no such file", "a")) is None, "a fault of the program"
    assert GlasWsolError.of_system(ValueError("a")) is None


# The same bytes in give the same bytes out


def test_workers_file_order_and_hash_order_change_no_byte(infer, folder, tmp_path):
    assert infer(folder, tmp_path / "expected", overlays=True).status == 0
    expected = everything(tmp_path / "expected")
    kept = everything(folder)
    for path in list(folder.iterdir()):
        path.unlink()
    for name in sorted(kept, reverse=True):
        (folder / name).write_bytes(kept[name])
    for workers in (1, 2):
        out = tmp_path / f"out_{workers}"
        assert infer(folder, out, overlays=True, num_workers=workers).status == 0
        assert everything(out) == expected


def test_image_among_others_has_the_same_result_as_alone(infer, folder, tmp_path):
    (tmp_path / "list.csv").write_text("image\n" + "".join(f"in/{n}.png\n" for n in (2, 0, 1)))
    assert infer(folder, tmp_path / "folder").status == 0
    assert infer(tmp_path / "list.csv", tmp_path / "list").status == 0
    found = everything(tmp_path / "list" / "masks")
    assert {name.removeprefix("in__"): data for name, data in found.items()} == everything(
        tmp_path / "folder" / "masks"
    )
    order = [Path(row["path"]).name for row in rows(tmp_path / "list" / "predictions.csv")]
    assert order == ["2.png", "0.png", "1.png"]
    assert np.unique([len(data) for data in found.values()]).size > 1, "masks to compare"
