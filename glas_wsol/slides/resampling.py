# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Bring any part of a large image to another pixel size, as if the whole had been: positions come from one grid."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

__all__ = ["AxisResampling", "resample"]

_VALUES = 400_000


class AxisResampling:
    """Linear interpolation along one axis, antialiased where it shrinks, as torch's and Pillow's.

    Args:
        source: samples of the whole axis before.
        step: samples before, per sample after.
    """

    def __init__(self, source: int, step: float) -> None:
        self.source, self.step = source, step
        self._support = max(1.0, step)

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """Which samples before the samples ``start`` to ``stop`` after are computed from."""
        low = int(np.floor((start + 0.5) * self.step - self._support))
        high = int(np.ceil((stop - 0.5) * self.step + self._support))
        low = min(max(low, 0), self.source - 1)
        return low, max(min(high, self.source), low + 1)

    def matrix(self, start: int, stop: int, low: float, count: int) -> csr_matrix:
        """Weights ``[stop - start, count]``, each row of sum 1.

        Args:
            start: first sample after.
            stop: the one behind the last.
            low: position of the first of ``count`` samples before; not whole where a reader gives what lies between.
            count: how many there are.
        """
        centres = (np.arange(start, stop) + 0.5) * self.step - 0.5 - low
        reach = int(np.ceil(self._support)) + 1
        columns = np.floor(centres).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        weights = (1 - np.abs(columns - centres[:, None]) / self._support).clip(min=0)
        weights[(columns < 0) | (columns >= count) | (columns + low > self.source - 0.5)] = 0
        lost = weights.sum(axis=1) <= 0  # beyond the last sample: that one
        columns = columns.clip(0, count - 1)
        weights[lost] = columns[lost] == centres[lost].round().clip(0, count - 1)[:, None]
        weights /= weights.sum(axis=1, keepdims=True)
        rows = np.repeat(np.arange(stop - start), columns.shape[1])
        shape = (stop - start, count)
        found = csr_matrix((weights.ravel().astype(np.float32), (rows, columns.ravel())), shape=shape)
        found.eliminate_zeros()
        return found


def resample(pixels: np.ndarray, rows: csr_matrix, columns: csr_matrix) -> np.ndarray:
    """``rows @ pixels @ columns.T`` of ``[H, W, C]``, float32."""
    _, width, channels = pixels.shape
    out = np.empty((rows.shape[0], columns.shape[0], channels), np.float32)
    count = max(1, _VALUES // (width * channels))
    for top in range(0, len(out), count):  # so few rows at a time that they stay in the processor's cache
        some = rows[top : top + count]
        low, high = int(some.indices.min()), int(some.indices.max()) + 1
        down = some[:, low:high] @ pixels[low:high].astype(np.float32).reshape(high - low, -1)
        down = down.reshape(-1, width, channels).transpose(1, 0, 2).reshape(width, -1)
        out[top : top + count] = (columns @ down).reshape(-1, some.shape[0], channels).transpose(1, 0, 2)
    return out
