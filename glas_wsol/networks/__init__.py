# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Trunks, pooling, class maps and the networks made of them."""

from __future__ import annotations

from glas_wsol.networks.minmax import Head, Localized, MinMaxEntropyNetwork
from glas_wsol.networks.trunks import TRUNKS, Trunk, TrunkSpec, build_trunk

__all__ = ["TRUNKS", "Head", "Localized", "MinMaxEntropyNetwork", "Trunk", "TrunkSpec", "build_trunk"]
