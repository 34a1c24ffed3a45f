# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The training step: recursive erasing inside backpropagation; an evaluator that one bad image does not stop."""

from __future__ import annotations

from glas_wsol.engines.plain_trainer import PlainTrainer, loss_means
from glas_wsol.engines.trainer import MinMaxEntropyTrainer

__all__ = ["MinMaxEntropyTrainer", "PlainTrainer", "loss_means"]
