# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A dask worker begins with this: the first cell of a slide kills it; a file that its configuration names says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask


def dask_setup(worker) -> None:
    from glas_wsol.slides.cell_network import CellNetwork

    file, ask = dask.config.get("deadly-slide"), CellNetwork.__call__

    def deadly(self, patch, cell):
        with Path(file).open("a") as deaths:
            deaths.write("killed\n")
        os.kill(os.getpid(), signal.SIGKILL)
        return ask(self, patch, cell)

    CellNetwork.__call__ = deadly
