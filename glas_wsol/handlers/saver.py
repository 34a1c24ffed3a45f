# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""An evaluator's localizations on disk: masks, overlays and one table."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from glas_wsol.errors import OutputError
from glas_wsol.localization import Localization
from glas_wsol.writers.images import overlay, write_png
from glas_wsol.writers.table import write_csv

__all__ = ["LocalizationSaver"]

logger = logging.getLogger(__name__)


class LocalizationSaver:
    """Writes each image's mask and overlay as PNG at the image's own size, and one row per image in a table.

    An earlier run's results in the same folder are replaced; any other file is never overwritten.

    Args:
        output_dir: receives ``masks/NAME.png`` (0 undecidable, 255 decidable), ``overlays/NAME.png`` and the table.
        table: name of the CSV table. Defaults to ``predictions.csv``.
        overlays: whether to write overlays. Defaults to True.
    """

    def __init__(self, output_dir: str | Path, table: str = "predictions.csv", overlays: bool = True) -> None:
        self.output_dir, self.table, self.overlays = Path(output_dir), table, overlays
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose postprocessing adds ``localization``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_images)
        engine.add_event_handler(Events.COMPLETED, self._write_table)

    def _start(self, _: Engine) -> None:
        self.rows.clear()
        self._remove_earlier()
        for folder in ("masks", "overlays") if self.overlays else ("masks",):
            (self.output_dir / folder).mkdir(parents=True, exist_ok=True)

    @property
    def _journal(self) -> Path:
        """Names of an unfinished run's files: a hidden file beside the table that is not there yet."""
        return self.output_dir / f".{self.table}.unfinished"

    def _remove_earlier(self) -> None:
        """Take away what an earlier run wrote, table last: nothing of it can be taken for a result of this one."""
        table, names = self.output_dir / self.table, set()
        if table.is_file():
            with table.open(encoding="utf-8", errors="replace", newline="") as file:
                names |= {row["name"] for row in csv.DictReader(file) if row.get("name")}
        if self._journal.is_file():
            names |= set(self._journal.read_text(encoding="utf-8").splitlines())
        for name in names:
            if name != Path(name).name:  # a table that somebody edited must not reach out of its folder
                continue
            for file in self._files(name):
                file.unlink(missing_ok=True)
        if names:
            logger.warning("replacing %d earlier results in %s", len(names), self.output_dir)
        table.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _files(self, name: str) -> tuple[Path, Path]:
        return tuple(self.output_dir / folder / f"{name}.png" for folder in ("masks", "overlays"))

    def _reserve(self, name: str) -> None:
        """Refuse to overwrite what no run of this kind wrote: masks/ may hold a user's own annotation."""
        for file in self._files(name):
            if file.exists():
                raise OutputError("this file is not one of earlier results", file, "choose another output_dir")
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{name}\n")

    def _write_images(self, engine: Engine) -> None:
        for item in engine.state.output:
            found: Localization = item["localization"]
            self._reserve(found.name)
            mask, picture = self._files(found.name)
            write_png(mask, found.mask)
            if self.overlays:
                write_png(picture, _overlay(item[Keys.IMAGE], found))
            self.rows.append(
                {
                    "path": found.path,
                    "class": found.class_name,
                    "probability": "" if found.probability is None else f"{found.probability:.6f}",
                    "decidable_fraction": f"{found.decidable_fraction:.6f}",
                    "name": found.name,
                }
            )

    def _write_table(self, _: Engine) -> None:
        write_csv(self.output_dir / self.table, self.rows)
        self._journal.unlink(missing_ok=True)
        logger.info("%d localizations in %s", len(self.rows), self.output_dir)


def _overlay(image: Any, found: Localization) -> np.ndarray:
    pixels = (np.asarray(image.cpu()) * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    sure = "" if found.probability is None else f" {100 * found.probability:.0f} %"
    return overlay(
        pixels, found.decidable, found.mask, f"{found.class_name}{sure}", found.name, evidence=found.evidence
    )
