# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes files from a Localization: masks, overlays and tables."""
