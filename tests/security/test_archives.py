# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Archives of strangers: nothing leaves the folder, nothing is half there, and each refusal says why in one line."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glas_wsol.data import archives
from glas_wsol.data.archives import Limits, extract
from glas_wsol.errors import ArchiveError, GlasWsolError, OutputError
from glas_wsol.utils.digests import sha256_of
from tests.reliability.conftest import tell

CONTENT = {"a/é.png": b"\x89PNG" * 700, "a/b/c.csv": b"image,label\n", "empty": b"", "inner.zip": b"PK\x03\x04"}


def zipped(members: dict[str, bytes], **options: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w:gz", form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(kind: bytes, name: str = "x", **more: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo(name)
        info.type = kind
        for key, value in more.items():
            setattr(info, key, value)
        file.addfile(info)
    return buffer.getvalue()


def zip_member(name: str = "x", data: bytes = b"x", mode: int = 0, **more: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        for key, value in more.items():
            setattr(info, key, value)
        file.writestr(info, data)
    return buffer.getvalue()


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "pack",
    [zipped, tarred, lambda c: tarred(c, "w"), lambda c: tarred(c, "w:gz", tarfile.GNU_FORMAT)],
    ids=["zip", "tar.gz", "tar", "tar.gz, GNU"],
)
def test_an_archive_is_unpacked_whatever_it_is_called(tmp_path, pack, capsys):
    (tmp_path / "data.png").write_bytes(pack(CONTENT))
    (tmp_path / "made").mkdir()
    for target in (tmp_path / "made", tmp_path / "deep" / "er"):
        assert extract(tmp_path / "data.png", target, sha256=sha256_of(tmp_path / "data.png")) == target
        assert everything(target) == CONTENT, "an archive within stays a file"
    assert not list(tmp_path.rglob("*.part"))
    assert capsys.readouterr().err == ""
    assert everything(extract(tmp_path / "data.png", tmp_path / "shown", progress=True)) == CONTENT
    assert "unpacking: " in capsys.readouterr().err


def test_permissions_of_the_archive_are_ignored(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_member(mode=stat.S_IFREG | 0o4777))
    (tmp_path / "a.tar").write_bytes(tar_member(tarfile.REGTYPE, mode=0o4777))
    for name in ("a.zip", "a.tar"):
        assert not (extract(tmp_path / name, tmp_path / name[2:]) / "x").stat().st_mode & 0o7111


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def lying_zip() -> bytes:
    """Says that its member has 10 bytes."""
    data = bytearray(zipped({"x": bytes(5000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, 10)
    return bytes(data)


def other_name_inside() -> bytes:
    return zipped({"good": b"x"}).replace(b"good", b"../a", 1)


NAMES: dict[str, str] = {
    "above": "../x",
    "above, deep": "a/b/../../../x",
    "above at the end": "a/..",
    "absolute": "/etc/x",
    "two slashes": "a//x",
    "a drive": "C:x",
    "a drive and a folder": "C:/x",
    "a backslash": "..\\..\\x",
    "a fraction slash": "..\u2044x",
    "a full-width slash": "..\uff0fx",
    "full-width dots": "\uff0e\uff0e/x",
    "written from the right": "gnp.\u202exe",
    "of no width": "a\u200b.png",
    "a line end": "a\nb",
    "an escape": "a\x1b[2J",
    "too deep": "/".join("a" * 40),
    "too long": "n" * 300,
    "a space at its end": "a /x",
    "a dot at its end": "a./x",
}
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    **{f"zip, {kind}": (lambda n=n: zip_member(n), "no plain name") for kind, n in NAMES.items()},
    **{f"tar, {kind}": (lambda n=n: tarred({n: b"x"}), "no plain name") for kind, n in NAMES.items()},
    "zip, a zero byte": (lambda: zip_member("aXb").replace(b"aXb", b"a\0b"), "no plain name"),
    "zip, a symbolic link": (lambda: zip_member(data=b"/etc", mode=stat.S_IFLNK | 0o777), "link"),
    "zip, a device": (lambda: zip_member(mode=stat.S_IFCHR | 0o666), "device"),
    "zip, encrypted": (
        lambda: zip_member().replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"),
        "encrypted",
    ),
    "zip, compressed otherwise": (lambda: zip_member(compress_type=zipfile.ZIP_LZMA), "unusual way"),
    "zip, duplicate": (lambda: zipped({"a/X.png": b"1", "A/x.png": b"2"}), "the same to some"),
    "zip, duplicate by composition": (lambda: zipped({"\u00e9": b"1", "e\u0301": b"2"}), "the same to some"),
    "zip, a file that is a folder": (lambda: zipped({"a": b"1", "a/b": b"2"}), "the same to some"),
    "zip, a bomb": (lambda: zipped({"x": bytes(70 << 20)}), "bomb"),
    "zip, many small bombs": (lambda: zipped({f"x{n}": bytes(1 << 20) for n in range(70)}), "bomb"),
    "zip, a lie about its size": (lying_zip, ""),
    "zip, another name inside": (other_name_inside, "damaged"),
    "zip, cut off": (lambda: cut(zipped(CONTENT)), "damaged"),
    "zip, nothing but its head": (lambda: b"PK\x03\x04", "damaged"),
    "zip, other bytes": (lambda: zip_member(data=b"abcdef").replace(b"abcdef", b"abcdeg"), "damaged"),
    "tar, a symbolic link": (lambda: tar_member(tarfile.SYMTYPE, linkname="/etc/passwd"), "link"),
    "tar, a hard link": (lambda: tar_member(tarfile.LNKTYPE, linkname="../../x"), "link"),
    "tar, a device": (lambda: tar_member(tarfile.BLKTYPE, devmajor=8), "device"),
    "tar, a pipe": (lambda: tar_member(tarfile.FIFOTYPE), "device"),
    "tar, a link and a file through it": (
        lambda: tar_member(tarfile.SYMTYPE, name="d", linkname="/etc")[:512] + tarred({"d/x": b"x"}, "w"),
        "link",
    ),
    "tar, duplicate": (lambda: tarred({"a.png": b"1", "A.PNG": b"2"}), "the same to some"),
    "tar, a bomb": (lambda: tarred({"x": bytes(70 << 20)}), "bomb"),
    "tar, a bomb behind its end": (lambda: gzip.compress(tarred({"x": b"x"}, "w") + bytes(20 << 20), 1), ""),
    "tar, cut off": (lambda: cut(tarred({"x": np.random.default_rng(0).bytes(9999)})), "damaged"),
    "tar, cut off, plain": (lambda: tarred({"x": bytes(99_999)}, "w")[:50_000], "damaged"),
    "tar, a negative size": (lambda: tarred({"x": b""}, "w").replace(b"00000000000\0", b"-0000000001\0", 1), ""),
    "gzip of no archive": (lambda: gzip.compress(b"hello\n" * 999), "damaged"),
    "gzip, damaged": (lambda: b"\x1f\x8b" + bytes(600), "damaged"),
    "text": (lambda: b"<html>not found</html>", "not a zip, tar"),
    "empty": (lambda: b"", "not a zip, tar"),
    "rar": (lambda: b"Rar!\x1a\x07\0" + bytes(600), "not a zip, tar"),
}
HARMLESS = {"tar, a bomb behind its end"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind not in HARMLESS])
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, kind):
    make, word = HOSTILE[kind]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(make())
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    with pytest.raises(ArchiveError, match=r"a\.zip") as caught:
        extract(tmp_path / "in" / "a.zip", tmp_path / "in" / "out")
    assert word in str(caught.value)
    assert "]: " in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    tell(kind, str(caught.value))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.zip"], "neither a result nor a part of one"
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents} == before


