# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A dask worker begins with this: while the file named in DEADLY_SLIDE is wanted, a slide's first cell kills it."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def dask_setup(worker) -> None:
    from glas_wsol.slides.cell_network import CellNetwork

    ask = CellNetwork.__call__

    def deadly(self, patch, cell):
        if "DEADLY_SLIDE" in os.environ:
            with Path(os.environ["DEADLY_SLIDE"]).open("a") as file:
                file.write("killed\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return ask(self, patch, cell)

    CellNetwork.__call__ = deadly
