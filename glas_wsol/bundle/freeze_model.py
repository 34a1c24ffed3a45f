# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Freezes the decoder's statistics of a trained model, as training does since there is ``decoder_norm``."""

from __future__ import annotations

from pathlib import Path

from glas_wsol.data import load_datalist
from glas_wsol.data.cub import CUB5_CLASSES
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.handlers.run_checkpoint import write_model
from glas_wsol.loading import ModelSource, load_localizer
from glas_wsol.networks import build_network
from glas_wsol.networks.checkpoint import load_checkpoint, model_card
from glas_wsol.networks.frozen_norm import freeze, frozen_norms, measure_statistics

__all__ = ["freeze_model"]


def freeze_model(model: str | Path, data: str | Path, output: str | Path) -> Path:
    """Measure the decoder's statistics over a model's training images, and write a model that has them.

    Args:
        model: a ``model.pt`` with its ``model.json``, the output folder of a training, or an exported bundle.
        data: the data it was trained on, of which the training images are read, no mask.
        output: receives ``model.pt`` and ``model.json``, without the alarm, which judged other masks.

    Returns:
        The new weights' file.

    Raises:
        ConfigError: if it has no decoder of the second stage, or its statistics are frozen, or the data are others.
        OutputError: if there is a model already.
        WeightsError: if there is no model, or its files do not fit.
    """
    checkpoint, target = str(ModelSource(Path(model)).checkpoint), Path(output) / "model.pt"
    if target.exists():
        raise OutputError("a model is here already", target, "choose another output folder")
    localize, card = load_localizer(model), model_card(checkpoint)
    local, trunk = getattr(localize.network, "local", False), getattr(localize.network, "trunk", None)
    whole = trunk is not None and not trunk.local
    if local or whole or not frozen_norms(localize.network):
        what = "its mask is local already" if local else "it has no decoder of a second stage"
        what = "the features of its transformer depend on the whole image" if whole else what
        raise ConfigError(f"nothing to freeze in this model: {what}", model, "use it as it is")
    fold, seed, classes = card.get("fold", "paper"), card.get("fold_seed", 0), card["classes"]
    birds = "cub5" if tuple(classes) == CUB5_CLASSES else classes
    found = load_datalist(data, fold, seed, classes=birds, label_names=classes)
    if card.get("recipe", {}).get("training_images") != found.digest("train"):
        raise ConfigError("these are not the images that the model was trained on", data, "name its training data")
    tiles = found.select("train")
    statistics = measure_statistics(localize.network, tiles, lambda item: localize(item["image"], mpp=item.get("mpp")))
    network = build_network(card["network"], trunk=card["trunk"], weights="none", num_classes=len(card["classes"]))
    load_checkpoint(network, checkpoint)
    freeze(network, statistics)
    write_model(network, output, {name: value for name, value in card.items() if name != "alarm"})
    return target
