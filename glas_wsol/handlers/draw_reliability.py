# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draws the reliability diagram of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from glas_wsol.metrics import class_reliability, mask_reliability
from glas_wsol.utils import distributed
from glas_wsol.visualize.reliability_diagram import draw_reliability

__all__ = ["ReliabilityDiagram"]


class ReliabilityDiagram:
    """Writes ``reliability.png`` from the evaluator's metrics ``calibration_error`` and ``mask_calibration_error``.

    A panel has a note where the method names no class, or no image has a true mask. Without either, nothing is written;
    of several processes the first writes. Attach it before :class:`~glas_wsol.handlers.EvaluationReport`,
    whose report is the last file of all.

    Args:
        caption: below the panels, such as method, data set and split. Defaults to none.
    """

    def __init__(self, output_dir: str | Path, caption: str = "") -> None:
        self.output_dir, self.caption = Path(output_dir), caption

    @property
    def path(self) -> Path:
        """The diagram's file."""
        return self.output_dir / "reliability.png"

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, after its metrics."""
        if distributed.not_main():
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self.path.unlink(missing_ok=True)  # an older one is not this one's

    def _write(self, engine: Any) -> None:
        classes, mask = (
            _rows(engine.state.metric_details.get(key)) for key in ("calibration_error", "mask_calibration_error")
        )
        if classes is None and mask is None:
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        draw_reliability(
            self.path,
            None if classes is None else class_reliability(classes),
            None if mask is None else mask_reliability(mask),
            self.caption,
        )


def _rows(details: Any) -> np.ndarray | None:
    return None if details is None or len(details) == 0 else np.asarray(details, dtype=np.float64)
