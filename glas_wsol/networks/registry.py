# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Build networks by name: from the settings that a trained model records, the network its weights fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from glas_wsol.networks.attention import AttentionNetwork
from glas_wsol.networks.base import construct
from glas_wsol.networks.cam import ClassActivationNetwork
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.corrected import CorrectedNetwork
from glas_wsol.networks.ensemble import EnsembleNetwork
from glas_wsol.networks.fixed import FixedMaskNetwork
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.networks.unet import SegmentationNetwork

__all__ = ["NETWORKS", "build_network"]

NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network
    for network in (
        MinMaxEntropyNetwork,
        ClassActivationNetwork,
        AttentionNetwork,
        SegmentationNetwork,
        CorrectedNetwork,
        FixedMaskNetwork,
        FeatureComponentNetwork,
        RefinedNetwork,
        EnsembleNetwork,
    )
}
"""Every network, by the name of its class."""


def build_network(settings: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """The network that some weights fit.

    Args:
        settings: of a network's ``settings()``, as in the ``network`` entry of a ``model.json``; without ``class`` it
            is a :class:`~glas_wsol.networks.minmax.MinMaxEntropyNetwork`. Those of an ensemble's ``members`` may each
            have a ``trunk`` of their own.
        arguments: the other arguments of its class: ``trunk``, ``weights``, ``num_classes`` and so on. With the trunk
            ``"none"``, as in a baseline's card, what belongs to a trunk is left out.

    Raises:
        ConfigError: if there is no such network, or it has no such argument.
    """
    name = settings.get("class", MinMaxEntropyNetwork.__name__)
    if arguments.get("trunk") == "none":
        arguments = {k: v for k, v in arguments.items() if k not in ("trunk", "weights", "seed")}
    if name == EnsembleNetwork.__name__:
        return EnsembleNetwork([_member(one, arguments) for one in settings.get("members", ())])
    return construct(NETWORKS, settings, arguments)


def _member(settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> nn.Module:
    own = {k: v for k, v in settings.items() if k == "trunk"}
    return build_network({k: v for k, v in settings.items() if k not in own}, **{**arguments, **own})
