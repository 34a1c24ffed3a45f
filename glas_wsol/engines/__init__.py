# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Train with recursive erasing inside backpropagation; evaluate without stopping at one bad image."""

from __future__ import annotations

from glas_wsol.engines.fault_tolerant_evaluator import TileEvaluator
from glas_wsol.engines.plain_trainer import PlainTrainer, loss_means
from glas_wsol.engines.trainer import MinMaxEntropyTrainer

__all__ = ["MinMaxEntropyTrainer", "PlainTrainer", "TileEvaluator", "loss_means"]
