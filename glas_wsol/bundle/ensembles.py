# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Ensembles of trained models from their files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.utils import ensure_tuple
from torch import nn

from glas_wsol.bundle import model_card
from glas_wsol.networks import EnsembleNetwork, build_network
from glas_wsol.networks.weights import sha256_of
from glas_wsol.utils.settings import as_json, settings_of

__all__ = ["ensemble_of", "model_digests"]


def ensemble_of(network: nn.Module, checkpoint: str | Sequence[str], trunk: str) -> nn.Module:
    """The network that one checkpoint or several are to be loaded into.

    Args:
        network: as a config describes it.
        checkpoint: one file, and it is the network itself; several, and it is an ensemble on the network's device. A
            member whose card has the network's settings and trunk is a copy of it, so that what no card says (how a
            trained network is explained) is as in the config; any other is built as its card says.
        trunk: name of the network's trunk.

    Raises:
        ConfigError: if there is no checkpoint, or a card names no network that there is.
        WeightsError: if a card cannot be read.
    """
    files = [str(one) for one in ensure_tuple(checkpoint)]
    if len(files) == 1:
        return network
    own, members = as_json(settings_of(network)), []
    for file in files:
        card = model_card(file, network=own, trunk=trunk)
        if (card["network"], card["trunk"]) == (own, trunk):
            members.append(copy.deepcopy(network))
        else:
            arguments = {"trunk": card["trunk"], "weights": "none", "num_classes": network.num_classes}
            members.append(build_network(card["network"], **arguments))
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    return EnsembleNetwork(members).to(device)


def model_digests(checkpoint: str | Sequence[str]) -> list[str]:
    """SHA-256 of every model's file, for the record; a file that is not there has none.

    Args:
        checkpoint: one file or several.
    """
    files = [str(one) for one in ensure_tuple(checkpoint)]
    return [sha256_of(file) for file in files if Path(file).is_file()]
