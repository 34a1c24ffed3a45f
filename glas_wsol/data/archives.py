# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Archives of strangers: unpacked whole into a new folder, or not at all, and never outside of it."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from tqdm import tqdm

from glas_wsol.data.files import folded
from glas_wsol.errors import FIX_ROOM, ArchiveError, OutputError
from glas_wsol.utils.digests import sha256_of

__all__ = ["Limits", "extract"]

_BLOCK = 1 << 20
_LOOK_ALIKES = frozenset("\\/\u2044\u2215\u29f8\uff0f\uff3c\u2024\uff0e\u2025\uff1a\ufe55")
"""Signs that are, or that some system turns into, a slash, a dot or a colon; the plain dot is looked at apart."""


@dataclass(frozen=True)
class Limits:
    """What an archive may be unpacked to.

    Attributes:
        total: bytes of all files together. Default: 20 GiB.
        files: how many files and folders. Default: 200,000.
        ratio: bytes unpacked per byte of the archive; looked at above 64 MiB. Default: 100, where images have about 1
            and text 10.
        depth: folders within each other. Default: 32.
    """

    total: int = 20 << 30
    files: int = 200_000
    ratio: float = 100.0
    depth: int = 32

    def bytes_of(self, archive: Path) -> int:
        """How many bytes this archive may be unpacked to."""
        return min(self.total, max(64 << 20, int(self.ratio * archive.stat().st_size)))


