# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Bad places, tables, weights and settings: one line, a status, and nothing left that looks like a result."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from glas_wsol.bundle.command_line import refuse_unknown_ids
from glas_wsol.data import images_datalist, load_datalist
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.errors import GlasWsolError
from glas_wsol.networks import build_network
from glas_wsol.networks.weights import read_state_dict
from tests.reliability.conftest import CARD, CONFIGS, ROOT, Ended, everything, one_line, rows, run
from tests.reliability.files import encoded, picture


@pytest.fixture
def image(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(picture(), "PNG"))
    return tmp_path / "in" / "a.png"


def nothing_left(folder: Path) -> bool:
    """Whether there is no file that could be taken for a result."""
    return not [name for name in everything(folder) if not name.startswith((".", "finished.jsonl"))]


# Places


@pytest.mark.parametrize("name", ["nowhere", "", "x" * 300, "a\0b", "broken", "empty folder", "notes.txt"])
def test_a_source_that_is_none(infer, tmp_path, name):
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "notes.txt").write_text("a\n")
    one_line(infer(tmp_path / name if name else "", tmp_path / "out"))
    assert nothing_left(tmp_path / "out")


def test_results_among_the_images_are_refused(infer, image):
    one_line(infer(image.parent, image.parent), "among the images", "another folder for the output")
    assert [path.name for path in image.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("recursive", [False, True])
def test_results_below_the_images_are_no_images(infer, image, recursive):
    for _ in range(2):
        assert infer(image.parent, image.parent / "out", recursive=recursive).status == 0
        assert [row["name"] for row in rows(image.parent / "out" / "predictions.csv")] == ["a"]


def test_an_output_that_is_a_file_or_cannot_be_written(infer, image, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        one_line(infer(image, place), "a file is in the way of --output", "choose another --output")
    assert (tmp_path / "file").read_text() == "mine"

    def refuse(**_: Any) -> None:  # root may write everywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    one_line(infer(image, tmp_path / "locked"), " cannot be written (Permission denied)")


# Tables


def table(tmp_path: Path, content: bytes) -> Path:
    for n in range(6):
        (tmp_path / f"a{n}.png").write_bytes(encoded(picture(n), "PNG"))
    (tmp_path / "list.csv").write_bytes(content)
    return tmp_path / "list.csv"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfimage\r\na0.png\r\na1.png\r\n",
        b"image;note\na0.png;x\na1.png;y\n",
        b'note,image\n"a, b",a0.png\n,"a1.png"\n',
        b"image\n./a0.png\n ../in/a1.png \n",
    ],
    ids=["BOM, CRLF", "semicolon", "quoted commas", "relative, spaces"],
)
def test_tables_as_spreadsheets_write_them_are_read(tmp_path, content):
    (tmp_path / "in").mkdir()
    found = images_datalist(table(tmp_path / "in", content))
    assert [Path(item["image"]).name for item in found] == ["a0.png", "a1.png"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["it is empty"]),
        (b"image\n", ["no rows"]),
        (b"picture\na0.png\n", ["no column 'image'"]),
        (b"image\na0.png\nb.png\na0.png\n\"=cmd|'calc'!A0\"\n", ["line 3", "line 4", "again", "line 5"]),
        (b"image\n../../../../nowhere/passwd\n", ["line 2", "is not a file"]),
        (b"image\n\xff\xfe\n", ["not UTF-8"]),
        (b'image\n"a0.png\n', ["quotes"]),
    ],
    ids=["empty", "header only", "missing column", "every fault at once", "traversal", "not UTF-8", "open quote"],
)
def test_settings_faulty_table_is_refused_before_computing(infer, tmp_path, content, words):
    one_line(infer(table(tmp_path, content), tmp_path / "out"), "list.csv", *words)
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a0.png,benign,train", "a1.png,malignant,train", "a2.png,bengin,test"], ["'bengin' is in test"]),
        (["a0.png,benign,train", "a1.png,malignant,train", "a0.png,benign,test"], ["line 4", "in train there"]),
        (["a0.png,benign,train", "a1.png,benign,train"], ["only label"]),
        (["a0.png,benign,train", "a1.png,Benign,train"], ["one class spelt twice"]),
        (["a0.png,benign,train", "a1.png,,sideways"], ["line 3: blank label", "'sideways' is not a split"]),
    ],
    ids=["unknown label", "in train and test", "one class", "spelt twice", "blank and unknown"],
)
def test_a_faulty_table_for_training(tmp_path, lines, words):
    with pytest.raises(GlasWsolError) as caught:
        load_datalist(table(tmp_path, "\n".join(["image,label,split", *lines, ""]).encode()))
    one_line(Ended(1, f"error: {caught.value}"), "list.csv", *words)


