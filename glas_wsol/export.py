# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A self-contained copy of a bundle: its configs and documents, the model, and this package beside them."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import glas_wsol
from glas_wsol.errors import ConfigError, OutputError, WeightsError

__all__ = ["export_bundle"]


def export_bundle(bundle: str | Path, output: str | Path, model: str | Path | None = None) -> Path:
    """Copy a bundle so that it runs from any place with only the packages its metadata declares.

    Args:
        bundle: the bundle's folder.
        output: folder that receives ``<bundle name>``; an earlier export of it is replaced when the new one is whole.
        model: a trained ``model.pt`` (its ``model.json`` goes with it), or None to ship the bundle untrained.

    Returns:
        The copy.

    Raises:
        ConfigError: if ``bundle`` is not a bundle.
        OutputError: if the target exists and is not an export.
        WeightsError: if there is no such model.
    """
    bundle, output = Path(bundle), Path(output)
    if not (bundle / "configs" / "metadata.json").is_file():
        raise ConfigError("not a bundle", bundle, "name a folder that holds configs/metadata.json")
    target = output / bundle.resolve().name
    if target.exists() and not (target / "glas_wsol").is_dir():
        raise OutputError("this folder is not an exported bundle", target, "choose another output folder")
    if model is not None and not Path(model).is_file():
        raise WeightsError("no such model", model, "name the model.pt of a training run")
    output.mkdir(parents=True, exist_ok=True)
    whole = output / f".{uuid.uuid4().hex}.part"
    try:
        ignored = shutil.ignore_patterns("__pycache__", "*.pt", "*.ts", "*.onnx", "eval")
        shutil.copytree(bundle, whole, ignore=ignored)
        shutil.copytree(Path(glas_wsol.__file__).parent, whole / "glas_wsol", ignore=ignored)
        (whole / "models").mkdir(exist_ok=True)
        if model is not None:
            shutil.copy2(model, whole / "models" / "model.pt")
            card = Path(model).with_suffix(".json")
            if card.is_file():
                shutil.copy2(card, whole / "models" / "model.json")
                _describe(whole / "configs" / "inference.json", json.loads(card.read_text(encoding="utf-8")))
        if target.exists():
            shutil.rmtree(target)
        whole.rename(target)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return target


def _describe(config: Path, card: dict[str, Any]) -> None:
    """Write what the shipped model is into the inference config: MONAI's `load` reads no model.json."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["card"].update({key: card[key] for key in content["card"].keys() & card.keys()})
    config.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
