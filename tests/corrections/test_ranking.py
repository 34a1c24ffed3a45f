# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Which images to correct first: the uncertain ones, no two alike, none without evidence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol.__main__ import main
from glas_wsol.corrections.ranking import suggest
from glas_wsol.errors import ConfigError, ImageFileError, OutputError

COLOURS = {"a": 200, "a_again": 200, "b": 120, "sure": 160, "blank": 250}
UNCERTAINTY = {"a": 0.5, "a_again": 0.49, "b": 0.4, "sure": 0.01, "blank": 0.9}


def run(folder: Path, **changes: object) -> Path:
    """Results of five images; two look alike, one has no evidence."""
    random = np.random.default_rng(0)
    entries = []
    for name, colour in COLOURS.items():
        Image.fromarray((colour + random.integers(0, 4, (40, 60, 3))).astype(np.uint8)).save(folder / f"{name}.png")
        entry = {"name": name, "path": str(folder / f"{name}.png"), "evidence": name != "blank", "familiarity": None}
        entries.append(entry | {"uncertainty": UNCERTAINTY[name], "decidable_fraction": 0.5} | changes)
    (folder / "predictions.json").write_text(json.dumps(entries))
    return folder


def test_uncertain_images_come_first_and_no_two_alike(tmp_path):
    found = suggest(run(tmp_path), 2)
    assert [one.name for one in found] == ["a", "b"], "a_again is as uncertain as a, and shows the same"
    assert (found[0].novelty, found[0].why) == (1, "uncertain: 1. of 4")
    assert found[1].why == f"uncertain: 3. of 4; new: {found[1].novelty:.2f}"
    assert sorted(one.name for one in suggest(tmp_path, 9)) == ["a", "a_again", "b", "sure"]


def test_unfamiliar_images_come_before_familiar_ones(tmp_path):
    entries = json.loads((run(tmp_path) / "predictions.json").read_text())
    for entry, familiarity in zip(entries, (0.9, 0.005, 0.8, 0.7, 0.1), strict=True):
        entry["familiarity"] = familiarity
    (tmp_path / "predictions.json").write_text(json.dumps(entries))
    (first,) = suggest(tmp_path, 1)
    assert (first.name, first.why) == ("a_again", "uncertain: 2. of 4; unlike the training images")


def test_command_prints_and_writes_what_predict_takes(tmp_path, capsys):
    assert main(["suggest", str(run(tmp_path)), "-n", "1", "--output", str(tmp_path / "first.csv")]) == 0
    assert "  1. a: entropy 0.500; uncertain: 1. of 4\n" in capsys.readouterr().out
    with (tmp_path / "first.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["image"], row["familiarity"]) == (str(tmp_path / "a.png"), "")


def test_what_cannot_be_ranked_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="-n 0"):
        suggest(run(tmp_path), 0)
    (tmp_path / "b.png").unlink()
    with pytest.raises(ImageFileError, match=r"b\.png"):
        suggest(tmp_path)
    with pytest.raises(OutputError, match="name its folder"):
        suggest(tmp_path.parent)
    with pytest.raises(OutputError, match="no image has evidence"):
        suggest(run(tmp_path, evidence=False))
    with pytest.raises(OutputError, match="not one that a run writes"):
        suggest(run(tmp_path, uncertainty="much"))
    entries = json.loads((run(tmp_path) / "predictions.json").read_text())
    del entries[0]["uncertainty"]
    for content, said in ((json.dumps(entries), "have no 'uncertainty'"), ("{", "cannot be read"), ("3", "cannot")):
        (tmp_path / "predictions.json").write_text(content)
        with pytest.raises(OutputError, match=said):
            suggest(tmp_path)
