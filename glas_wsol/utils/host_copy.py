# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Copy values from a device to the CPU, and wait for them as late as possible."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["AsyncHostCopy"]


class AsyncHostCopy:
    """A small tensor on its way to the CPU.

    On CUDA the copy is queued here, and what is queued afterwards does not delay it: :meth:`get` waits for what came
    before the copy only, while the device works on.

    Args:
        values: on any device, without gradient.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.device.type == "cuda":
            # Only a copy into pinned memory is made while the program continues.
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def get(self) -> Tensor:
        """The values, on the CPU (on a device other than CUDA: where they are)."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values
