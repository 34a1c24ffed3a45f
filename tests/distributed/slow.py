# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``python -m monai.bundle`` with the narrow trunk, slow enough to be killed on its way; run by torchrun."""

from __future__ import annotations

import os
import runpy
import time
from pathlib import Path
from typing import Any

import torch

from glas_wsol.networks.trunks import TRUNKS
from tests.bundles.conftest import NARROW, SMALL

if __name__ == "__main__":
    step = torch.optim.SGD.step

    def slow_step(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return step(*args, **kwargs)

    torch.optim.SGD.step = slow_step
    TRUNKS[SMALL["trunk"]] = NARROW
    Path(os.environ["PROCESSES"], os.environ["RANK"]).write_text(str(os.getpid()))
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
