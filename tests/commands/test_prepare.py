# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A downloaded data set is laid out whole or not at all, and everything that is wrong with it is named at once."""

from __future__ import annotations

import csv
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from glas_wsol.__main__ import main
from glas_wsol.data import load_datalist
from glas_wsol.data.glas import GLAS_VALID
from glas_wsol.data.phantom.birds import write_bird_phantom
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.data.prepare_archive import DISTRIBUTED, prepare
from glas_wsol.errors import ArchiveError, DatalistError, OutputError
from glas_wsol.utils.digests import sha256_of
from tests.reliability.conftest import Ended, everything, one_line
from tests.reliability.test_together import at_once

TITLE = "Warwick QU Dataset (Released 2016_07_08)"
FEW = replace(DISTRIBUTED["cub"], counts={"training images": 20, "test images": 5, "classes": 5})


@pytest.fixture(scope="module")
def warwick(tmp_path_factory) -> Path:
    """A folder with all 165 names of GlaS; every image is one of eight tiles of the phantom."""
    home = tmp_path_factory.mktemp("warwick")
    tiles = write_tissue_phantom(home / "tiles", train=8, test=0, size=(64, 81), scale=0.12)
    root, rows = home / TITLE, []
    root.mkdir()
    for part, count in DISTRIBUTED["glas"].counts.items():
        for number in range(1, count + 1):
            malignant = number in GLAS_VALID["malignant"] or (number not in GLAS_VALID["benign"] and number % 2)
            tile = (1, 3, 5, 7)[number % 4] if malignant else (2, 4, 6, 8)[number % 4]
            for kind in ("", "_anno"):
                shutil.copy(tiles / f"train_{tile}{kind}.bmp", root / f"{part}_{number}{kind}.bmp")
            rows.append([f"{part}_{number}", number % 17 + 1, " malignant" if malignant else " benign", " healthy"])
    with (root / "Grade.csv").open("w", newline="") as file:
        titles = ["name", " patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)"]
        csv.writer(file).writerows([titles, *rows])
    shutil.rmtree(tiles)
    return root


def zipped(root: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.iterdir()):
            file.write(path, f"{root.name}/{path.name}")
            file.writestr(f"__MACOSX/{root.name}/._{path.name}", "a shadow")
        file.writestr(f"__MACOSX/{root.name}/Grade.csv", "a shadow")
    return archive


@pytest.fixture(scope="module")
def archive(warwick) -> Path:
    return zipped(warwick, warwick.parent / "warwick.zip")


def test_an_archive_becomes_a_data_set_once(archive, warwick, tmp_path, capsys):
    output = tmp_path / "data" / "GLAS"
    digest = sha256_of(archive)
    assert main(["prepare", "glas", str(archive), str(output), "--sha256", digest]) == 0
    said = capsys.readouterr()
    assert f"ready: {output}\nnext: python -m glas_wsol train {output} --output OUT\n" in said.out
    assert [bar for bar in ("unpacking: ", "reading: ") if bar not in said.err] == []
    assert {path.name for path in output.iterdir()} == {path.name for path in warwick.iterdir()}
    assert (output / "testB_20_anno.bmp").read_bytes() == (warwick / "testB_20_anno.bmp").read_bytes()
    found = load_datalist(output)
    assert {split: len(items) for split, items in found.splits.items()} == {"train": 67, "valid": 18, "test": 80}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["GLAS"], "nothing temporary is left"
    stamp = (output / "train_1.bmp").stat()
    assert main(["prepare", "glas", str(archive), str(output)]) == 0
    assert "it was there already, and nothing was done" in capsys.readouterr().out
    assert (output / "train_1.bmp").stat() == stamp


def test_two_preparations_at_once_leave_one_whole_data_set(warwick, tmp_path):
    (tmp_path / "alone").mkdir()
    prepare("glas", [warwick], tmp_path / "alone" / "glas")
    ended = at_once(lambda: prepare("glas", [warwick], tmp_path / "glas"))
    assert "done" in ended
    for other in set(ended) - {"done"}:  # who came second, when the first had nearly done
        one_line(Ended(1, f"error: {other}"), "glas")
    assert everything(tmp_path / "glas") == everything(tmp_path / "alone" / "glas")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "glas"]


def test_a_folder_is_copied(warwick, tmp_path):
    (tmp_path / "there").mkdir()
    found, new = prepare("glas", [warwick.parent], tmp_path / "there")
    assert new
    assert found.source == str(tmp_path / "there")
    assert len(list(warwick.iterdir())) == 331, "the folder keeps its files"


