# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from glas_wsol.__main__ import main
from glas_wsol.data import load_datalist


def manifest(folder: Path) -> dict:
    return json.loads((folder / "phantom.json").read_text())


def test_tissue_of_the_size_and_number_asked_for(tmp_path, capsys):
    words = ["--train", "3", "--test", "1", "--size", "64", "97", "--scale", "0.15", "--confounded", "--seed", "4"]
    assert main(["phantom", str(tmp_path / "p"), *words]) == 0
    out, err = capsys.readouterr()
    assert str(tmp_path / "p") in out
    assert "4/4" in err, "a progress bar"
    assert sorted(path.name for path in (tmp_path / "p").glob("*[0-9].bmp")) == [
        *("testA_1.bmp", "train_1.bmp", "train_2.bmp", "train_3.bmp")
    ]
    assert Image.open(tmp_path / "p" / "train_3.bmp").size == (97, 64)
    said = manifest(tmp_path / "p")
    assert (said["phantom"], said["scale"], said["confounded"], said["seed"]) == ("tissue", 0.15, True, 4)


def test_birds(tmp_path):
    assert (
        main(["phantom", str(tmp_path / "p"), "--kind", "birds", "--train", "5", "--test", "0", "--size", "48", "64"])
        == 0
    )
    assert len(list((tmp_path / "p" / "images").rglob("*.jpg"))) == 5
    assert manifest(tmp_path / "p")["phantom"] == "birds"


@pytest.mark.parametrize("words", [["--confounded"], ["--scale", "0.5"]])
def test_what_birds_do_not_have_is_refused(tmp_path, capsys, words):
    assert main(["phantom", str(tmp_path / "p"), "--kind", "birds", *words]) == 1
    assert f"leave out {words[0]}" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("kind", "train"), [("tissue", 6), ("tissue", 12), ("birds", 15)])
def test_phantom_of_any_size_works_with_what_it_says_next(tmp_path, capsys, kind, train):
    size = ["--size", "64", "97"] + (["--scale", "0.15"] if kind == "tissue" else [])
    assert main(["phantom", str(tmp_path / "p"), "--kind", kind, "--train", str(train), "--test", "2", *size]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    bundle = " --bundle cub" if kind == "birds" else ""
    assert said == f"next: python -m glas_wsol train {tmp_path / 'p'} --output OUT{bundle}"
    assert main(["data", str(tmp_path / "p")]) == 0
    assert "this phantom" in capsys.readouterr().out
    first, again = (load_datalist(tmp_path / "p") for _ in range(2))
    assert first == again
    assert {item.label for item in first.splits["valid"]} == {*range(len(first.classes))}
