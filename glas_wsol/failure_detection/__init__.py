# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Estimates from images and class labels whether a training failed: signals, alarm, choice of a model."""
