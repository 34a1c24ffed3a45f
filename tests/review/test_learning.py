# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Learning in the background: what is started, what it is given, its log, its end, and a cancel."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import pytest

from glas_wsol.review.learning_job import LearningJob
from tests.review.conftest import application, browser, put, square

# in the place of the program: says what it was given, and writes what predict does
PROGRAM = """
import csv, json, pathlib, sys, time
words = sys.argv[1:]
assert words[:2] == ["-m", "glas_wsol"], words
print("epoch 1  50 %\\repoch 1 100 %", flush=True)
if "--wait" in words:
    time.sleep(60)
if "--fail" in words:
    sys.exit("error: no such data")
output = pathlib.Path(words[words.index("--output") + 1])
output.mkdir(parents=True)
if words[2] == "predict":
    from PIL import Image
    (output / "masks").mkdir()
    rows = list(csv.DictReader(open(words[3])))
    for n, row in enumerate(rows):
        Image.new("L", (100, 60), 255 * (n == 0)).save(output / "masks" / f"case_{n}.png")
    entries = [dict(path=row["image"], name=f"case_{n}") for n, row in enumerate(rows)]
    (output / "predictions.json").write_text(json.dumps(entries))
"""


@pytest.fixture
def started(run, tmp_path, monkeypatch):
    code, program = tmp_path / "code.py", tmp_path / "program"
    code.write_text(PROGRAM)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{code}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def start(*settings: str, trained: tuple[int, ...] = (0, 1, 2), status: int = 200):
        rows = [f"{case.image},{'ab'[n > 0]},train" for n, case in enumerate(run.cases)]
        data, model = tmp_path / "data.csv", tmp_path / "model.pt"
        data.write_text("\n".join(["image,label,split", *(rows[n] for n in trained)]))
        model.touch()
        model.with_suffix(".json").write_text('{"classes": ["a", "b"]}')
        job = LearningJob(run.root, str(data), str(model), settings, run.take_learnt)
        client = browser(application(run, job))
        version = client.get("/api/cases/1/outlines").headers["etag"]
        assert put(client, version, [{"id": "a", "geometry": square(5, 5, 9)}], "accepted", 1).status_code == 200
        assert client.post("/api/learn", json={}).status_code == status
        return client

    return start


def ended(client) -> dict:
    for _ in range(600):
        state = client.get("/api/learn").json()
        if not state["running"]:
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def test_learning_ends_with_new_masks_beside_the_old(started, run):
    client = started("--epochs", "2")
    state = ended(client)
    assert state["step"] == "done", state["log"]
    lines = state["log"].splitlines()
    folder = run.root / "learnt_1"
    assert f"model.pt --corrections {folder / 'corrections'}" in lines[0]
    assert lines[0].endswith("--epochs 2")
    assert lines[1] == "epoch 1 100 %", "a bar is shown in its last state"
    names = [path.name for path in (folder / "corrections").iterdir()]
    assert names == [f"tiles__{run.cases[1].name}.geojson"], "as the training names the image"
    with (folder / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"image": str(Path(run.cases[1].image)), "mpp": "0.5"}, "accepted images come first"
    assert len(rows) == 3
    assert [row["new"] for row in client.get("/api/cases").json()] == [True, True, True]
    details = client.get("/api/cases/1").json()
    assert {"new", "changed"} <= {layer["key"] for layer in details["layers"]}
    assert client.get("/api/cases/1/tiles/changed/0/0/0").status_code == 200
    assert ended(client)["accepted"] == 1
    run.take_learnt(None)
    LearningJob(run.root, "", "", (), run.take_learnt)
    assert run.has_new(1), "the next review shows it too"


def test_failed_learning_shows_its_log(started):
    state = ended(started("--fail"))
    assert (state["step"], "error: no such data" in state["log"]) == ("failed", True)


def test_cancel_stops_the_process(started, run):
    client = started("--wait")
    assert client.post("/api/learn", json={}).status_code == 422, "one at a time"
    start = time.monotonic()
    client.delete("/api/learn")
    assert ended(client)["step"] == "cancelled"
    assert time.monotonic() - start < 20
    assert not (run.root / "learnt_2").exists()


def test_nothing_is_learnt_without_data_or_corrections(client):
    assert "--data DATA" in client.get("/api/learn").json()["missing"]
    assert "accept those of one image" in client.post("/api/learn", json={}).json()["error"]
    version = client.get("/api/cases/0/outlines").headers["etag"]
    put(client, version, [], "accepted")
    assert "--data DATA" in client.post("/api/learn", json={}).json()["error"]
    assert json.loads(client.get("/api/suggestions?n=1").text) == [{"name": "plain", "why": "uncertain"}]


def test_image_that_was_not_trained_on_is_not_learnt_from(started, run):
    client = started(trained=(0, 2), status=422)
    error = client.post("/api/learn", json={}).json()["error"]
    assert error.startswith("none of the 1 accepted image is among the training images")
    assert not (run.root / "learnt_1").exists()
