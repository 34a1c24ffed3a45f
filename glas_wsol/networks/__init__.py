# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Build the networks of all methods from trunks, pooling and class maps."""

from __future__ import annotations

from glas_wsol.networks.attention import AttentionNetwork
from glas_wsol.networks.base import TileNetwork
from glas_wsol.networks.cam import ClassActivationNetwork
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.corrected import CorrectedNetwork
from glas_wsol.networks.device import to_device
from glas_wsol.networks.ensemble import EnsembleNetwork
from glas_wsol.networks.fixed import FixedMaskNetwork
from glas_wsol.networks.folding import fold_batch_norm
from glas_wsol.networks.head import Head
from glas_wsol.networks.minmax import Localized, MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.networks.registry import NETWORKS, build_network
from glas_wsol.networks.trunks import TRUNKS, Trunk, TrunkSpec, build_trunk
from glas_wsol.networks.unet import SegmentationNetwork

__all__ = [
    "NETWORKS",
    "TRUNKS",
    "AttentionNetwork",
    "ClassActivationNetwork",
    "CorrectedNetwork",
    "EnsembleNetwork",
    "FeatureComponentNetwork",
    "FixedMaskNetwork",
    "Head",
    "Localized",
    "MinMaxEntropyNetwork",
    "RefinedNetwork",
    "SegmentationNetwork",
    "TileNetwork",
    "Trunk",
    "TrunkSpec",
    "build_network",
    "build_trunk",
    "fold_batch_norm",
    "to_device",
]
