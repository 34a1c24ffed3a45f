# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Figures: overview of a run, comparison of methods, reliability diagram."""
