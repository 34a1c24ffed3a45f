# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Synthetic tissue and synthetic birds with exact masks."""
