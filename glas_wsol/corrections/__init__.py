# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Outlines that a person corrects: which image to correct next, and what is learnt from them."""
