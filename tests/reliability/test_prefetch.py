# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Inference that reads, predicts and writes at the same time keeps every promise; images of one size go together."""

from __future__ import annotations

import json
import threading
import weakref
from pathlib import Path

import pytest

from glas_wsol.engines.fault_tolerant_evaluator import TolerantDataset
from glas_wsol.errors import ImageFileError
from glas_wsol.handlers import saver
from glas_wsol.networks import MinMaxEntropyNetwork
from glas_wsol.results.postprocessing import LocalizePredictiond
from glas_wsol.utils import atomic_files as atomic
from tests.reliability.conftest import everything, one_line, rows
from tests.reliability.files import encoded, picture

SIZES = [(45, 64), (45, 64), (45, 64), (64, 45), (64, 45), (45, 64), (70, 50)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven images of three sizes, and one, after the second, that cannot be read."""
    (tmp_path / "in").mkdir()
    for n, size in enumerate(SIZES):
        (tmp_path / "in" / f"{n}.png").write_bytes(encoded(picture(n, size), "PNG"))
    (tmp_path / "in" / "1b.png").write_bytes(b"no image")
    return tmp_path / "in"


def finished(out: Path) -> list[str]:
    lines = (out / "finished.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    return [json.loads(line)["name"] for line in lines]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_bytes_are_those_of_one_step_after_the_other(infer, folder, tmp_path, workers):
    assert infer(folder, tmp_path / "before", prefetch=False, formats=["png", "png_map", "geojson"]).status == 3
    ended = infer(folder, tmp_path / "after", prefetch=True, formats=["png", "png_map", "geojson"], num_workers=workers)
    assert ended.status == 3
    assert everything(tmp_path / "after") == everything(tmp_path / "before")
    assert len(finished(tmp_path / "after")) == len(SIZES)


def test_one_is_written_while_the_next_is_predicted(infer, folder, tmp_path, monkeypatch):
    predicted, writers, names = threading.Event(), set(), []
    answer, write = MinMaxEntropyNetwork.answer, saver.write_localization

    def predicting(self, image):
        names.append("predicted")
        if len(names) > 1:
            predicted.set()
        return answer(self, image)

    def writing(output, found, *args, **kwargs):
        writers.add(threading.current_thread().name)
        if found.name == "0":
            assert predicted.wait(30), "the second image is predicted while the first is written"
        assert found.name not in finished(output), "the line comes when all files are there"
        return write(output, found, *args, **kwargs)

    monkeypatch.setattr(MinMaxEntropyNetwork, "answer", predicting)
    monkeypatch.setattr(saver, "write_localization", writing)
    assert infer(folder, tmp_path / "out", prefetch=True).status == 3
    assert finished(tmp_path / "out") == [row["name"] for row in rows(tmp_path / "out" / "predictions.csv")]
    assert threading.current_thread().name not in writers


def test_disk_full_in_writing_stops_and_a_rerun_continues(infer, folder, tmp_path, monkeypatch):
    replace, full = Path.replace, []

    def no_room(path, target):
        if Path(target).name == "3.png":
            full.append(1)
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.Path, "replace", no_room)
        one_line(infer(folder, tmp_path / "out", prefetch=True), "cannot be written", "No space left", "3.png")
    assert full == [1]
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert finished(tmp_path / "out") == ["0", "1", "2"], "those before are done, nothing after was begun"
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["0.png", "1.png", "2.png"]
    assert not [t for t in threading.enumerate() if t.name.startswith("writing")]
    assert infer(folder, tmp_path / "out", prefetch=True).status == 3
    infer(folder, tmp_path / "undisturbed", prefetch=True)
    assert everything(tmp_path / "out") == everything(tmp_path / "undisturbed")


def test_failures_to_write_are_told_in_the_order_of_the_images(infer, folder, tmp_path, monkeypatch):
    write = saver.write_localization

    def writing(output, found, *args, **kwargs):
        if found.name in ("1", "6"):  # just before one that cannot be read, and the very last
            raise ImageFileError("has no size of pixels", found.path, "give mpp")
        return write(output, found, *args, **kwargs)

    monkeypatch.setattr(saver, "write_localization", writing)
    ended = infer(folder, tmp_path / "out", prefetch=True)
    assert ended.status == 3
    found = [(Path(row["image"]).name, row["stage"]) for row in rows(tmp_path / "out" / "failed.csv")]
    assert found == [("1.png", "write"), ("1b.png", "read"), ("6.png", "write")]
    assert "3 of 8 images failed" in ended.said
    assert sorted(path.stem for path in (tmp_path / "out" / "masks").iterdir()) == ["0", "2", "3", "4", "5"]
    assert finished(tmp_path / "out") == ["0", "2", "3", "4", "5"]


@pytest.mark.parametrize(("size", "together"), [(3, [2, 1, 2, 1, 1]), (8, [3, 2, 1, 1])])
def test_batch_of_one_size_has_the_masks_of_single_images(infer, folder, tmp_path, monkeypatch, size, together):
    infer(folder, tmp_path / "alone", prefetch=True, formats=["png", "json"])
    answer, seen = MinMaxEntropyNetwork.answer, []
    monkeypatch.setattr(MinMaxEntropyNetwork, "answer", lambda self, x: seen.append(len(x)) or answer(self, x))
    assert infer(folder, tmp_path / "out", prefetch=True, batch_size=size, formats=["png", "json"]).status == 3
    assert seen == together
    one, other = everything(tmp_path / "alone"), everything(tmp_path / "out")
    masks = [name for name in one if name.startswith("masks/")]
    assert len(masks) == len(SIZES)
    assert all(one[name] == other[name] for name in masks)
    assert [row["name"] for row in rows(tmp_path / "out" / "predictions.csv")] == [str(n) for n in range(len(SIZES))]
    for before, after in zip(*(rows(tmp_path / k / "predictions.csv") for k in ("alone", "out")), strict=True):
        assert before["class"] == after["class"]
        assert float(before["probability"]) == pytest.approx(float(after["probability"]), abs=2e-6)
    assert one["failed.csv"] == other["failed.csv"]
    again = infer(folder, tmp_path / "out", prefetch=True, formats=["png", "json"])
    assert "batch_size was" in again.log, "bits may differ: a run does not go on with another size"


def test_images_that_fail_together_are_tried_alone(infer, folder, tmp_path, monkeypatch):
    infer(folder, tmp_path / "alone", prefetch=True)
    answer, seen = MinMaxEntropyNetwork.answer, []

    def little_memory(self, image):
        seen.append(len(image))
        if len(image) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        prediction, logits = answer(self, image)
        return (prediction * float("nan") if seen == [3, 1, 1] else prediction), logits

    monkeypatch.setattr(MinMaxEntropyNetwork, "answer", little_memory)
    assert infer(folder, tmp_path / "out", prefetch=True, batch_size=8).status == 3
    assert seen == [3, 1, 1, 1, 2, 1, 1, 1, 1]
    found = [(Path(row["image"]).name, row["stage"]) for row in rows(tmp_path / "out" / "failed.csv")]
    assert found == [("1.png", "localize"), ("1b.png", "read")], "the bad one, in the order of the images"
    masks = {name: data for name, data in everything(tmp_path / "alone").items() if name.startswith("masks/")}
    del masks["masks/1.png"]
    assert masks == {k: data for k, data in everything(tmp_path / "out").items() if k.startswith("masks/")}


def test_few_images_are_held_at_a_time(infer, folder, tmp_path, monkeypatch):
    read, found, most = [], [], [0, 0]
    transform, localize = TolerantDataset._transform, LocalizePredictiond.__call__

    def reading(self, index):
        item = transform(self, index)
        read.extend([weakref.ref(item["image"])] if isinstance(item, dict) else [])
        return item

    def localizing(self, data):
        item = localize(self, data)
        found.append(weakref.ref(item["localization"]))
        for place, held in enumerate((read, found)):
            most[place] = max(most[place], sum(one() is not None for one in held))
        return item

    monkeypatch.setattr(TolerantDataset, "_transform", reading)
    monkeypatch.setattr(LocalizePredictiond, "__call__", localizing)
    assert infer(folder, tmp_path / "out", prefetch=True).status == 3
    assert (len(read), len(found)) == (len(SIZES), len(SIZES))
    assert max(most) <= 4, "one is predicted, one waits to be written, one is written, one has just been"
