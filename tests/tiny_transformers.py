# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Folders of vision transformers with random weights, as transformers saves them: two layers of 32 features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("Dinov2", {"image_size": 56}),
    "dinov2_with_registers": ("Dinov2WithRegisters", {"image_size": 56, "patch_size": 14, "num_register_tokens": 4}),
    "dinov3": ("DINOv3ViT", {"image_size": 64, "intermediate_size": 64, "num_register_tokens": 4}),
    "vit": ("ViT", {"image_size": 64, "intermediate_size": 64}),
    "midnight": ("Dinov2", {"image_size": 56, "use_swiglu_ffn": True}),
    "hibou": ("Dinov2WithRegisters", {"image_size": 56, "patch_size": 14, "use_swiglu_ffn": True}),
}
"""Of each kind the class of transformers and what its published models have; Hibou's also ask for code of their own."""

MEAN, STD = [0.71, 0.58, 0.7], [0.2, 0.23, 0.19]


def change(file: Path, **values: Any) -> None:
    """Set entries of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def write_transformer(folder: Path, kind: str, seed: int = 0, **saving: Any) -> nn.Module:
    """Write a folder, and return the model that is in it."""
    name, options = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**_SMALL, **options))
        for parameter in model.parameters():  # also those that start at 0 or 1, such as registers
            nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder, **saving)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [pathology]\n---\n# A model\n")
    if kind == "hibou":
        code = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
        change(folder / "config.json", model_type="dinov2", auto_map=code, architectures=["OwnModel"])
        (folder / "modeling_own.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w')\n")
    return model
