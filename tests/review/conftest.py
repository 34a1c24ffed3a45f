# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Results as predict leaves them, and a browser that has opened their page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from glas_wsol.results.localization import Localization
from glas_wsol.review.app import review_app
from glas_wsol.review.guard import Guard
from glas_wsol.review.learning_job import LearningJob
from glas_wsol.review.review_run import ReviewRun
from glas_wsol.review.saved_outlines import OutlineStore
from glas_wsol.writers.drawing import write_png
from glas_wsol.writers.entries import entry_of
from glas_wsol.writers.formats import write_localization

HEIGHT, WIDTH = 60, 100
HOST = "127.0.0.1:8000"
NAMES = ("plain", "<script>alert(1)</script>".replace("/", "|"), "blank")


def soft_map() -> np.ndarray:
    """A gland on the left, surest in its middle, with a hole; a small one on the right; no symmetry."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    gland = 0.9 - np.hypot((rows - 25) / 25, (columns - 30) / 30) / 2
    gland[(rows - 25) ** 2 + (columns - 30) ** 2 < 16] = 0.1
    small = 0.8 - np.hypot(rows - 40, columns - 85) / 20
    return np.maximum(gland, small).clip(0, 1).astype(np.float32)


def results(folder: Path, formats: tuple[str, ...] = ("png", "png_map", "uncertainty")) -> Path:
    """Three tiles beside their results; the last shows no evidence."""
    out, tiles = folder / "out", folder / "tiles"
    out.mkdir(parents=True)
    tiles.mkdir()
    entries = []
    for place, name in enumerate(NAMES):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[..., 0], image[: HEIGHT // 2, :, 1], image[:, : WIDTH // 4, 2] = 200 + place, 90, 60
        write_png(tiles / f"{name}.png", image)
        values, p = (soft_map(), 0.75) if name != "blank" else (np.zeros((HEIGHT, WIDTH), np.float32), 0.5)
        found = Localization(
            name,
            str(tiles / f"{name}.png"),
            ("benign", "malignant"),
            (1 - p, p),
            values,
            name != "blank",
            image=image,
            mpp=(0.5, 0.5),
        )
        write_localization(out, found, formats)
        entries.append(entry_of(found))
    (out / "predictions.json").write_text(json.dumps(entries), encoding="utf-8")
    return out


@pytest.fixture
def run(tmp_path) -> ReviewRun:
    return ReviewRun(results(tmp_path))


def application(run: ReviewRun, job: LearningJob | None = None, who: str = "A. Person") -> Guard:
    job = job or LearningJob(run.root, "", "", (), run.take_learnt)
    suggest = [{"name": "plain", "why": "uncertain"}]
    return Guard(
        review_app(run, OutlineStore(run.root, who), job, lambda folder, n: suggest[:n]),
        [HOST, "localhost:8000"],
        "word",
    )


def browser(app: Guard, *, opened: bool = True) -> TestClient:
    client = TestClient(app, base_url=f"http://{HOST}", headers={"Origin": f"http://{HOST}"})
    if opened:
        assert client.get("/?token=word").status_code == 200
    return client


@pytest.fixture
def client(run) -> TestClient:
    return browser(application(run))


def square(left: float, top: float, side: float) -> dict:
    right, bottom = left + side, top + side
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring]}


def put(client: TestClient, version: str, outlines: list, state: str = "in work", case: int = 0):
    body = {"outlines": outlines, "state": state}
    return client.put(f"/api/cases/{case}/outlines", json=body, headers={"If-Match": version})
