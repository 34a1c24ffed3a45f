# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own, what can happen inside them, what they leave, and what is told of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from places import give_up_rights

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles" / "glas_minmax_entropy" / "configs"
_IMPORTS = [
    "monai.bundle",
    "monai.engines",
    "glas_wsol.networks.checkpoint",
    "glas_wsol.handlers",
    "glas_wsol.networks",
]
_IMPORTS += ["glas_wsol.engines", "tensorboard", "torch.utils.tensorboard", "glas_wsol.data.seeded"]

# A training of seconds; everything else is the bundle's own.
TRAINING: dict[str, Any] = {
    "trunk": "efficientnet_lite0",
    "weights": "package",
    "epochs": 2,
    "batch_size": 4,
    "crop_size": 64,
    "passes": 2,
    "device": "cpu",
    "batch_norm": "frozen",
    "dropout": 0.5,
    "optimizer#lr": 0.01,
    "fold": "stratified-0",
}
PHANTOM: dict[str, Any] = {"seed": 0, "train": 10, "test": 2, "size": [72, 104], "scale": 0.2}
ENDS = {"inference": 3, "train": 0}
"""Status of an undisturbed run: one tile of inference is damaged."""


def configs_of(kind: str) -> list[str]:
    """The config files of a training or of inference; a training is the paper's."""
    return [str(CONFIGS / f"{name}.json") for name in (("train", "paper") if kind == "train" else (kind,))]


@dataclass
class Told:
    """A part of the report, printed line by line as it is found.

    Attributes:
        title: of the part.
        lines: Markdown.
        summary: what was tried, how many cases, how they ended.
        good: whether everything ended as it must.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    summary: list[tuple[str, object, str]] = field(default_factory=list)
    good: bool = True

    def say(self, text: str = "") -> None:
        """Add lines."""
        print(text, flush=True)
        self.lines.append(text)

    def row(self, *cells: object) -> None:
        """Add a row of a table."""
        self.say("| " + " | ".join(str(cell).replace("\n", " ") for cell in cells) + " |")

    def table(self, *titles: str) -> None:
        """Begin a table."""
        self.row(*titles)
        self.say("|" + "---|" * len(titles))

    def judge(self, good: bool) -> str:
        """Remember a comparison of bytes; its word for the table."""
        self.good &= good
        return "same" if good else "OTHER"

    def sum_up(self, tried: str, cases: object, ended: str) -> None:
        """Add a row to the summary, which says so where this part failed."""
        self.summary.append((tried, cases, ended if self.good else f"NOT AS IT MUST: {ended}"))


@dataclass
class Run:
    """What is run, and into which folder.

    Attributes:
        output: receives the results; ``OUTPUT.log``, beside it, all that is said.
        settings: overrides of the bundle's config.
        kind: ``"inference"`` or ``"train"``, the config.
        trouble: what happens inside the process: ``slow``, ``few files``, ``small files``, ``no rights``,
            ``clock goes back``; of a training also ``NaN in epoch 2`` and the like, of
            inference ``few files at image 2``.
        environment: variables to set.
        suffix: of the log's name.
    """

    output: Path
    settings: dict[str, Any]
    kind: str = "inference"
    trouble: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    suffix: str = ""

    @property
    def log(self) -> Path:
        """Standard output and standard error."""
        return self.output.with_name(f"{self.output.name}{self.suffix}.log")

    def start(self) -> multiprocessing.process.BaseProcess:
        """Begin the run; torch and MONAI are imported once for all runs."""
        process = context().Process(target=_run, args=(self,))
        process.start()
        return process

    def finish(self) -> int:
        """Run to the end; the exit status, negative for a signal."""
        process = self.start()
        process.join()
        return int(process.exitcode or 0)


def context() -> multiprocessing.context.ForkServerContext:
    """Where processes come from."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_IMPORTS)
    return found


def _run(run: Run) -> None:
    """A run as the command line does it."""
    with run.log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(run.environment)
    time.tzset()
    import locale

    import monai.bundle
    import torch

    if run.environment:
        locale.setlocale(locale.LC_ALL, "")
    torch.set_num_threads(1)
    _make_trouble(run.trouble)
    try:
        monai.bundle.run(config_file=configs_of(run.kind), output_dir=str(run.output), **run.settings)
    except Exception:
        sys.excepthook(*sys.exc_info())  # leaves with its own status
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(130) from None


def _make_trouble(kind: str) -> None:
    """Prepare what is to happen in this process; ``"a, b"`` is both."""
    import resource

    for one in filter(None, kind.split(", ")):
        if one == "slow":
            _slow_down()
        elif one == "few files":
            free = os.open(os.devnull, os.O_RDONLY)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        elif one == "small files":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        elif one == "no rights":
            give_up_rights()
        elif one == "clock goes back":
            _turn_back()
        elif " at image " in one:
            what, _, image = one.partition(" at image ")
            _before_image(int(image), partial(_make_trouble, what))
        else:
            what, _, epoch = one.partition(" in epoch ")
            _before_epoch(int(epoch), _poison if what == "NaN" else lambda _, what=what: _make_trouble(what))