def extract(
    archive: str | Path, target: str | Path, sha256: str = "", limits: Limits | None = None, progress: bool = False
) -> Path:
    """Unpack a zip, tar or tar.gz file, recognised by its content.

    Members are files and folders with plain relative names, nothing else; they get this process's own permissions, the
    archive's are ignored. Archives within the archive stay files. Everything is written beside ``target``, which
    appears when all is there.

    Args:
        archive: the file.
        target: folder to make; one that exists must be empty.
        sha256: digest the archive must have, 64 hexadecimal digits; empty (default) for any.
        limits: what it may be unpacked to; None (default) for :class:`Limits`' own.
        progress: show a bar with the time left. Defaults to False.

    Returns:
        The folder.

    Raises:
        ArchiveError: if it is no such archive, a damaged or another one, or if a member is refused: a name that leads
            out of the folder or is ambiguous, a link, a device, two names that some file system takes for one, an
            encrypted member, too many bytes or files.
        OutputError: if the folder is not empty, or cannot be written.
    """
    archive, target, limits = Path(archive), Path(target), limits or Limits()
    if not archive.is_file():
        raise ArchiveError("no such archive", archive, "give the path of a .zip, .tar or .tar.gz file")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError("there is something here already", target, "name a new folder")
    with _typed(archive, target):
        if sha256 and sha256_of(archive) != sha256.lower():
            raise ArchiveError("wrong SHA-256", archive, "download it again from its publisher")
        unpack = _unpacker(archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = target.parent / f".{uuid.uuid4().hex}.part"
        try:
            whole.mkdir()
            unpack(_Writer(archive, whole, limits, progress))
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
        if error.errno in (None, errno.EINVAL):  # a place in the archive that is none
            raise ArchiveError(f"a damaged archive ({error})", archive, fix) from error
        what = f"the archive cannot be unpacked here ({error.strerror or error})"
        raise OutputError(what, target, FIX_ROOM) from error
    except (ValueError, NotImplementedError, RuntimeError, OverflowError) as error:  # zipfile: unknown method, password
        raise ArchiveError(f"a damaged or unusual archive ({error})", archive, fix) from error


def _unpacker(archive: Path) -> Callable[[_Writer], None]:
    with archive.open("rb") as file:
        head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _unzip
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        return _untar
    raise ArchiveError("not a zip, tar or tar.gz file", archive, "download it again, or unpack it yourself")


class _Writer:
    """Judges members and writes them; counts what really comes out."""

    def __init__(self, archive: Path, folder: Path, limits: Limits, progress: bool) -> None:
        self.archive, self.folder, self.limits = archive, folder, limits
        self.bar: dict[str, Any] = {"desc": "unpacking", "disable": not progress, "leave": False}
        self.most, self.written, self.members = limits.bytes_of(archive), 0, 0
        self.seen: dict[str, str] = {}
        self.kinds: dict[str, bool] = {}

    def refuse(self, what: str) -> None:
        raise ArchiveError(what, self.archive, "do not trust this archive, or unpack it yourself")

    def place(self, name: str, is_folder: bool) -> Path:
        """Where a member goes, if its name may go anywhere."""
        self.members += 1
        if self.members > self.limits.files:
            self.refuse(f"more than {self.limits.files} members")
        parts = name.rstrip("/").split("/") if is_folder else name.split("/")
        parts = [part for part in parts if part != "."]
        fault = _name_fault(name, parts, self.limits.depth)
        if fault:
            self.refuse(f"the member {_printable(name)} {fault}")
        for length in range(1, len(parts) + 1):
            path = "/".join(parts[:length])
            folder = is_folder or length < len(parts)
            other = self.seen.setdefault(folded(path), path)
            known = self.kinds.get(other)
            if other != path or (known is not None and not (known and folder)):
                self.refuse(f"the members {_printable(other)} and {_printable(name)} are one to some file systems")
            self.kinds[other] = folder
        return self.folder.joinpath(*parts)

    def budget(self, size: int) -> None:
        if size < 0 or size > self.most:
            self.refuse(f"it unpacks to more than {self.most} bytes: a compression bomb, or a very large archive")

    def folder_at(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def file_at(self, path: Path, source: IO[bytes], size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = 0
        with path.open("xb") as file:
            while block := source.read(_BLOCK):
                count += len(block)
                self.written += len(block)
                if count > size:
                    self.refuse(f"the member {_printable(path.name)} is longer than it says")
                self.budget(self.written)
                file.write(block)
        if count != size:
            raise ArchiveError("a damaged archive (it ends too early)", self.archive, "copy or download it again")


def _name_fault(name: str, parts: list[str], depth: int) -> str:
    """Why a member's name is refused; empty if it is not."""
    if not parts or "" in parts:
        return "is absolute or has an empty part"
    if ".." in parts:
        return "leads out of the folder"
    if len(parts) > depth:
        return f"lies in more than {depth} folders"
    if any(len(os.fsencode(part)) > 255 for part in parts):
        return "has a part of more than 255 bytes"
    for part in parts:
        if any(sign in _LOOK_ALIKES for sign in part) or (len(part) > 1 and part[1] == ":"):
            return "has a sign that some system takes for a separator"
        if any(unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in part):
            return "has a sign that is not shown"
        if part != part.strip(" ") or part.endswith("."):
            return "begins or ends with a space, or ends with a dot, which some systems leave out"
    return ""


def _printable(name: str) -> str:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _unzip(writer: _Writer) -> None:
    with zipfile.ZipFile(writer.archive) as archive:
        members = archive.infolist()
        writer.budget(sum(member.file_size for member in members))
        places = [(member, _zip_place(writer, member)) for member in members]  # all are judged before one is written
        for member, place in tqdm(places, unit="file", **writer.bar):
            if member.is_dir():
                writer.folder_at(place)
                continue
            with archive.open(member) as source:
                writer.file_at(place, source, member.file_size)


def _zip_place(writer: _Writer, member: zipfile.ZipInfo) -> Path:
    name = _printable(member.orig_filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        writer.refuse(f"the member {name} is a link or a device")
    if member.flag_bits & 1:
        writer.refuse(f"the member {name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        writer.refuse(f"the member {name} is compressed in an unusual way")
    # zipfile cuts a name at a zero byte
    return writer.place(member.orig_filename, member.is_dir())


class _Counted:
    """A stream that ends in a refusal where more comes out than may."""

    def __init__(self, source: Any, writer: _Writer) -> None:
        self.source, self.writer, self.count = source, writer, 0
        # headers and padding come on top of the files themselves
        self.most = writer.most + 2048 * writer.limits.files + (1 << 20)

    def read(self, size: int = -1) -> bytes:
        data = self.source.read(size)
        self.count += len(data)
        if self.count > self.most:
            self.writer.budget(self.count)
        return data


def _untar(writer: _Writer) -> None:
    size = writer.archive.stat().st_size
    with writer.archive.open("rb") as file, tqdm.wrapattr(file, "read", total=size, **writer.bar) as read:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source: Any = gzip.GzipFile(fileobj=cast("Any", read)) if packed else read
        # as a stream: each byte is unpacked once, and nothing behind a refused member
        with tarfile.open(fileobj=cast("Any", _Counted(source, writer)), mode="r|") as archive:
            for member in archive:
                place = _tar_place(writer, member)
                if member.isdir():
                    writer.folder_at(place)
                    continue
                content = archive.extractfile(member)
                assert content is not None
                writer.file_at(place, content, member.size)


def _tar_place(writer: _Writer, member: tarfile.TarInfo) -> Path:
    name = _printable(member.name)
    if not (member.isreg() or member.isdir()) or member.issparse():
        writer.refuse(f"the member {name} is a link, a device or a file with holes")
    writer.budget(writer.written + member.size)
    place = writer.place(member.name, member.isdir())
    if hasattr(tarfile, "data_filter"):  # a second opinion, of Python's own
        try:
            tarfile.data_filter(member, str(writer.folder))
        except tarfile.FilterError as error:
            writer.refuse(f"the member {name} is refused ({type(error).__name__})")
    return place
