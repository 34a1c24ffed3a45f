# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Transformers as trunks: their own features, the same object for all, no copy of weights, and folders refused."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from glas_wsol.doctor import check_weights
from glas_wsol.errors import ConfigError, GlasWsolError, WeightsError
from glas_wsol.networks import (
    AttentionNetwork,
    ClassActivationNetwork,
    CorrectedNetwork,
    FeatureComponentNetwork,
    MinMaxEntropyNetwork,
    RefinedNetwork,
    SegmentationNetwork,
    build_trunk,
    fold_batch_norm,
    transformer_folder,
    transformer_trunk,
)
from glas_wsol.networks.weights import load_strictly
from glas_wsol.slides.cell_network import CellNetwork
from tests.tiny_transformers import KINDS, MEAN, STD, change, write_transformer


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[str, nn.Module]]:
    """Of every kind the name of its trunk, and the model that was written there."""
    root = tmp_path_factory.mktemp("transformers")
    return {kind: (f"hf:{root / kind}", write_transformer(root / kind, kind)) for kind in KINDS}


def image(height: int = 75, width: int = 110) -> torch.Tensor:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    x[:, 0, :20, :30] *= 0.2
    return x


def tokens_of(model: Any, x: torch.Tensor) -> np.ndarray:
    """Patch tokens ``[B, n, h, w]`` of transformers' own forward, of 96 x 128 px, where a patch covers 16 px."""
    padded = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), (0, 21), (0, 18)], mode="edge"))
    side = model.config.patch_size
    if side == 14:
        padded = F.interpolate(padded, size=(84, 112), mode="bilinear", align_corners=False)
    options = {"interpolate_pos_encoding": True} if side == 16 and type(model).__name__ == "ViTModel" else {}
    with torch.no_grad():
        tokens = model(padded, **options).last_hidden_state.numpy()
    before = 1 + getattr(model.config, "num_register_tokens", 0)
    assert tokens.shape == (2, before + 6 * 8, 32)
    return np.stack([tokens[:, before + 8 * row : before + 8 * row + 8].transpose(0, 2, 1) for row in range(6)], axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_are_tokens_of_transformers_own_forward(made, kind):
    name, model = made[kind]
    trunk, x = build_trunk(name), image()
    stages = trunk.stages_of(x)
    assert [tuple(one.shape) for one in stages] == [
        (2, n, -(-75 // s), -(-110 // s)) for n, s in zip(trunk.stage_channels(), (2, 4, 8, 16, 32), strict=True)
    ]
    tokens = tokens_of(model, x)
    assert float(tokens.std()) > 0.01
    np.testing.assert_allclose(stages[3].numpy(), tokens[:, :, :5, :7], atol=1e-5)
    coarse = tokens.reshape(2, 32, 3, 2, 4, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(stages[4].numpy(), coarse[:, :, :3, :4], atol=1e-5)
    assert torch.equal(trunk(x), stages[4])
    np.testing.assert_allclose(
        stages[2].numpy()[:, :, 4, 6], tokens[:, :, 1:3, 2:4].reshape(2, 32, 4) @ NEAR, atol=1e-5
    )
    for stride, stage in zip((2, 4), stages, strict=False):
        assert torch.equal(stage[1, 2 * stride**2 + stride + 1, 5, 9], x[1, 2, 5 * stride + 1, 9 * stride + 1])
    assert (trunk.pixel_mean, trunk.pixel_std) == (tuple(MEAN), tuple(STD))
    assert trunk.licence == "mit"
    assert not (Path(name[3:]).parent / "ran").exists(), "no code of the folder has run"


# Bilinear: row 4 of stride 8 lies at 1.75 of stride 16, column 6 at 2.75.
NEAR = np.array([0.25 * 0.25, 0.25 * 0.75, 0.75 * 0.25, 0.75 * 0.75], dtype=np.float32)


def test_transformer_is_held_once_frozen_and_not_copied(made):
    name, _ = made["dinov2"]
    network = MinMaxEntropyNetwork(name, batch_norm="frozen", seed=0).train()
    trunk, other = network.trunk, copy.deepcopy(network).trunk
    held = trunk.stages.source.held
    assert other.stages.source.held is held
    assert build_trunk(name).stages.source.held is held
    assert not any(one.requires_grad for one in held.model.parameters())
    assert not any(one.training for one in held.model.modules())
    assert [one for one in network.state_dict() if one.startswith("trunk.")] == ["trunk.stages.digest"]
    folder = Path(name[3:])
    files = [folder / "config.json", folder / "model.safetensors"]
    text = "".join(f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files)
    assert trunk.weights_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert bytes(network.state_dict()["trunk.stages.digest"].tolist()).hex() == trunk.weights_sha256


NETWORKS: dict[str, Any] = {
    "minmax": MinMaxEntropyNetwork,
    "minmax_8": lambda trunk, **more: MinMaxEntropyNetwork(trunk, map_stride=8, **more),
    "cam": ClassActivationNetwork,
    "grad_cam++": lambda trunk, **more: ClassActivationNetwork(trunk, explanation="grad_cam++", **more),
    "deep_mil": AttentionNetwork,
    "unet": SegmentationNetwork,
    "components": FeatureComponentNetwork,
    "refined": lambda trunk, **more: RefinedNetwork(trunk, decoder_width=8, **more),
    "corrected": lambda trunk, **more: CorrectedNetwork(trunk, first={"class": "ClassActivationNetwork"}, **more),
}


@pytest.mark.parametrize("row", NETWORKS)
def test_every_network_works_on_a_transformer(made, row):
    network = NETWORKS[row](made["dinov3"][0], seed=1).eval()
    x = image(64, 96).sigmoid()
    with torch.no_grad():
        prediction = network(x)
        folded = fold_batch_norm(copy.deepcopy(network))(x)
    torch.testing.assert_close(prediction.sum(1), torch.ones(2, 64, 96), rtol=0, atol=1e-6)
    assert prediction.isfinite().all()
    torch.testing.assert_close(folded, prediction, rtol=1e-4, atol=1e-5)
    assert not network.local
    with pytest.raises(ConfigError, match="the trunk of this model is a transformer"):
        CellNetwork.check(network)


def test_decoder_learns_a_stem_on_the_image(made):
    network = RefinedNetwork(made["vit"][0], decoder_width=8, seed=0).train()
    network.mask_logits(image(64, 96)).square().mean().backward()
    moved = [name for name, one in network.named_parameters() if one.grad is not None and bool(one.grad.abs().sum())]
    assert {name.partition(".")[0] for name in moved} == {"decoder"}
    assert "decoder.lateral.0.0.weight" in moved
    groups = MinMaxEntropyNetwork(made["vit"][0], batch_norm="frozen").parameter_groups(1e-4, 1e-3)
    assert groups[0]["params"] == [], "nothing of the trunk is trained"
    torch.optim.AdamW(groups).step()


def test_gradient_passes_through_the_frozen_transformer(made):
    trunk, x = build_trunk(made["dinov2"][0]), image(64, 96).requires_grad_()
    trunk(x).square().sum().backward()
    assert float(x.grad[:, :, 40:, 70:].abs().sum()) > 0


@pytest.mark.parametrize("way", ["weights", "config"])
def test_model_of_a_changed_transformer_is_refused(tmp_path, way):
    write_transformer(tmp_path / "a", "vit")
    state = MinMaxEntropyNetwork(f"hf:{tmp_path / 'a'}", seed=0).state_dict()
    (tmp_path / "a").rename(tmp_path / "moved")
    name = f"hf:{tmp_path / 'moved'}"
    load_strictly(MinMaxEntropyNetwork(name), state, "model.pt", "")
    if way == "weights":
        file = tmp_path / "moved" / "model.safetensors"
        tensors = load_file(file)
        tensors["layernorm.bias"] = tensors["layernorm.bias"] + 1e-3
        save_file(tensors, file, {"format": "pt"})
    else:
        change(tmp_path / "moved" / "config.json", num_attention_heads=4)
    with pytest.raises(WeightsError, match="not the one that the model was trained with: SHA-256") as caught:
        load_strictly(MinMaxEntropyNetwork(name), state, "model.pt", "")
    assert "\n" not in str(caught.value)
    assert "moved" in str(caught.value)


def test_weights_in_several_files_are_one_transformer(tmp_path):
    model = write_transformer(tmp_path, "dinov2_with_registers", max_shard_size="30KB")
    names = sorted(one.name for one in tmp_path.glob("*.safetensors"))
    assert len(names) > 2
    trunk = build_trunk(f"hf:{tmp_path}")
    np.testing.assert_allclose(trunk.stages_of(image())[3].numpy(), tokens_of(model, image())[:, :, :5, :7], atol=1e-5)
    (tmp_path / names[1]).unlink()
    with pytest.raises(WeightsError, match=f"{names[1]} of the transformer is missing"):
        build_trunk(f"hf:{tmp_path}")


def _without(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors", {"format": "pt"})


def _add(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors") | {"embeddings.register_tokens": torch.zeros(1, 4, 32)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


FAULTS: dict[str, tuple[Any, str]] = {
    "config": (lambda f: (f / "config.json").unlink(), "config.json of the transformer is missing"),
    "json": (lambda f: (f / "config.json").write_text("{"), "config.json of the transformer is not a readable JSON"),
    "bin": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "model.safetensors of the transformer is missing",
    ),
    "processor": (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json of the transformer"),
    "mean": (lambda f: change(f / "preprocessor_config.json", image_mean=None), "names no mean and deviation"),
    "code": (
        lambda f: change(f / "config.json", model_type="own", auto_map={"AutoModel": "own.Own"}),
        "asks for code of its own (auto_map), which is never run",
    ),
    "no kind": (lambda f: change(f / "config.json", model_type=["dinov2"]), "is none of dinov2, "),
    "kind": (lambda f: change(f / "config.json", model_type="swin"), "model_type 'swin' is none of dinov2, "),
    "value": (lambda f: change(f / "config.json", hidden_size="many"), "cannot be loaded"),
    "patch": (lambda f: change(f / "config.json", patch_size=[14, 28]), "cannot be loaded"),
    "shape": (lambda f: change(f / "config.json", hidden_size=16), "cannot be loaded"),
    "layers": (lambda f: change(f / "config.json", num_hidden_layers=3), "weights of the transformer are missing"),
    "tensor": (lambda f: _without(f, "layernorm.bias"), "1 weights of the transformer are missing (first: layernorm"),
    "others": (_add, "1 weights of the transformer are not of this kind of model"),
    "damage": (_cut, "cannot be loaded"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter too"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_folder_with_a_fault_is_refused_in_one_line(tmp_path, fault, capfd):
    write_transformer(tmp_path / "model", "dinov2", seed=2)
    make, said = FAULTS[fault]
    make(tmp_path / "model")
    capfd.readouterr()
    with pytest.raises(WeightsError) as caught:
        build_trunk(f"hf:{tmp_path / 'model'}")
    assert said in str(caught.value)
    assert str(tmp_path / "model") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "nothing else is printed"


def test_wrong_folder_weights_or_package_are_refused(made, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no such folder of a transformer"):
        build_trunk("hf:facebook/dinov2-small")
    with pytest.raises(ConfigError, match="weights=package with trunk=hf:"):
        build_trunk(made["vit"][0], "package")
    with pytest.raises(ConfigError, match="or give hf:FOLDER with a transformer"):
        build_trunk("dinov2")
    (found,) = check_weights(made["vit"][0])
    assert "licence: mit" in str(found)
    monkeypatch.setattr(transformer_trunk, "optional_import", lambda _: (None, False))
    with pytest.raises(ConfigError, match=r"pip install .*transformers") as caught:
        build_trunk(made["vit"][0])
    assert isinstance(caught.value, GlasWsolError)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\nText"}, "apache-2.0"),
        ({"README.md": "---\r\nlicense: mit\r\n---\r\nText"}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: own-research\n---\n"}, "own-research"),
        ({"README.md": "---\nlicense: [a: b\n---\n", "LICENSE": "\n  MIT License\nmore"}, "MIT License"),
        ({"README.md": "# A model\n---\nlicense: mit\n---\n", "LICENSE.txt": "Own terms"}, "Own terms"),
        ({"README.md": "# A model"}, "not stated"),
        ({}, "not stated"),
    ],
)
def test_licence_is_what_the_files_say(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text, newline="")
    assert transformer_folder._licence(tmp_path) == expected


def test_processor_without_normalisation_leaves_pixels_alone(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "image_mean": [1, 1, 1]}))
    assert transformer_folder._normalisation(tmp_path) == ((0.0,) * 3, (1.0,) * 3)