def test_limits_are_kept(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({f"{n}": b"12345" for n in range(20)}))
    (tmp_path / "a.tgz").write_bytes(tarred({f"{n}": b"12345" for n in range(20)}))
    for name in ("a.zip", "a.tgz"):
        with pytest.raises(ArchiveError, match="more than 19 members"):
            extract(tmp_path / name, tmp_path / "out", limits=Limits(files=19))
        with pytest.raises(ArchiveError, match="more than 99 bytes"):
            extract(tmp_path / name, tmp_path / "out", limits=Limits(total=99))
        assert len(everything(extract(tmp_path / name, tmp_path / name[2:], limits=Limits(files=20, total=100)))) == 20


def test_what_follows_the_end_of_a_tar_is_not_unpacked(tmp_path):
    (tmp_path / "a.tgz").write_bytes(HOSTILE["tar, a bomb behind its end"][0]())
    assert everything(extract(tmp_path / "a.tgz", tmp_path / "out")) == {"x": b"x"}


def test_another_archive_than_the_one_expected(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(CONTENT))
    with pytest.raises(ArchiveError, match="wrong SHA-256"):
        extract(tmp_path / "a.zip", tmp_path / "out", sha256="0" * 64)
    with pytest.raises(ArchiveError, match="no such archive"):
        extract(tmp_path / "b.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(CONTENT))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    for target in (tmp_path / "out", tmp_path / "out" / "mine"):
        with pytest.raises(OutputError, match="something here already"):
            extract(tmp_path / "a.zip", target)
    with pytest.raises(OutputError, match="cannot be unpacked here"):
        extract(tmp_path / "a.zip", tmp_path / "out" / "mine" / "below")
    assert everything(tmp_path / "out") == {"mine": b"mine"}


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped(CONTENT))
    opened = Path.open

    def full(path, mode="r", *args, **more):
        if mode == "xb" and path.name == "c.csv":
            raise OSError(28, os.strerror(28))
        return opened(path, mode, *args, **more)

    monkeypatch.setattr(archives.Path, "open", full)
    with pytest.raises(OutputError, match="No space left"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("pack", [zipped, tarred, lambda content: tarred(content, "w")], ids=["zip", "tar.gz", "tar"])
def test_damaged_archives_end_in_success_or_a_typed_error(tmp_path, pack):
    good, moments, ends = pack(CONTENT), np.random.default_rng(0), set()
    for number in range(60):
        data = bytearray(good)
        for place in moments.integers(0, len(data), moments.choice((1, 3, 20))):
            data[place] = moments.integers(256)
        (tmp_path / "a").write_bytes(data)
        try:
            extract(tmp_path / "a", tmp_path / f"{number}")
            ends.add("success")
        except GlasWsolError as error:
            ends.add(type(error).__name__ if "\n" not in str(error) else str(error))
        assert not list(tmp_path.glob(".*"))
    assert "ArchiveError" in ends
    assert ends <= {"ArchiveError", "success"}
