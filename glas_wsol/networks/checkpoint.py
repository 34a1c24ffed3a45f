# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Load trained models from their files: the description in ``model.json``, the weights, and several as an ensemble."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple
from torch import nn

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks.base import TileNetwork
from glas_wsol.networks.ensemble import EnsembleNetwork, common_card
from glas_wsol.networks.familiarity import FAMILIARITY, Familiarity
from glas_wsol.networks.registry import build_network
from glas_wsol.networks.trunks import is_folder
from glas_wsol.networks.weights import load_strictly, read_state_dict
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.settings import Fingerprint, as_json, settings_of

__all__ = ["ensemble_of", "load_checkpoint", "model_card", "model_digests"]

logger = logging.getLogger(__name__)


def model_card(checkpoint: str | Sequence[str], **defaults: Any) -> dict[str, Any]:
    """The description of a checkpoint: trunk, classes, resolution, from the ``model.json`` beside it.

    Args:
        checkpoint: the weights' file; for several, their description as an ensemble, see
            :func:`~glas_wsol.networks.ensemble.common_card`.
        defaults: what to assume where there is no ``model.json`` or it lacks an entry.

    Raises:
        ConfigError: if several models do not fit together.
        WeightsError: if ``model.json`` cannot be read.
    """
    files = [str(one) for one in ensure_tuple(checkpoint)]
    if len(files) != 1:
        return common_card([model_card(file, **defaults) for file in files], files)
    checkpoint = files[0]
    path = Path(checkpoint).with_suffix(".json")
    if not path.is_file():
        if Path(checkpoint).is_file():
            logger.warning("%s is not there: trunk, classes and resolution are taken from the config", path)
        return defaults
    try:
        card = {**defaults, **_renamed(dict(read_json(path)))}
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError("the model's description cannot be read", path, "restore it or delete it") from error
    mpp = card.get("mpp")
    if mpp is not None and not (type(mpp) in (int, float) and 0 < mpp < math.inf):
        raise WeightsError(f"mpp={mpp!r} is not a size of a pixel", path, "give micrometres, or null where unknown")
    return card


def _renamed(value: Any) -> Any:
    """A card with the present names of settings, which may have had others when it was written."""
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    found = {"class_from" if key == "opinion" else key: _renamed(one) for key, one in value.items()}
    if "classes_per_image" in found:
        found["multi_label"] = found.pop("classes_per_image") == "several"
    return found


def load_checkpoint(network: Any, checkpoint: str | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
    """Load a trained model into a network, strictly, and only with the settings it was trained with.

    What ``model.json`` says of the training images becomes the network's ``familiarity``.

    Args:
        network: the network the weights were trained with.
        checkpoint: a plain state dict, ``.pt`` or ``.safetensors``; for an ensemble a list of them, one per member.
        settings: compared with the ``model.json`` beside it, in addition to the network's settings. An ensemble's
            members may have trunks of their own.

    Raises:
        ConfigError: if a setting differs from the one the model was trained with, or there are not as many files as
            members.
        WeightsError: if the file is missing, unsafe, or of another network.
    """
    files = [str(one) for one in ensure_tuple(checkpoint)]
    members = list(network.members) if isinstance(network, EnsembleNetwork) else [network]
    if len(files) != len(members):
        what = f"{len(files)} checkpoints for a network of {len(members)}"
        raise ConfigError(what, "checkpoint", "name one file, or several of an ensemble's members")
    if isinstance(network, EnsembleNetwork):
        settings = {k: v for k, v in (settings or {}).items() if k != "trunk"}
        for member, file in zip(members, files, strict=True):
            load_checkpoint(member, file, settings)
        return
    checkpoint = files[0]
    if not Path(checkpoint).is_file():
        raise WeightsError("no trained model", checkpoint, "train first, or name a model with --checkpoint FILE")
    card, settings = model_card(checkpoint), dict(settings or {})
    if is_folder(card.get("trunk")) and is_folder(settings.get("trunk")):  # it may have moved: its digest is compared
        del settings["trunk"]
    now = Fingerprint.of(settings, {"network_def": network})
    then = Fingerprint({**card, **{f"network_def#{k}": v for k, v in dict(card.get("network") or {}).items()}})
    changed = then.changes(now, known=True)
    if changed:
        fix = "give the settings and overlays it was trained with"
        raise ConfigError("the model was trained with other settings: " + ", ".join(changed), checkpoint, fix)
    trunk = f" ({card['trunk']})" if "trunk" in card else ""
    fix = f"give the trunk{trunk} and the classes it was trained with"
    state = read_state_dict(checkpoint)
    if card.get("sha256", digest := sha256_of(checkpoint)) != digest:
        what = "the model is not the one that model.json beside it describes"
        raise WeightsError(what, checkpoint, "resume the training that wrote them, or delete model.json")
    load_strictly(network, state, checkpoint, fix)
    if isinstance(network, TileNetwork):
        network.familiarity = Familiarity.read(card.get(FAMILIARITY), Path(checkpoint).with_suffix(".json"))


def ensemble_of(network: nn.Module, checkpoint: str | Sequence[str], trunk: str) -> nn.Module:
    """The network that one checkpoint or several are to be loaded into.

    Args:
        network: as a config describes it.
        checkpoint: one file, and it is the network itself; several, and it is an ensemble on the network's device. A
            member whose card has the network's settings and trunk is a copy of it, so that what no card records (the
            explanation of a trained network) is as in the config; any other is built from its card.
        trunk: name of the network's trunk.

    Raises:
        ConfigError: if there is no checkpoint, or a card names an unknown network.
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
    """SHA-256 of one model's file, or of several, for the record; a file that is not there has none."""
    files = [str(one) for one in ensure_tuple(checkpoint)]
    return [sha256_of(file) for file in files if Path(file).is_file()]
