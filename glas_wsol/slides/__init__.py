# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Whole slides: read, tissue, the grid of cells, stitched scores, holes and parts across cells."""
