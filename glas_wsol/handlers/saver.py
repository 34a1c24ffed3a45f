# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Saves localizations: masks in the chosen formats, overlays, tables and JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ignite.engine import Engine, Events

from glas_wsol.engines.fault_tolerant_evaluator import PATH, SHA256, Failure, failure_of
from glas_wsol.errors import ConfigError, ImageFileError, OutputError, count
from glas_wsol.handlers.record import RunRecord
from glas_wsol.results.localization import Localization
from glas_wsol.utils import distributed
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.background import Background
from glas_wsol.utils.csv_files import read_table, write_csv
from glas_wsol.writers.entries import BOX_COLUMNS, box_rows, entry_of, row_of
from glas_wsol.writers.formats import FORMATS, OVERLAY, check_formats, write_localization

__all__ = ["LocalizationSaver"]

logger = logging.getLogger(__name__)

_LAST: WeakValueDictionary[Path, Background] = WeakValueDictionary()
"""Of the last run of this process into a folder: after a second Ctrl-C, which ends the wait for it, it still writes."""


class LocalizationSaver:
    """Writes each image's mask and overlay at the image's own size, and one entry per image in two tables.

    The CSV has a line for each image, see :func:`~glas_wsol.writers.entries.row_of`. The JSON beside it is a list with,
    for each image, the entry of :func:`~glas_wsol.writers.entries.entry_of`, and ``files``, the paths written. A
    third table, ``predictions_boxes.csv`` beside ``predictions.csv``, has a line for each box. An earlier run's results
    in the same folder are replaced, except those of images finished according to a record; any other file is never
    overwritten. Of several processes each writes the files of its images, and the first the tables of all.

    Args:
        output_dir: receives the tables, ``overlays/NAME.png`` and the files of the formats: ``masks/NAME.png`` (0
            undecidable, 255 decidable), say.
        table: name of the CSV table; the JSON has its name with another suffix. Defaults to ``predictions.csv``.
        overlays: whether to write overlays. Defaults to True.
        record: remembers every finished image; the tables then have those of earlier runs too, all in the order of
            the record's images. It needs a
            :class:`~glas_wsol.engines.fault_tolerant_evaluator.TolerantDataset`. None (default) for none.
        formats: names of :data:`~glas_wsol.writers.formats.FORMATS`. Defaults to ``("png",)``.
        undecidable: whether GeoJSON outlines the undecidable region too. Defaults to False.
        waiting: images that may wait, with their masks, while one is written in a thread and the evaluator continues.
            Their order, and what is recorded when, stay the same; a failure is raised at a later image, or at the end.
            0 (default): each is written before the next begins.

    Raises:
        ConfigError: if ``table`` does not end in ``.csv``, on an unknown format or one that needs a missing package, or
            on a record in several processes.
    """

    def __init__(
        self,
        output_dir: str | Path,
        table: str = "predictions.csv",
        overlays: bool = True,
        record: RunRecord | None = None,
        formats: Sequence[str] = ("png",),
        undecidable: bool = False,
        waiting: int = 0,
    ) -> None:
        if not table.endswith(".csv"):
            raise ConfigError(f"table={table!r}", "LocalizationSaver", "give a name that ends in .csv")
        if record is not None and distributed.world_size() > 1:
            raise ConfigError("a record needs a single process", "LocalizationSaver", "run without torchrun")
        self.output_dir, self.table, self.overlays = Path(output_dir), table, overlays
        self.record = record
        self.formats, self.undecidable = check_formats(formats), undecidable
        self.background = Background(waiting)
        self.rows: list[dict[str, Any]] = []
        self.details: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose postprocessing adds ``localization``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_images)
        engine.add_event_handler(Events.COMPLETED, self._write_tables)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._end)

    def _start(self, _: Engine) -> None:
        folder = self.output_dir.resolve()
        _LAST.get(folder, self.background).close()
        _LAST[folder] = self.background
        self.rows.clear()
        self.details.clear()
        distributed.on_main(self._make_room)

    def _make_room(self) -> None:
        recorded = self.record.begin() if self.record else set()
        self._remove_earlier(recorded, self.record.finished if self.record else set())
        self.output_dir.mkdir(parents=True, exist_ok=True)

    @property
    def _details_file(self) -> Path:
        return (self.output_dir / self.table).with_suffix(".json")

    @property
    def _boxes_file(self) -> Path:
        return (self.output_dir / self.table).with_name(f"{Path(self.table).stem}_boxes.csv")

    @property
    def _journal(self) -> Path:
        """Names of an unfinished run's files: a hidden file beside the table that is not there yet."""
        number = f".{distributed.rank()}" if distributed.not_main() else ""
        return self.output_dir / f".{self.table}.unfinished{number}"

    @property
    def _journals(self) -> list[Path]:
        """Those of all processes of an unfinished run."""
        return sorted(self.output_dir.glob(f".{escape(self.table)}.unfinished*"))

    def _remove_earlier(self, recorded: set[str], finished: set[str]) -> None:
        """Take away what an earlier run wrote, table last: nothing of it can be taken for a result of this one."""
        table, names, ours = self.output_dir / self.table, set(recorded), bool(recorded) or bool(self._journals)
        if table.is_file():
            columns, found = read_table(table, errors="replace")
            if columns != ["path"] and not {"path", "name"} <= set(columns):  # the first is a table of no images
                raise OutputError("this file is not one of earlier results", table, "choose another output_dir")
            names |= {row["name"] for row in found if row.get("name")}
            ours = True
        for file in (self._details_file, self._boxes_file):
            if file.exists() and not ours:
                raise OutputError("this file is not one of earlier results", file, "choose another output_dir")
        for journal in self._journals:
            names |= set(map(_from_line, journal.read_text(encoding="utf-8").splitlines()))
        names -= finished
        for name in names:
            if name != Path(name).name:  # a table that somebody edited must not reach out of its folder
                continue
            for file in self._files(name):
                file.unlink(missing_ok=True)
        if names:
            logger.warning("replacing %d earlier results in %s", len(names), self.output_dir)
        self._details_file.unlink(missing_ok=True)
        self._boxes_file.unlink(missing_ok=True)
        table.unlink(missing_ok=True)
        for journal in self._journals:
            journal.unlink()

    def _files(self, name: str) -> list[Path]:
        """Whatever a run of any settings writes of an image."""
        files = [file for one in FORMATS.values() for file in one.files]
        return [self.output_dir / file.format(name) for file in (*files, OVERLAY)]

    def _reserve(self, name: str) -> None:
        """Refuse to overwrite what no run of this kind wrote: masks/ may hold a user's own annotation."""
        for file in self._files(name):
            if file.exists():
                raise OutputError("this file is not one of earlier results", file, "choose another output_dir")
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{json.dumps(name)}\n")  # a name may have line ends

    def _write_images(self, engine: Any) -> None:
        tolerant = getattr(engine, "tolerant", False)
        for number, item in enumerate(engine.state.output):
            source = {key: engine.state.batch[number][key] for key in (PATH, SHA256)} if self.record else {}
            self._tell(engine, self.background.do(partial(self._write_image, item["localization"], source, tolerant)))

    @staticmethod
    def _tell(engine: Any, failures: list[Failure | None]) -> None:
        if any(failures):
            engine.state.failures += filter(None, failures)

    def _write_image(self, found: Localization, item: Mapping[str, Any], tolerant: bool) -> Failure | None:
        self._reserve(found.name)
        try:
            files = self._write_files(found)
        except ImageFileError as error:
            failure = failure_of(error, {"image": found.path, "name": found.name}, "write")
            if failure is None or not tolerant:
                raise
            return failure
        written = [file.relative_to(self.output_dir).as_posix() for file in files]
        self.rows.append(row_of(found))
        self.details.append({**entry_of(found), "files": written})
        if self.record:
            self.record.add(found.name, item, self.rows[-1], self.details[-1], files)
        return None

    def _end(self, _: Engine, error: BaseException) -> None:
        """After an exception: finish pending writes, so that nothing runs in the background."""
        self.background.close()
        raise error

    def _write_files(self, found: Localization) -> list[Path]:
        try:
            return write_localization(
                self.output_dir, found, self.formats, overlay=self.overlays, undecidable=self.undecidable
            )
        except ImageFileError:
            for file in self._files(found.name):  # reserved, so its own: an image that failed has no results
                file.unlink(missing_ok=True)
            raise

    def _write_tables(self, engine: Engine) -> None:
        self._tell(engine, self.background.finish())
        self.rows, self.details = distributed.all_gather(self.rows), distributed.all_gather(self.details)
        if distributed.not_main():
            return
        if self.record:
            done = self.record.ordered()
            self.rows, self.details = [dict(one.row) for one in done], [dict(one.details) for one in done]
        with atomic_write(self._details_file, "w") as file:
            json.dump(self.details, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
        boxes = [row for one in self.details for row in box_rows(one)]
        write_csv(self._boxes_file, boxes, BOX_COLUMNS)
        write_csv(self.output_dir / self.table, self.rows)
        if self.record:
            self.record.complete()
        for journal in self._journals:
            journal.unlink()
        logger.info("%s in %s", count(len(self.rows), "localization"), self.output_dir)


def _from_line(line: str) -> str:
    try:
        return str(json.loads(line))
    except ValueError:  # a line that was being written when its run was killed: its image has no file yet
        return ""