def _turn_back() -> None:
    begun, real = time.time(), time.time
    time.time = lambda: begun - 100 * (real() - begun)


def _slow_down() -> None:
    from glas_wsol.networks import MinMaxEntropyNetwork

    forward, answer = MinMaxEntropyNetwork.forward, MinMaxEntropyNetwork.answer
    MinMaxEntropyNetwork.forward = lambda self, image: time.sleep(0.1) or forward(self, image)
    MinMaxEntropyNetwork.answer = lambda self, image: time.sleep(0.3) or answer(self, image)


def _before_image(number: int, act: Callable[[], None]) -> None:
    from glas_wsol.networks import MinMaxEntropyNetwork

    answer, seen = MinMaxEntropyNetwork.answer, []

    def answered(self: Any, image: Any) -> Any:
        seen.append(image)
        if len(seen) == number:
            act()
        return answer(self, image)

    MinMaxEntropyNetwork.answer = answered


def _before_epoch(number: int, act: Callable[[Any], None]) -> None:
    from glas_wsol.handlers import EpochSeed

    begin = EpochSeed.__call__

    def begun(self: EpochSeed, engine: Any) -> None:
        begin(self, engine)
        if engine.state.epoch == number:
            act(engine)

    EpochSeed.__call__ = begun


def _poison(engine: Any) -> None:
    next(iter(engine.network.parameters())).data.fill_(float("nan"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too; of a training, what is to be the same: the models."""
    there = folder / "models" if (folder / "models").is_dir() else folder
    found = {p.relative_to(there).as_posix(): p.read_bytes() for p in sorted(there.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if name != "clock.json"}  # seconds


def finished(folder: Path) -> int:
    """How many images a run has recorded; of a training, whether it has finished an epoch."""
    record = folder / "finished.jsonl"
    if record.is_file():
        return max(0, len(record.read_bytes().split(b"\n")) - 2)
    clock = folder / "models" / "clock.json"
    return len(json.loads(clock.read_bytes())) if clock.is_file() else 0


def make_inputs(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Tiles, one of them cut off, and a model whose heads nobody trained."""
    import numpy as np
    from PIL import Image

    from glas_wsol.data.phantom.tissue import tissue_tile
    from glas_wsol.handlers import write_model
    from glas_wsol.networks import build_network

    tiles = folder / "tiles"
    tiles.mkdir(parents=True)
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        tile, _ = tissue_tile(generator, bool(number % 2), (104 + number // 3, 155), scale=0.25)
        Image.fromarray(tile).save(tiles / f"tile_{number}.png")
    damaged = tiles / f"tile_{count // 2}.png"
    damaged.write_bytes(damaged.read_bytes()[:500])
    network = build_network({}, trunk="efficientnet_lite0", weights="package", num_classes=2, seed=seed)
    card = {"trunk": "efficientnet_lite0", "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}
    write_model(network, folder / "model", {**card, "network": network.settings()})
    return {"dataset_dir": str(tiles), "checkpoint": str(folder / "model" / "model.pt"), "device": "cpu"}


class Undisturbed:
    """Runs that nothing happens to, each made when it is first needed.

    Args:
        folder: to work in.
        tiles: images of inference.
        seed: of the images.
    """

    def __init__(self, folder: Path, tiles: int, seed: int) -> None:
        self.folder, self.tiles, self.seed = folder, tiles, seed
        self.settings: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.files: dict[str, dict[str, bytes]] = {}

    def run(self, kind: str) -> dict[str, bytes]:
        """The files of one, after a run that warms the machine up."""
        if kind in self.files:
            return self.files[kind]
        if kind == "inference":
            self.settings[kind] = make_inputs(self.folder, self.tiles, self.seed)
            Run(self.folder / f"warm_{kind}", self.settings[kind], kind).finish()
        else:
            from glas_wsol.data.phantom.tissue import write_tissue_phantom

            phantom = write_tissue_phantom(self.folder / "phantom", **PHANTOM)
            self.settings[kind] = {**TRAINING, "dataset_dir": str(phantom)}
        begun = time.monotonic()
        run = Run(self.folder / f"undisturbed_{kind}", self.settings[kind], kind)
        status = run.finish()
        self.seconds[kind] = time.monotonic() - begun
        if status != ENDS[kind]:
            raise SystemExit(f"the undisturbed run ended with status {status}\n{run.log.read_text()[-2000:]}")
        found = self.files[kind] = contents(run.output)
        if kind == "inference":
            masks = [name for name in found if name.startswith("masks/")]
            shares = [entry["decidable_fraction"] for entry in json.loads(found["predictions.json"])]
            assert len(masks) == self.tiles - 1, masks
            assert all(0 < share < 1 for share in shares), "masks to compare"
        return found

    def said(self, kind: str) -> str:
        """What there is to compare with, in words."""
        found = self.run(kind)
        return f"Undisturbed {kind}: {self.seconds[kind]:.1f} s, status {ENDS[kind]}, {len(found)} files compared."
