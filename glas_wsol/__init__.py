# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Weakly supervised localization of decidable regions by min-max entropy, as MONAI components."""

__version__ = "0.1.0"
