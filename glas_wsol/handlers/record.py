# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Records the finished images of a run with their results, so that a rerun resumes after an interruption."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glas_wsol.errors import FIX_ROOM, OutputError, count
from glas_wsol.utils.atomic_files import atomic_write, remove_unfinished
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import RECORD
from glas_wsol.utils.locks import claim, release
from glas_wsol.utils.settings import Fingerprint, describe
from glas_wsol.version import __version__

__all__ = ["Entry", "RunRecord"]

logger = logging.getLogger(__name__)

_EARLIER = ("image finished earlier is", "images finished earlier are")
_CHANGED = ("image or result has changed and is", "images or results have changed and are")


@dataclass(frozen=True)
class Entry:
    """A finished image.

    Attributes:
        sha256: digest of that file's bytes.
        files: what was written of it, relative to the folder of results, each with its digest.
        mpp: micrometres per pixel that a table gave for it; None without.
    """

    name: str
    image: str
    sha256: str
    row: Mapping[str, Any]
    details: Mapping[str, Any]
    files: Mapping[str, str]
    mpp: float | None = None


class RunRecord:
    """Keeps ``finished.jsonl``: a line for what the run is made with, then one per finished image.

    An image is finished if its line is there, whole; if its file still has the same bytes, and the run the same
    weights and settings; and if everything that was written of it is still there, unchanged. A line is written after
    all the image's files, and reaches the disk before those of the next are begun. A run that ends rewrites the record
    in the order of its images, after its tables.

    Args:
        images: the images of this run, each with ``image`` and ``name``, in the order of the tables.
        made_with: what results depend on besides the images: JSON values, and components, which are described by what
            they were made with. The versions of this package and of torch are added.
        resume: False to do all images again. Defaults to True.
    """

    def __init__(
        self,
        output_dir: str | Path,
        images: Sequence[Mapping[str, Any]],
        made_with: Mapping[str, Any] | None = None,
        resume: bool = True,
    ) -> None:
        self.output_dir, self.images, self.resume = Path(output_dir), images, resume
        self.made_with = describe({**(made_with or {}), "glas_wsol": __version__, "torch": torch.__version__})
        self.entries: dict[str, Entry] = {}
        self.finished: set[str] = set()
        """Names of the images that need not be done; filled by :meth:`begin`."""

    @property
    def file(self) -> Path:
        """Path of the record."""
        return self.output_dir / RECORD

    def begin(self) -> set[str]:
        """Find what is finished, and start the record anew with that.

        Returns:
            Names of all results that an earlier run recorded, finished or not any more.

        Raises:
            OutputError: if a file of the record's name is not a record, or it cannot be written, or another run is at
                work in the folder.
        """
        self._read()  # a user's own file of this name is left alone, and nothing is put beside it
        self.output_dir.mkdir(parents=True, exist_ok=True)
        alone = claim(self.file)
        then, found = self._read()
        self.entries.clear()
        self.finished.clear()
        changed = then.changes(self.made_with) if found else []
        if found and not self.resume:
            logger.warning("resume=false: %s done again", count(len(found), *_EARLIER))
        elif found and changed:
            what = ", ".join(map(_short, changed))
            logger.warning("%s done again: %s", count(len(found), *_EARLIER), what)
        else:
            wanted = {item["name"]: (str(item["image"]), item.get("mpp")) for item in self.images}
            known = [entry for name, entry in found.items() if wanted.get(name) == (entry.image, entry.mpp)]
            self.entries.update({entry.name: entry for entry in known if self._holds(entry)})
            self.finished.update(self.entries)
            if known:
                logger.info(
                    "%d of %d images skipped: finished earlier with the same weights, settings and bytes",
                    len(self.finished),
                    len(self.images),
                )
            if len(self.finished) < len(known):
                logger.warning("%s done again", count(len(known) - len(self.finished), *_CHANGED))
        if alone:
            remove_unfinished(self.output_dir)
        self._write(self.entries.values())
        return set(found)

    def add(self, name: str, item: Mapping[str, Any], row: Mapping, details: Mapping, files: Iterable[Path]) -> None:
        """Record that an image is finished.

        Args:
            item: has its ``path`` and its ``sha256``.
            row: its row of the CSV table; JSON values.
            details: its entry of the JSON table.
            files: everything that was written of it.
        """
        written = {path.relative_to(self.output_dir).as_posix(): sha256_of(path) for path in files}
        mpp = next((one.get("mpp") for one in self.images if one["name"] == name), None)
        entry = Entry(name, item["path"], item["sha256"], dict(row), dict(details), written, mpp)
        self.entries[name] = entry
        try:
            with self.file.open("a", encoding="utf-8", newline="\n") as file:
                file.write(_line(vars(entry)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            fix = FIX_ROOM
            raise OutputError(f"cannot be written ({error.strerror or error})", self.file, fix) from error

    def ordered(self) -> list[Entry]:
        """Everything that is finished, in the order of the images."""
        return [self.entries[item["name"]] for item in self.images if item["name"] in self.entries]

    def complete(self) -> None:
        """End a run: the same record, in the order of the images."""
        self._write(self.ordered())
        release(self.file)

    def _write(self, entries: Iterable[Entry]) -> None:
        with atomic_write(self.file, "w", newline="\n") as file:
            file.write(_line({"made_with": self.made_with}))
            file.writelines(_line(vars(entry)) for entry in entries)

    def _read(self) -> tuple[Fingerprint, dict[str, Entry]]:
        if not self.file.exists():
            return Fingerprint(), {}
        found: dict[str, Entry] = {}
        try:
            first, *lines = self.file.read_text(encoding="utf-8", errors="replace").split("\n")
            then = Fingerprint(json.loads(first)["made_with"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            fix = "choose another output_dir"
            raise OutputError("this file is not the record of a run", self.file, fix) from error
        for line in lines:
            entry = _entry(line)
            # a line that somebody edited must not reach out of the folder
            if entry and entry.name == Path(entry.name).name and all(map(self._inside, entry.files)):
                found[entry.name] = entry
        return then, found

    def _inside(self, name: str) -> bool:
        return (self.output_dir / name).resolve().is_relative_to(self.output_dir.resolve())

    def _holds(self, entry: Entry) -> bool:
        """Whether the image and its results are still what they were."""
        files = {Path(entry.image): entry.sha256, **{self.output_dir / k: v for k, v in entry.files.items()}}
        try:
            return all(path.is_file() and sha256_of(path) == digest for path, digest in files.items())
        except OSError:
            return False


def _entry(line: str) -> Entry | None:
    """Content of a line; None for the last one of a run that was killed while writing it."""
    try:
        entry = Entry(**json.loads(line))
        return entry if entry.name and isinstance(entry.name, str) and isinstance(entry.files, dict) else None
    except (ValueError, TypeError):
        return None


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _short(clause: str) -> str:
    return clause if len(clause) <= 160 else f"{clause[:157]}..."
