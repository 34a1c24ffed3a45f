# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Unpack untrusted archives: whole into a new folder, or not at all, and never outside of it."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tqdm import tqdm

from glas_wsol.data.files import folded
from glas_wsol.errors import FIX_ROOM, ArchiveError, OutputError
from glas_wsol.utils.digests import sha256_of

__all__ = ["Limits", "extract"]

_SEPARATORS = frozenset("\\/:\u2044\u2215\u29f8\uff0f\uff3c\u2024\uff0e\u2025\uff1a\ufe55")
"""Characters that are, or that some system turns into, a slash, a dot or a colon; the plain dot is checked apart."""


class Limits(NamedTuple):
    """Limits of what an archive may unpack to.

    Attributes:
        total: bytes of all files together. Default: 20 GiB.
        files: how many files and folders. Default: 200,000.
        ratio: bytes unpacked per byte of the archive; checked above 64 MiB. Default: 100, where images have about 1
            and text 10.
        depth: folders within each other. Default: 32.
    """

    total: int = 20 << 30
    files: int = 200_000
    ratio: float = 100.0
    depth: int = 32


class _Member(NamedTuple):
    name: str
    is_folder: bool
    size: int  # bytes
    fault: str  # why it is refused, whatever its name; empty if it is not
    open: Callable[[], IO[bytes] | None]


def extract(
    archive: str | Path, target: str | Path, sha256: str = "", limits: Limits | None = None, progress: bool = False
) -> Path:
    """Unpack a zip, tar or tar.gz file, recognised by its content.

    Members are files and folders with plain relative names, nothing else; they get this process's own permissions, the
    archive's are ignored. Archives within the archive stay files. Everything is written beside ``target``, which
    appears when all is there.

    Args:
        target: folder to make; one that exists must be empty.
        sha256: digest the archive must have, 64 hexadecimal digits; empty (default) for any.
        limits: what it may be unpacked to; None (default) for :class:`Limits`' own.

    Raises:
        ArchiveError: if it is no such archive, a damaged or another one, or if a member is refused: a name that leads
            out of the folder or is ambiguous, a link, a device, two names that some file system takes for one, an
            encrypted member, too many bytes or files.
        OutputError: if the folder is not empty or not writable.
    """
    archive, target, limits = Path(archive), Path(target), limits or Limits()
    if not archive.is_file():
        raise ArchiveError("no such archive", archive, "give the path of a .zip, .tar or .tar.gz file")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError("there is something here already", target, "name a new folder")
    with _typed(archive, target):
        if sha256 and sha256_of(archive) != sha256.lower():
            raise ArchiveError("wrong SHA-256", archive, "download it again from its publisher")
        size = archive.stat().st_size
        most = min(limits.total, max(64 << 20, int(limits.ratio * size)))
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = target.parent / f".{uuid.uuid4().hex}.part"
        bar: dict[str, Any] = {"desc": "unpacking", "disable": not progress, "leave": False}
        try:
            whole.mkdir()
            with archive.open("rb") as file, tqdm.wrapattr(file, "read", total=size, **bar) as read:
                whole_file = cast("IO[bytes]", read)  # tqdm hands on every other method of the file
                _write(archive, _members(archive, whole_file, most, limits), whole, most, limits)
            if hasattr(os, "sync"):
                os.sync()  # once, instead of for each of thousands of files
            if target.exists():
                target.rmdir()
            whole.rename(target)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
    return target


@contextmanager
def _typed(archive: Path, target: Path) -> Iterator[None]:
    fix = "copy or download it again"
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise ArchiveError(f"a damaged archive ({error})", archive, fix) from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # an offset outside the archive
            raise ArchiveError(f"a damaged archive ({error})", archive, fix) from error
        what = f"the archive cannot be unpacked here ({error.strerror or error})"
        raise OutputError(what, target, FIX_ROOM) from error
    except (ValueError, RuntimeError, OverflowError) as error:  # zipfile: unknown method, password
        raise ArchiveError(f"a damaged or unusual archive ({error})", archive, fix) from error


