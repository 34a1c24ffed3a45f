# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The result of one image, as a value: mask, class, class scores, boxes, outlines, provenance."""
