# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Folders as runs leave them, written by the handlers that write them, and pages as a reader of HTML sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from glas_wsol.handlers import EvaluationReport, LocalizationSaver
from glas_wsol.metrics import ClassificationError, RegionF1
from glas_wsol.results.class_scores import ClassProbabilities, ClassScores
from glas_wsol.results.provenance import Provenance, RunAlarm
from glas_wsol.results.verdict import Verdict
from glas_wsol.writers.drawing import write_png
from tests.handlers.conftest import item
from tests.metrics.conftest import evaluate

VOID = {"meta", "img", "input", "br"}


def tile(seed: int, size: tuple[int, int] = (40, 70)) -> np.ndarray:
    """Tissue-coloured, brighter to the right and below, so that no flip or transposition leaves it."""
    generator = np.random.default_rng(seed)
    down, across = np.linspace(0, 40, size[0])[:, None, None], np.linspace(0, 60, size[1])[None, :, None]
    noise = generator.uniform(0, 12, (*size, 1))
    return (np.array([120.0, 60.0, 110.0]) + down + across + noise).clip(0, 255).astype(np.uint8)


def case(folder: Path, name: str, p: float = 0.75, label: int = 1, file: str = "", **more: Any) -> dict[str, Any]:
    """An item whose image is a file, named after it or as given; ``class_scores=True`` for one with all of them."""
    size, class_scores = more.pop("size", (40, 70)), more.pop("class_scores", False)
    made = item(name, p, label, size=size, **more)
    path = folder / "tiles" / (file or f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_png(path, tile(len(name), size))
    found = replace(made["localization"], path=str(path))
    if class_scores:
        said = ClassScores(
            ClassProbabilities((0.4, 0.6)), ClassProbabilities((1 - p, p)), ClassProbabilities((0.5, 0.5))
        )
        found = replace(found, class_scores=said)
    made["localization"] = found
    if "truth" in made:
        made["truth_path"] = str(folder / "truth" / path.name)
        Path(made["truth_path"]).parent.mkdir(exist_ok=True)
        write_png(made["truth_path"], made["truth"][0].numpy())
    return made


def inference(folder: Path, items: Sequence[dict], alarm: tuple[float, str] | None = None, **options: Any) -> Path:
    """What inference leaves, ``failed.csv`` aside."""
    judged = None if alarm is None else RunAlarm(alarm[0], Verdict.read(alarm[1]))
    made_of = Provenance(("ab" * 32,), "minmax", "resnet18", alarm=judged)
    with_it = [
        {k: v for k, v in one.items() if k not in ("truth", "truth_path")}
        | {"localization": replace(one["localization"], provenance=made_of)}
        for one in items
    ]
    saver = LocalizationSaver(folder / "out", **options)
    evaluate({"e": ClassificationError()}, [[one] for one in with_it], [saver])
    return folder / "out"


def evaluation(folder: Path, items: Sequence[dict]) -> Path:
    """What an evaluation leaves, its weights beside."""
    out = folder / "run"
    (out / "models").mkdir(parents=True)
    (out / "models" / "model.pt").write_bytes(b"weights")
    metrics: dict[str, Any] = {"classification_error": ClassificationError()}
    for region in ("foreground", "background"):
        metrics |= {f"f1_{region}": RegionF1(region), f"floor_f1_{region}": RegionF1(region, "all_ones")}
    facts = {
        "method": "cam_avg",
        "classes": ["benign", "malignant"],
        "split": "test",
        "fold": "patient-2",
        "selection_rule": "fewest validation errors",
        "mask_threshold": 0,
    }
    handlers = [LocalizationSaver(out / "test"), EvaluationReport(out, facts, out / "models" / "model.pt")]
    evaluate(metrics, [[one] for one in items], handlers)
    return out


def training(folder: Path, epochs: int = 3, **card: Any) -> Path:
    """What a training leaves, taken up again after its second epoch."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    whole = {"method": "minmax", "trunk": "resnet18", "epoch": 2, "sha256": "cd" * 32, **card}
    (folder / "models" / "model.json").write_text(json.dumps(whole), encoding="utf-8")
    for first, last in ((1, 2), (2, epochs)):
        with SummaryWriter(str(folder / "tensorboard"), filename_suffix=f".{first}") as writer:
            for epoch in range(first, last + 1):
                writer.add_scalar("loss", 10.0 / epoch + first, epoch, walltime=100.0 * first + epoch)
                writer.add_scalar("selection_score", -epoch, epoch)
    return folder


class Page(HTMLParser):
    """Elements with their attributes, in order; the text of each; what scripts and styles hold."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [a for one, a in self.elements if one == tag and all(a.get(k) == v for k, v in wanted.items())]

    def inside(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("script", "style")).split())