def test_a_label_with_a_space_behind_it_is_that_label(tmp_path):
    lines = [f"a{n}.png,{('benign', 'malignant ')[n % 2]},{'train' if n < 4 else 'valid'}" for n in range(6)]
    assert load_datalist(table(tmp_path, "\n".join(["image,label,split", *lines]).encode())).classes == (
        "benign",
        "malignant",
    )


def test_settings_label_like_a_formula_is_kept_unchanged(tmp_path):
    lines = [f"a{n}.png,{'+-'[n % 2]},{'train' if n < 4 else 'valid'}" for n in range(6)]
    assert set(load_datalist(table(tmp_path, "\n".join(["image,label,split", *lines]).encode())).classes) == {"+", "-"}


# Weights


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch owned",)


def state(model: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(model)


def _shuffled(model: Path, folder: Path, **changes: Any) -> Path:
    """The model with a card that says something else."""
    shutil.copy(model, folder / "model.pt")
    card = json.loads(model.with_suffix(".json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, **changes}))
    return folder / "model.pt"


def _written(folder: Path, data: bytes, name: str = "model.pt") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def _saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "model.pt")
    (folder / "model.json").write_text(json.dumps(CARD))
    return folder / "model.pt"


def _other(folder: Path, **arguments: Any) -> Path:
    return _saved(
        folder, build_network({}, **{"weights": "none", "num_classes": 2, "seed": 0, **arguments}).state_dict()
    )


WEIGHTS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "none": (lambda model, folder: folder / "model.pt", "no trained model"),
    "a folder": (lambda model, folder: folder, "no trained model"),
    "malicious pickle": (lambda model, folder: _written(folder, pickle.dumps(Malicious())), "plain tensors"),
    "malicious in a zip": (lambda model, folder: _saved(folder, {"a": Malicious()}), "plain tensors"),
    "cut": (lambda model, folder: _written(folder, model.read_bytes()[:-5000]), "model.pt"),
    "empty": (lambda model, folder: _written(folder, b""), "model.pt"),
    "text": (lambda model, folder: _written(folder, b"version https://git-lfs.github.com/spec/v1\n"), "model.pt"),
    "another digest": (lambda model, folder: _shuffled(model, folder, sha256="0" * 64), "not the one that model.json"),
    "three classes": (lambda model, folder: _other(folder, trunk=CARD["trunk"], num_classes=3), "of another shape"),
    "another backbone": (lambda model, folder: _other(folder, trunk="resnet18"), "weights of another network"),
    "a class more in the card": (
        lambda model, folder: _shuffled(model, folder, classes=["a", "b", "c"]),
        "of another shape",
    ),
    "an unknown network": (
        lambda model, folder: _shuffled(model, folder, network={"class": "Evil"}),
        "no network named",
    ),
    "a damaged card": (
        lambda model, folder: _shuffled(model, folder) and _written(folder, b"{", "model.json").with_suffix(".pt"),
        "cannot be read",
    ),
    "header bomb": (
        lambda model, folder: _written(folder, struct.pack("<Q", 1 << 62) + b"{}", "model.safetensors"),
        "damaged",
    ),
    "safetensors of no tensors": (lambda model, folder: _written(folder, b"{}", "model.safetensors"), "damaged"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_are_none_of_this_network(infer, model, image, tmp_path, kind, monkeypatch):
    make, words = WEIGHTS[kind]
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoint = make(model, tmp_path / "weights")
    one_line(infer(image, tmp_path / "out", checkpoint=str(checkpoint), trunk=CARD["trunk"]), words)
    assert nothing_left(tmp_path / "out")
    assert not (tmp_path / "owned").exists(), "nothing of a weights file is executed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": "ab"}, "a list of names"),
        ({"classes": [None, {}]}, "a list of names"),
        ({"scale": 1e7}, "at most 100"),
        ({"short_side": 10**9}, "from 1 to 100000"),
        ({"trunk": "$__import__('os').system('touch owned')"}, "no trunk named"),
        ({"network": 3}, "its settings are not valid"),
        ({"network": {"class": "os.system"}}, "no network named 'os.system'"),
        ({"network": {"weights": "https://192.0.2.1/x#sha256=" + "0" * 64}}, "weights"),
        ({"network": {"omega": "x"}}, "omega='x'"),
        ({"network": {"evil": 1}}, "evil"),
        ({"members": 3}, "its settings are not valid"),
        ({"alarm": {"score": "x", "verdict": "<b>"}}, "alarm"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_models_description_that_cannot_be(infer, model, image, tmp_path, changes, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    own = json.loads(model.with_suffix(".json").read_text())["network"]
    network = {**own, **changes["network"]} if isinstance(changes.get("network"), dict) else changes.get("network", own)
    checkpoint = _shuffled(model, tmp_path / "weights", **{**changes, "network": network})
    one_line(infer(image, tmp_path / "out", checkpoint=str(checkpoint)), words)
    assert nothing_left(tmp_path / "out")
    assert not (tmp_path / "owned").exists()


def said_to_be_of_a_gpu(path: Path) -> bytes:
    """The file, every tensor of which says that it was on the second GPU."""
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(changed, "w") as copy:
        for name in file.namelist():
            data = file.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\0\0\0cpu" in data
                data = data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:1")
            copy.writestr(name, data)
    return changed.getvalue()


@pytest.mark.parametrize("kind", ["module. prefix", "safetensors", "of a GPU"])
def test_weights_in_another_wrapping_give_the_same_result(infer, model, image, tmp_path, kind):
    (tmp_path / "weights").mkdir()
    network = json.loads(model.with_suffix(".json").read_text())["network"]
    (tmp_path / "weights" / "model.json").write_text(json.dumps({**CARD, "network": network}))
    if kind == "safetensors":
        path = tmp_path / "weights" / "model.safetensors"
        save_file(state(model), path)
    elif kind == "of a GPU":
        path = tmp_path / "weights" / "model.pt"
        torch.save(state(model), path)
        path.write_bytes(said_to_be_of_a_gpu(path))
    else:
        path = tmp_path / "weights" / "model.pt"
        torch.save({f"module.{name}": value for name, value in state(model).items()}, path)
    assert infer(image, tmp_path / "out", checkpoint=str(path)).status == 0
    assert infer(image, tmp_path / "expected").status == 0
    assert rows(tmp_path / "out" / "predictions.csv") == rows(tmp_path / "expected" / "predictions.csv")


# Settings

SMALLEST = {"seed": 0, "train": 8, "test": 2, "size": [64, 96], "scale": 0.1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "gpu"}, "device='gpu' is no device [settings]: give cpu"),
        ({"device": "cuda:9"}, "CUDA device"),
        ({"scales": "many"}, "scales"),
        ({"scales": [-1.0]}, "scales"),
        ({"flips": "sideways"}, "flips"),
        ({"stain": "PAS"}, "stain"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"max_pixels": "many"}, "max_pixels"),
        ({"trunk": "resnet34"}, "resnet34"),
        ({"num_workers": -1}, "num_workers=-1 [settings]: give a whole number from 0"),
        ({"num_workers": "two"}, "num_workers='two' [settings]: give a whole number from 0"),
        ({"overlays": "false"}, "overlays='false' [settings]: give True or False"),
        ({"scale": "x", "short_side": 0}, "scale='x', short_side=0 [settings]: scale: a number above 0, at"),
        ({"dataset_dir": 2024}, "put ./"),
        ({"classes": ["one"]}, ""),
        ({"classes": "ab"}, "a list of names"),
        ({"formats": 3}, "a list of them"),
        ({"postprocessing#min_box_area": 2}, "min_box_area"),
        ({"postprocessing#threshold": 2}, "threshold=2"),
        ({"dataloader#batchsize": 2}, "has no setting 'batchsize'|did you mean batch_size"),
        ({"dataloader#batch_size": 0}, "positive integer"),
        ({"scale": "@short_side", "short_side": "@scale"}, "in a circle [short_side]: give one of them"),
        ({"overlays": "@nowhere"}, "refers to 'nowhere', which is not there [@nowhere]: correct"),
        ({"inferer#factor": "$1/0"}, "cannot be computed (ZeroDivisionError: division by zero) [$1/0]"),
        ({"seed": "x"}, "[$monai.utils.set_determinism(seed=@seed)]"),
        ({"models": 3}, "its settings are not valid|correct what it is given: card, models, views"),
        ({"checkpoint": ["a.pt", "a.pt"]}, "the same model as a.pt [a.pt]"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be(infer, image, tmp_path, settings, words):
    one_line(infer(image.parent, tmp_path / "out", **settings), *words.split("|"))
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": -1, "crop_size": "a"}, "epochs=-1, crop_size='a' [settings]: epochs: a whole number from 1"),
        ({"batch_size": "x"}, "batch_size='x' [settings]: give a whole number from 1"),
        ({"passes": -1}, "passes=-1 [settings]: give 0 for no erasing"),
        ({"val_interval": 0}, "val_interval=0"),
        ({"pixel_std": [0, 0, 0]}, "three numbers above 0"),
        ({"amp": "maybe"}, "amp='maybe'"),
        ({"fused": "false", "channels_last": 1}, "channels_last=1, fused='false' [settings]: channels_last: True or"),
        ({"amp_dtype": "float8"}, "amp_dtype='float8' [settings]: give bfloat16 or float16"),
        ({"compiler": True}, "compiler=True [settings]: give null, or the name"),
        ({"dropout": "x"}, "dropout='x' [settings]"),
        ({"map_stride": "x"}, "map_stride=x"),
        ({"fold_seed": "x"}, "seed"),
        ({"data_device": "gpu"}, "data_device='gpu' is no device"),
        ({"vertical_flip": 7}, "a number from 0 to 1"),
        ({"device": "gpu"}, "device='gpu' is no device"),
        ({"fold": "nowhere"}, "nowhere"),
        ({"split": "none"}, "split='none' [settings]: give train, valid or test"),
        ({"phantom": 3}, "phantom=3 [settings]"),
        ({"output_dir": 3}, "--output_dir=3 [settings]: give a path; before a name that is a number put ./"),
        ({"ckpt_dir": 3}, "--ckpt_dir=3 [settings]: give a path; before a name that is a number put ./"),
        ({"ckpt_dir": __file__}, "a file is in the way of --ckpt_dir"),
        ({"optimizer#lr": -1}, "Invalid learning rate: -1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_of_a_training_that_cannot_be(tmp_path, capsys, settings, words):
    small = {"trunk": "resnet18", "weights": "none", "device": "cpu", "phantom": SMALLEST, "fold": "stratified-0"}
    files = [str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")]
    one_line(run("train", files, capsys, **{"output_dir": str(tmp_path / "out"), **small, **settings}), words)
    assert not (tmp_path / "out" / "models").exists()


@pytest.mark.parametrize("name", ["ouput_dir", "resum", "max_pixel", "dataloader2#batch_size"])
def test_a_setting_that_does_not_exist(name):
    argv = [
        str(ROOT / "bundle" / "__main__.py"),
        "run",
        "--config_file",
        str(CONFIGS / "inference.json"),
        f"--{name}",
        "1",
    ]
    with pytest.raises(GlasWsolError) as caught:
        refuse_unknown_ids(argv)
    one_line(Ended(1, f"error: {caught.value}"), name, "did you mean")


# Evaluation is strict: its figures are those of all images, or there are none.


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> dict[str, Any]:
    """A data set, and a floor that needs no training to be evaluated on it."""
    folder = tmp_path_factory.mktemp("evaluated")
    phantom = write_tissue_phantom(folder / "phantom", seed=0, train=12, test=3, size=(64, 96), scale=0.1)
    settings = {"dataset_dir": str(phantom), "fold": "stratified-0", "device": "cpu", "output_dir": str(folder / "run")}
    files = [str(CONFIGS / "train.json"), str(CONFIGS / "paper.json"), str(ROOT / "configs/methods/stain.json")]
    assert run("train", files, **settings).status == 0
    return {**settings, "split": "test", "checkpoint": str(folder / "run" / "models" / "model.pt"), "files": files}


def evaluate(evaluated: dict[str, Any], data: Path, output: Path, capsys: pytest.CaptureFixture) -> Ended:
    settings = {key: value for key, value in evaluated.items() if key != "files"}
    files = [*evaluated["files"], str(CONFIGS / "evaluate.json")]
    return run("train", files, capsys, **{**settings, "dataset_dir": str(data), "output_dir": str(output)})


def test_the_data_set_is_evaluated_as_long_as_it_is_whole(evaluated, tmp_path, capsys):
    assert evaluate(evaluated, Path(evaluated["dataset_dir"]), tmp_path / "out", capsys).status == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n"] == 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("image gone", "testA_2"),
        ("image empty", "empty"),
        ("mask of another size", "size"),
        ("mask in colours", "grey or palette"),
        ("mask damaged", "testA_2_anno"),
    ],
)
def test_settings_evaluation_with_a_bad_file_leaves_no_results(evaluated, tmp_path, capsys, kind, words):
    data = shutil.copytree(evaluated["dataset_dir"], tmp_path / "data")
    (image,) = data.rglob("testA_2.*")
    (mask,) = data.rglob("testA_2_anno.*")
    if kind == "image gone":
        image.unlink()
    else:
        changed = {
            "image empty": (image, b""),
            "mask of another size": (mask, encoded(picture(0, (20, 30)).convert("L"), "BMP")),
            "mask in colours": (mask, encoded(picture(0, (64, 96)), "BMP")),
            "mask damaged": (mask, mask.read_bytes()[:100]),
        }[kind]
        changed[0].write_bytes(changed[1])
    one_line(evaluate(evaluated, data, tmp_path / "out", capsys), words)
    assert not list((tmp_path / "out").rglob("evaluation.*"))