def test_everything_missing_or_damaged_is_named_at_once(warwick, tmp_path, capsys):
    root = Path(shutil.copytree(warwick, tmp_path / TITLE))
    for name in ("train_17.bmp", "testA_60.bmp", "testA_60_anno.bmp", "testB_3_anno.bmp"):
        (root / name).unlink()
    (root / "train_40.bmp").write_bytes((root / "train_40.bmp").read_bytes()[:3000])
    with Image.open(root / "testB_7_anno.bmp") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(root / "testB_7_anno.bmp")
    shutil.copy(root / "train_1.bmp", root / "train_86.bmp")
    given = zipped(root, tmp_path / "bad.zip")
    with pytest.raises(DatalistError) as caught:
        prepare("glas", [given], tmp_path / "out")
    faults = list(caught.value.faults)
    assert sorted(faults[:5]) == [
        "testA_60.bmp is missing",
        "testA_60_anno.bmp is missing",
        "testB_3_anno.bmp is missing",
        "train_17.bmp is missing",
        "train_86 is none of the 165 images",
    ]
    assert len(faults) == 7, faults
    assert faults[5] == "testB_7_anno.bmp: 64 x 81 px, and its image 81 x 64 px"
    assert faults[6].startswith("train_40.bmp: ")
    assert {path.name for path in tmp_path.iterdir()} == {TITLE, "bad.zip"}, "nothing is laid out"
    assert main(["prepare", "glas", str(given), str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: 7 faults in the data: train_17.bmp is missing; ")


def test_grades_are_looked_at(warwick, tmp_path):
    root = Path(shutil.copytree(warwick, tmp_path / "glas"))
    text = (root / "Grade.csv").read_text()
    (root / "Grade.csv").write_text(text.replace("malignant", "severe", 1))
    with pytest.raises(DatalistError, match="grade 'severe' of"):
        prepare("glas", [root], tmp_path / "out")
    with pytest.raises(DatalistError, match="name a new folder to prepare it in"):
        prepare("glas", [root], root)


def test_what_cannot_be_used_is_refused(archive, tmp_path, capsys):
    with pytest.raises(ArchiveError, match="Gland Segmentation Challenge Contest"):
        prepare("glas", [tmp_path / "nowhere.zip"], tmp_path / "out")
    (tmp_path / "page.zip").write_text("<html>")
    with pytest.raises(ArchiveError, match="not a zip, tar"):
        prepare("glas", [tmp_path / "page.zip"], tmp_path / "out")
    with pytest.raises(ArchiveError, match="wrong SHA-256"):
        prepare("glas", [archive], tmp_path / "out", sha256=64 * "0")
    with pytest.raises(DatalistError, match=r"no folder has images.txt and classes.txt"):
        prepare("cub", [archive], tmp_path / "out")
    with pytest.raises(DatalistError, match=r"2 folders have Grade.csv.*: name one of them"):
        prepare("glas", [archive, archive], tmp_path / "out")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else than GlaS"):
        prepare("glas", [archive], tmp_path / "thesis")
    assert {path.name for path in tmp_path.iterdir()} == {"page.zip", "thesis"}
    words = ["prepare", "cub", str(archive), str(archive), str(tmp_path / "out"), "--sha256", 64 * "0"]
    assert main(words) == 1
    assert "one digest for several archives" in capsys.readouterr().err


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> tuple[Path, Path]:
    """The two archives of CUB-200-2011, with the five species of the phantom."""
    home = tmp_path_factory.mktemp("birds")
    root = write_bird_phantom(home / "CUB_200_2011", train=20, test=5, size=(48, 61))
    (root / "phantom.json").unlink()
    shutil.move(root / "segmentations", home / "segmentations")
    for name in ("CUB_200_2011", "segmentations"):
        with tarfile.open(home / f"{name}.tgz", "w:gz") as file:
            file.add(home / name, name)
    return home / "CUB_200_2011.tgz", home / "segmentations.tgz"


def test_birds_and_their_masks_come_in_two_archives(birds, tmp_path):
    found, new = prepare("cub", birds, tmp_path / "CUB", distributed=FEW)
    assert new
    items = [item for split in found.splits.values() for item in split]
    assert len(items) == 25
    assert all(
        item.mask == tmp_path / "CUB" / "segmentations" / item.image.parent.name / f"{item.name}.png" for item in items
    )
    assert not prepare("cub", birds, tmp_path / "CUB", distributed=FEW)[1]


def test_birds_without_masks_are_laid_out_too(birds, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DISTRIBUTED, "cub", FEW)
    assert main(["prepare", "cub", str(birds[0]), str(tmp_path / "CUB")]) == 0
    assert "there are no masks" in capsys.readouterr().out


def test_counts_and_files_of_birds_are_looked_at(birds, tmp_path):
    with pytest.raises(DatalistError, match="test images: 5 instead of 5794; classes: 5 instead of 200") as caught:
        prepare("cub", birds, tmp_path / "CUB")
    assert "training images: 20 instead of 5994" in caught.value.faults
    home = birds[0].parent
    shutil.copytree(home / "CUB_200_2011", tmp_path / "mine" / "CUB_200_2011")
    shutil.copytree(home / "segmentations", tmp_path / "mine" / "segmentations")
    first, second, third = sorted((tmp_path / "mine").rglob("*.jpg"))[:3]
    first.unlink()
    second.write_bytes(second.read_bytes()[:500])
    with pytest.raises(DatalistError) as caught:
        prepare("cub", [tmp_path / "mine"], tmp_path / "CUB", distributed=FEW)
    assert len(caught.value.faults) == 2
    assert first.name in caught.value.faults[0]
    assert second.name in caught.value.faults[1]
    for path in (first, second):
        shutil.copy(third, path)
    (tmp_path / "mine" / "segmentations" / third.parent.name / f"{third.stem}.png").unlink()
    with pytest.raises(DatalistError, match=f"segmentations: no mask of {third.stem}"):
        prepare("cub", [tmp_path / "mine"], tmp_path / "CUB", distributed=FEW)
    assert not (tmp_path / "CUB").exists()


def test_prepare_output_in_source_or_stray_digest_is_refused(warwick, archive, tmp_path):
    with pytest.raises(OutputError, match="lies in the one it is made from"):
        prepare("glas", [warwick], warwick / "ready")
    assert not list(warwick.glob(".*")), "nothing temporary is left"
    for sources in ([warwick], [archive, archive]):
        with pytest.raises(ArchiveError, match="a digest is of one archive"):
            prepare("glas", sources, tmp_path / "out", sha256="0" * 64)
    assert not list(tmp_path.iterdir())
