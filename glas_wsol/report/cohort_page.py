# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the table of a cohort: one HTML file with a row and a thumbnail of each image, for ten thousand and more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup
from tqdm import tqdm

from glas_wsol.errors import ImageFileError
from glas_wsol.report.case_rows import Column, state_of
from glas_wsol.report.cases import Case
from glas_wsol.report.page import common_context, page_environment, policy, refuse_others
from glas_wsol.report.pictures import to_jpeg
from glas_wsol.report.run_folder import read_folder
from glas_wsol.transforms import read_rgb
from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["write_cohort"]

_HERE = Path(__file__).parent
_BYTES, _THUMBS = 1_800, ((72, 60), (72, 40), (56, 40), (40, 30))  # of a thumbnail; px of its longer side, quality


def write_cohort(folder: str | Path, output: str | Path | None = None, progress: bool = False) -> Path:
    """Write the table of a run's images. The browser draws only the rows that are seen, so that it opens at once.

    Images are read one by one. Each row leads to the overlay that the run wrote, by its path below the folder.

    Args:
        output: the file; defaults to ``cohort.html`` in the folder.

    Raises:
        OutputError: if the folder holds no results, or the file cannot be written or is no report.
    """
    contents = read_folder(folder)
    path = Path(output) if output is not None else contents.folder / "cohort.html"
    refuse_others(path)
    sources = {name: (_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "cohort.css", "cohort.js")}
    common = common_context(contents)
    cases = tqdm(contents.cases, "drawing", unit="image", disable=not progress)
    context = {
        **common,
        "style": Markup(sources["style.css"]),  # noqa: S704 this package's own files
        "own_style": Markup(sources["cohort.css"]),  # noqa: S704
        "script": Markup(sources["cohort.js"]),  # noqa: S704
        "policy": policy([sources["style.css"], sources["cohort.css"]], sources["cohort.js"]),
        "records": _records(cases, common["columns"], path.parent),
    }
    with atomic_write(path) as file:
        for piece in page_environment().get_template("cohort.html").generate(context):
            file.write(piece.encode("utf-8", "backslashreplace"))  # of file names that are not UTF-8
    return path


def _records(cases: tqdm[Case], titles: tuple[Column, ...], home: Path) -> Iterator[Markup]:
    """Each image as JSON, in which nothing ends the element around it."""
    for case in cases:
        record = {
            "name": case.name,
            "state": state_of(case),
            "marks": [mark for mark, holds in (("wrong", case.wrong), ("strange", case.strange)) if holds],
            "class": case.said if case.evidence else "",
            "probability": case.probability,
            "decidable": case.decidable,
            "link": quote(os.path.relpath(case.overlay, home)) if case.overlay else "",
            "thumbnail": _thumbnail(case),
            "cells": [title.text(case) for title in titles],
            "orders": [title.order(case) for title in titles],
        }
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        yield Markup(text.replace("<", "\\u003c"))  # noqa: S704 JSON, inside of an element that is not executed


def _thumbnail(case: Case) -> str:
    """The image, with its outlines where the run drew them, JPEG in base64; empty where it cannot be read."""
    file = case.overlay or ("" if case.failed else case.image)
    try:
        return to_jpeg(read_rgb(file), _BYTES, _THUMBS) if file else ""
    except (ImageFileError, ValueError):  # a name that no file can have
        return ""
