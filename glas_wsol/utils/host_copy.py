# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Copy values from a device to the CPU, and wait for them as late as possible."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["AsyncHostCopy", "to_host"]


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


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors of one device to the CPU by one copy, which is waited for; on the CPU they stay themselves."""
    if all(one.device.type == "cpu" for one in tensors):
        return list(tensors)
    return _by_one_copy(tensors)


def _by_one_copy(tensors: Sequence[Tensor]) -> list[Tensor]:
    order = sorted(range(len(tensors)), key=lambda index: -tensors[index].element_size())  # each begins where it may
    parts = [tensors[index].reshape(-1).view(torch.uint8) for index in order]
    pieces = torch.cat(parts).cpu().split([len(part) for part in parts])
    found = {index: piece.view(tensors[index].dtype) for index, piece in zip(order, pieces, strict=True)}
    return [found[index].reshape(one.shape) for index, one in enumerate(tensors)]
