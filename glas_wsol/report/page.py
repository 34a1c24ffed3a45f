# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the page image by image: one HTML file that loads nothing and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.metrics import NO_WIDTH
from glas_wsol.report.case_rows import STATES, CaseRow, columns, rows
from glas_wsol.report.cases import Case
from glas_wsol.report.curves import chart
from glas_wsol.report.pictures import LEAST_BYTES
from glas_wsol.report.run_folder import Contents, read_folder
from glas_wsol.report.summary import counts, facts, figures, rounds, shown, training_facts
from glas_wsol.results.how_to_read import UNLIKE, reading_guide
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.version import __version__

__all__ = ["common_context", "page_environment", "policy", "refuse_others", "write_report"]

_HERE = Path(__file__).parent
_MARK = b'<meta name="generator" content="glas_wsol report'
_TITLES = {
    ("training",): "Training",
    ("training", "evaluation"): "Training and evaluation",
    ("training", "inference"): "Training and inference",
    ("evaluation",): "Evaluation",
    ("inference",): "Localization",
}
_PNG, _LARGEST_DIAGRAM = b"\x89PNG\r\n\x1a\n", 500_000


def write_report(
    folder: str | Path, output: str | Path | None = None, kilobytes: float = 60, progress: bool = False
) -> Path:
    """Write one self-contained HTML file of a run: of inference, of evaluation, of training, or of the last two.

    Images are read and written one by one: memory does not grow with their number. The file depends on the folder
    alone: the same folder gives the same bytes. It is written atomically, and replaces an earlier report only.

    Args:
        output: the file; defaults to ``report.html`` in the folder.
        kilobytes: 1000 bytes; what the pictures of an image may take, at least 8.

    Raises:
        ConfigError: if ``kilobytes`` is too small.
        OutputError: if the folder holds no results, or the file cannot be written or is no report.
    """
    limit = int(1000 * kilobytes)
    if limit < LEAST_BYTES:
        fix = f"give at least {LEAST_BYTES // 1000}"
        raise ConfigError(f"{kilobytes:g} kilobytes are too few for the pictures of an image", "report", fix)
    contents = read_folder(folder)
    path = Path(output) if output is not None else contents.folder / "report.html"
    refuse_others(path)
    template = page_environment().get_template("page.html")
    with atomic_write(path) as file:
        for piece in template.generate(_context(contents, limit, progress)):
            file.write(piece.encode("utf-8", "backslashreplace"))  # of file names that are not UTF-8
    return path


def page_environment() -> Environment:
    """What fills the templates: every text is escaped, and one that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(percent=shown)
    return environment


def refuse_others(path: Path) -> None:
    """Replace nothing but a report."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            ours = _MARK in file.read(4096)
    except OSError:
        ours = False
    if not ours:
        raise OutputError("this file is not an earlier report", path, "choose another --output")


def common_context(contents: Contents) -> dict[str, Any]:
    """What every page of a run shows: its name, alarm and counts, its images' columns and what filters them."""
    titles = columns(contents.cases)
    done = [case for case in contents.cases if not case.failed]
    wanted = {"all", *(["evidence", "none"] if done else []), *(["failed"] if len(done) < len(contents.cases) else [])}
    wanted |= {"wrong"} if any(case.wrong is not None for case in done) else set()
    wanted |= {"strange"} if any(case.strange for case in done) else set()
    return {
        "version": __version__,
        "name": contents.folder.resolve().name,
        "kind": _TITLES[contents.kinds],
        "alarm": contents.alarm,
        "counts": counts(contents.cases),
        "trained_on": contents.trained_on,
        "columns": titles,
        "has_probability": any(title.key == "probability" for title in titles),
        "has_decidable": any(title.key == "decidable" for title in titles),
        "classes": sorted({case.said for case in done if case.evidence and case.said}),
        "states": {key: text for key, text in STATES.items() if key in wanted},
        "number": len(contents.cases),
    }


def _context(contents: Contents, limit: int, progress: bool) -> dict[str, Any]:
    evaluation = contents.evaluation
    common = common_context(contents)
    titles = common["columns"]
    measured = figures(evaluation)
    lines = rounds(contents)
    epoch = contents.card.get("epoch")
    chosen = epoch if isinstance(epoch, int) and not contents.rounds else None  # a round's epochs are not the curves'
    sources = {name: (_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js", "noscript.css")}
    return {
        **common,
        "kinds": contents.kinds,
        "facts": facts(contents),
        "figures": measured,
        "no_width": NO_WIDTH if any(figure.without_width for figure in measured) else "",
        "guide": _guide(contents.cases),
        "unlike": UNLIKE,
        "below": [figure.title for figure in measured if figure.below],
        "interval": evaluation.get("interval", ""),
        "charts": [chart(series, chosen) for series in contents.history],
        "history": contents.history,
        "chosen": chosen,
        "training": training_facts(contents),
        "round_titles": lines[0],
        "rounds": lines[1],
        "diagram": _diagram(contents.diagram),
        "has_truth": any(case.outlines for case in contents.cases),
        "rows": _followed(
            rows(contents.cases, titles, evaluation.get("mask_threshold") or 0, limit), len(contents.cases), progress
        ),
        "style": Markup(sources["style.css"]),  # noqa: S704 this package's own files
        "script": Markup(sources["script.js"]),  # noqa: S704
        "noscript": Markup(sources["noscript.css"]),  # noqa: S704
        "policy": policy([sources["style.css"], sources["noscript.css"]], sources["script.js"]),
    }


def _guide(cases: Sequence[Case]) -> tuple[str, ...]:
    """How to read a case; empty without any that shows something."""
    done = [case for case in cases if case.evidence and not case.failed]
    if not done:
        return ()
    regions = True if any("undecidable" in case.class_scores for case in done) else None
    if any(case.unknown_mask for case in done):
        regions = False
    number = max(len(case.probabilities) for case in done)
    total = sum(done[0].probabilities.values())
    return reading_guide(regions, number, multi_label=total > 0 and not math.isclose(total, 1, abs_tol=1e-3))


def _followed(made: Iterator[CaseRow], total: int, progress: bool) -> Iterator[CaseRow]:
    return iter(tqdm(made, "drawing", total, unit="image", disable=not progress))


def policy(styles: Sequence[str], script: str) -> str:
    """What a browser may load and run: pictures inside the file, and these very styles and this very script."""
    allowed = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
        for text in (*styles, script)
    ]
    return (
        f"default-src 'none'; img-src data:; style-src {' '.join(allowed[:-1])}; "
        f"script-src {allowed[-1]}; base-uri 'none'; form-action 'none'"
    )


def _diagram(path: Path | None) -> str:
    """The reliability diagram as a data URI; empty where there is none, or what is there is no picture of ours."""
    if path is None or path.stat().st_size > _LARGEST_DIAGRAM:
        return ""
    data = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii") if data.startswith(_PNG) else ""
