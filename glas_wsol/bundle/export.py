# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Exports a self-contained copy of a bundle: configs, documents, model and this package."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from glas_wsol.bundle.command_line import SHIPPED_TARGET, TRAINED
from glas_wsol.errors import ConfigError, OutputError, WeightsError
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.utils.configs import executed_parts
from glas_wsol.utils.json_files import format_config
from glas_wsol.version import PACKAGE

__all__ = ["export_bundle"]

_CACHES = shutil.ignore_patterns("__pycache__", "*.pyc", "bundles")  # an installed package holds the bundles

_OF_CARD = ("trunk", "classes", "scale", "short_side", "stain", "network")


def export_bundle(bundle: str | Path, output: str | Path, model: str | Path | None = None) -> Path:
    """Copy a bundle so that it runs from any place with only the packages its metadata declares.

    Args:
        bundle: the bundle's folder.
        output: folder that receives ``<bundle name>``; an earlier export of it is replaced when the new one is whole.
        model: a trained ``model.pt``; its ``model.json`` goes with it. None takes the bundle's own, if there is one.

    Returns:
        The copy.

    Raises:
        ConfigError: if ``bundle`` is not a bundle, or the model's description has what a config would execute.
        OutputError: if the target exists and is not an export.
        WeightsError: if there is no such model.
    """
    bundle, output = Path(bundle), Path(output)
    if not (bundle / "configs" / "metadata.json").is_file():
        raise ConfigError("not a bundle", bundle, "name a folder that holds configs/metadata.json")
    target = output / bundle.resolve().name
    if target.exists() and not (target / "glas_wsol").is_dir():
        raise OutputError("this folder is not an exported bundle", target, "choose another output folder")
    if target.resolve() == bundle.resolve():
        raise OutputError("the output folder is the bundle itself", target, "choose another output folder")
    if model is not None and not Path(model).is_file():
        raise WeightsError("no such model", model, "name the model.pt of a training run")
    own = bundle / "models" / "model.pt"
    source = Path(model) if model is not None else own if own.is_file() else None
    whole = output / f".{uuid.uuid4().hex}.part"
    try:
        output.mkdir(parents=True, exist_ok=True)
        # By name, not by exclusion: a bundle's folder may hold a user's data and results.
        for part in ("configs", "docs", "samples"):
            if (bundle / part).is_dir():
                shutil.copytree(bundle / part, whole / part, ignore=_CACHES)
        shutil.copytree(PACKAGE, whole / "glas_wsol", ignore=_CACHES)
        shutil.copy2(bundle / "LICENSE", whole)
        for config in (whole / "configs").glob("*.json"):  # the copy's own package goes before an installed one
            text = config.read_text(encoding="utf-8")
            config.write_text(text.replace("sys.path.append(@", "sys.path.insert(0, @"), encoding="utf-8")
        if source != own:  # the figures in it are those of the bundle's own model
            metadata = json.loads((whole / "configs" / "metadata.json").read_text(encoding="utf-8"))
            _write(whole / "configs" / "metadata.json", metadata | {"eval_metrics": {}})
        (whole / "models").mkdir()
        if source is not None:
            shutil.copy2(source, whole / "models" / "model.pt")
            card = source.with_suffix(".json")
            if card.is_file():
                shutil.copy2(card, whole / "models" / "model.json")
                _describe(whole / "configs", model_card(str(model)), card)
        if target.exists():
            shutil.rmtree(target)
        whole.rename(target)
    except (OSError, shutil.Error) as error:
        raise OutputError(f"the bundle cannot be exported ({error})", output, "choose another folder") from error
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return target


def _describe(configs: Path, card: dict[str, Any], where: Path) -> None:
    """Write what the shipped model is into the configs: MONAI's `load` reads no model.json."""
    faults = executed_parts({key: card[key] for key in _OF_CARD if key in card}, "model.json")
    if faults:  # MONAI would execute it
        raise ConfigError(f"the model's description is no plain data: {faults[0]}", where, "correct model.json")
    content = json.loads((configs / "inference.json").read_text(encoding="utf-8"))
    content["card"].update({key: card[key] for key in content["card"].keys() & card.keys()})
    _write(configs / "inference.json", content)
    if not {"network", "trunk", "classes"} <= card.keys() or not (configs / "train.json").is_file():
        return
    # `monai.bundle.load` takes `network_def` of train.json: that of a training may be another network than the model's
    train = (configs / "train.json").read_text(encoding="utf-8").replace("@network_def", f"@{TRAINED}")
    parts = {TRAINED if key == "network_def" else key: value for key, value in json.loads(train).items()}
    parts["network_def"] = {
        "_desc_": f"The shipped model, for monai.bundle.load; a training here takes {TRAINED}.",
        "_target_": SHIPPED_TARGET,
        "settings": card["network"],
        "trunk": card["trunk"],
        "weights": "none",
        "num_classes": len(card["classes"]),
        "seed": 0,
    }
    _write(configs / "train.json", parts)


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(format_config(content), encoding="utf-8")