def _refuse(archive: Path, what: str) -> None:
    raise ArchiveError(what, archive, "do not trust this archive, or unpack it yourself")


def _write(archive: Path, members: Iterator[_Member], folder: Path, most: int, limits: Limits) -> None:
    seen: dict[str, tuple[str, bool]] = {}
    written = 0
    for number, member in enumerate(members, start=1):
        said = _printable(member.name)
        written += member.size
        if number > limits.files:
            _refuse(archive, f"more than {limits.files} members")
        if member.fault:
            _refuse(archive, f"the member {said} is {member.fault}")
        if member.size < 0 or written > most:
            _refuse(archive, f"it unpacks to more than {most} bytes: a compression bomb, or a very large archive")
        name = member.name.rstrip("/") if member.is_folder else member.name
        parts = [part for part in name.split("/") if part != "."]
        if not 0 < len(parts) <= limits.depth or not all(map(_is_plain, parts)):
            _refuse(archive, f"the member {said} has no plain name: it may lead out of the folder, or is ambiguous")
        for length in range(1, len(parts) + 1):
            path, is_folder = "/".join(parts[:length]), member.is_folder or length < len(parts)
            other, was_folder = seen.get(folded(path), (path, True))
            if other != path or (folded(path) in seen and not (was_folder and is_folder)):
                _refuse(archive, f"the members {_printable(other)} and {said} are the same to some file systems")
            seen[folded(path)] = path, is_folder
        place = folder.joinpath(*parts)
        (place if member.is_folder else place.parent).mkdir(parents=True, exist_ok=True)
        content = None if member.is_folder else member.open()
        if content is not None:
            with content, place.open("xb") as file:
                shutil.copyfileobj(content, file)  # no more than its declared size: both kinds of archives ensure that
            if place.stat().st_size != member.size:
                raise ArchiveError("a damaged archive (it ends too early)", archive, "copy or download it again")


def _is_plain(part: str) -> bool:
    """Whether a part of a name means the same to every system, and is shown as it is."""
    shown = part.isprintable() and not _SEPARATORS & set(part)
    return bool(part) and shown and part == part.strip(" ") and part[-1] != "." and len(os.fsencode(part)) <= 255


def _printable(name: str) -> str:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _members(archive: Path, file: IO[bytes], most: int, limits: Limits) -> Iterator[_Member]:
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _in_zip(file)
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        source: Any = gzip.GzipFile(fileobj=file) if head[:2] == b"\x1f\x8b" else file
        # headers and padding come on top of the files themselves
        return _in_tar(_Counted(archive, source, most + 2048 * limits.files + (1 << 20)))
    raise ArchiveError("not a zip, tar or tar.gz file", archive, "download it again, or unpack it yourself")


def _in_zip(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            fault = ""
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                fault = "a link or a device"
            elif member.flag_bits & 1:
                fault = "encrypted"
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                fault = "compressed in an unusual way"
            # zipfile cuts a name at a zero byte
            yield _Member(
                member.orig_filename, member.is_dir(), member.file_size, fault, lambda one=member: archive.open(one)
            )


def _in_tar(file: Any) -> Iterator[_Member]:
    # as a stream: each byte is unpacked once, and nothing behind a refused member
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            plain = (member.isreg() or member.isdir()) and not member.issparse()
            fault = "" if plain else "a link, a device or a file with holes"
            yield _Member(member.name, member.isdir(), member.size, fault, lambda one=member: archive.extractfile(one))


class _Counted:
    """A stream that is refused where more comes out than the limit, even in headers."""

    def __init__(self, archive: Path, source: Any, most: int) -> None:
        self.archive, self.source, self.left = archive, source, most

    def read(self, size: int = -1) -> bytes:
        data = self.source.read(size)
        self.left -= len(data)
        if self.left < 0:
            _refuse(self.archive, "it unpacks to more than it may: a compression bomb, or a very large archive")
        return data
