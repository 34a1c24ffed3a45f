# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Learn from the accepted outlines in the background, then localize with the new model; one job at a time."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from glas_wsol.data import load_datalist
from glas_wsol.errors import ConfigError, count
from glas_wsol.loading import ModelSource
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.transforms.reading.outlines import OUTLINE_SUFFIX
from glas_wsol.utils.csv_files import write_csv

__all__ = ["LearningJob"]

_TAIL = 6_000  # bytes of the log that the page shows
_PATIENCE = 10  # seconds before a job that does not stop is killed


class LearningJob:
    """The commands ``learn`` and ``predict``, as child processes.

    Args:
        root: folder of results; each job has a folder ``learnt_1``, ``learnt_2``, ... in it.
        data: what the model was trained on; empty where not known.
        model: that is gone on from; empty where not known.
        settings: of ``learn``, as typed.
        finished: given the folder of the new model's results, at once that of the last job of an earlier review.
    """

    def __init__(
        self, root: Path, data: str, model: str, settings: Sequence[str], finished: Callable[[Path], None]
    ) -> None:
        self.root, self.data, self.model, self.settings = root, data, model, tuple(settings)
        self._finished = finished
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._step, self._folder, self._cancelled = "", None, False
        atexit.register(self.cancel)
        done = [int(path.parts[-3][7:]) for path in root.glob("learnt_*/results/predictions.json")]
        if done:
            finished(root / f"learnt_{max(done)}" / "results")

    @property
    def missing(self) -> str:
        """What the command must be given before anything can be learnt; empty where nothing is missing."""
        if self.data and self.model:
            return ""
        return "To learn, start this command with --data DATA --model OUT: the training's data and its output folder."

    def start(self, accepted: Mapping[str, Path], images: Sequence[dict[str, Any]]) -> None:
        """Begin.

        Args:
            accepted: files of outlines by their image; copied, so that they may be changed meanwhile.
            images: rows of the table that the new model localizes: ``image`` and ``mpp``.

        Raises:
            ConfigError: if something is missing, a job is at work, or none of the images was trained on.
            GlasWsolError: if data or model cannot be read.
            OutputError: if the folder cannot be written.
        """
        if self.missing:
            raise ConfigError("data and model are not known", fix=self.missing)
        names = self._training_names()
        known = {image: names[at] for image in accepted if (at := str(Path(image).resolve())) in names}
        if not known:
            what = f"none of the {count(len(accepted), 'accepted image')} is among the training images"
            raise ConfigError(what, self.data, "accept outlines of training images, or give their --data")
        with self._lock:
            if self._step in ("learn", "predict"):
                raise ConfigError("a job is at work", fix="wait for its end, or cancel it")
            number = 1
            while (self.root / f"learnt_{number}").exists():
                number += 1
            folder = self.root / f"learnt_{number}"
            folder.mkdir()
            self._step, self._folder, self._cancelled = "learn", folder, False
        corrections = folder / "corrections"
        corrections.mkdir()
        for image, name in known.items():
            shutil.copyfile(accepted[image], corrections / f"{name}{OUTLINE_SUFFIX}")
        left = [f"left out, as it is no training image: {image}\n" for image in accepted if image not in known]
        (folder / "log.txt").write_text("".join(left), encoding="utf-8")
        table = folder / "images.csv"
        write_csv(table, list(images), ("image", "mpp"))
        learn = ["learn", self.data, "--model", self.model, "--corrections", str(corrections)]
        learn += ["--output", str(folder / "model"), *self.settings]
        predict = ["predict", str(table), "--model", str(folder / "model" / "models" / "model.pt")]
        predict += ["--output", str(folder / "results"), "--formats", "png", "png_map", "--no-overlays"]
        threading.Thread(target=self._run, args=(folder, [learn, predict]), daemon=True).start()

    def _training_names(self) -> dict[str, str]:
        """What the training calls its images, by their files: the corrections are to have these names."""
        card = model_card(str(ModelSource(Path(self.model)).checkpoint))
        typed = dict(zip(self.settings[::2], self.settings[1::2], strict=False))
        fold, seed = typed.get("--fold", card.get("fold", "paper")), typed.get("--fold_seed", card.get("fold_seed", 0))
        found = load_datalist(self.data, str(fold), int(seed or 0), log=False)
        return {str(item.image.resolve()): item.name for item in found.splits.get("train", ())}

    def cancel(self) -> None:
        """Stop the job, and all processes that it started; nothing where none is at work."""
        with self._lock:
            self._cancelled, child = True, self._child
        if child is None or child.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)
            with suppress(subprocess.TimeoutExpired):
                child.wait(_PATIENCE)
                return

    def state(self) -> dict[str, Any]:
        """Whether it is at work, at which step, and the end of its log."""
        with self._lock:
            step, folder = self._step, self._folder
        found: dict[str, Any] = {"step": step, "running": step in ("learn", "predict"), "missing": self.missing}
        if folder is not None:
            found |= {"folder": folder.name, "log": _tail(folder / "log.txt")}
        return found

    def _run(self, folder: Path, commands: Sequence[Sequence[str]]) -> None:
        step = "failed"
        try:
            with (folder / "log.txt").open("ab") as log:
                for words in commands:
                    with self._lock:
                        if self._cancelled:
                            step = "cancelled"
                            return
                        self._step = words[0]
                        command = [sys.executable, "-m", "glas_wsol", *words]
                        log.write(f"$ {shlex.join(command)}\n".encode())
                        log.flush()
                        # a group of its own, so that a cancel reaches the loader's workers too
                        self._child = subprocess.Popen(  # noqa: S603 - the package's own program
                            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                        )
                    if self._child.wait() != 0:
                        step = "cancelled" if self._cancelled else "failed"
                        return
            self._finished(folder / "results")
            step = "done"
        finally:
            with self._lock:
                self._step, self._child = step, None


def _tail(path: Path) -> str:
    """The last lines of a log; of a bar that was drawn again and again, its last state."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
