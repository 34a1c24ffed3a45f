# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Datalists and splits of GlaS, CUB-200-2011 and any folder or table; the phantom."""
