# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Trunks against independent networks written here from the papers, and every way to name weights."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks import trunks
from glas_wsol.networks.trunks import TRUNKS, build_trunk
from glas_wsol.networks.weights import fetch, read_state_dict

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def torchvision_names(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, written down from its published layout."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(prefix: str, n: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.{part}"] = (n,)
        shapes[f"{prefix}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64)
    channels = 64
    for layer, depth in enumerate(DEPTHS[name], start=1):
        width = 64 * 2 ** (layer - 1)
        kernels = [(width, 3), (width, 3)] if name == "resnet18" else [(width, 1), (width, 3), (4 * width, 1)]
        for block in range(depth):
            source = channels
            for i, (out, k) in enumerate(kernels, start=1):
                shapes[f"layer{layer}.{block}.conv{i}.weight"] = (out, source, k, k)
                norm(f"layer{layer}.{block}.bn{i}", out)
                source = out
            if block == 0 and (channels != source or layer > 1):
                shapes[f"layer{layer}.0.downsample.0.weight"] = (source, channels, 1, 1)
                norm(f"layer{layer}.0.downsample.1", source)
            channels = source
    shapes |= {"fc.weight": (1000, channels), "fc.bias": (1000,)}
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        if len(shape) == 1:
            return torch.rand(shape, generator=generator) + 0.5
        return torch.randn(shape, generator=generator) / (1 + 3 * shape[1])

    return {name: draw(name, shape) for name, shape in shapes.items()}


def functional_resnet(state: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    """He et al. 2016 with torchvision's strides (on the 3x3 convolution), from plain functions."""

    def norm(prefix: str, y: Tensor) -> Tensor:
        s = {part: state[f"{prefix}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(y, s["running_mean"], s["running_var"], s["weight"], s["bias"])

    x = F.max_pool2d(norm("bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)).relu(), 3, 2, 1)
    for layer, depth in enumerate(DEPTHS[name], start=1):
        for block in range(depth):
            prefix, stride, shortcut = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1, x
            convolutions = 2 if name == "resnet18" else 3
            strided = 1 if name == "resnet18" else 2
            y = x
            for i in range(1, convolutions + 1):
                weight = state[f"{prefix}.conv{i}.weight"]
                y = F.conv2d(y, weight, stride=stride if i == strided else 1, padding=weight.shape[-1] // 2)
                y = norm(f"{prefix}.bn{i}", y)
                y = y.relu() if i < convolutions else y
            if f"{prefix}.downsample.0.weight" in state:
                shortcut = norm(
                    f"{prefix}.downsample.1", F.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride)
                )
            x = (y + shortcut).relu()
    return x


@pytest.mark.parametrize("name", list(DEPTHS))
def test_torchvision_state_dicts_load_strictly(name, tmp_path):
    state = random_state(torchvision_names(name))
    save_file(state, tmp_path / "net.safetensors")
    trunk = build_trunk(name, str(tmp_path / "net.safetensors")).eval()
    assert trunk.weights_sha256 == hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        features = trunk(x)
        expected = functional_resnet(state, x, name)
    assert features.shape == (1, TRUNKS[name].channels, 2, 3)
    assert torch.equal(features, expected), "outputs must be bit-equal"


def functional_lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 with TensorFlow's SAME padding, from plain functions and the file's own names."""

    def norm(prefix: str, y: Tensor) -> Tensor:
        s = {part: state[f"{prefix}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(y, s["running_mean"], s["running_var"], s["weight"], s["bias"], eps=1e-3)

    def same(y: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
        k = weight.shape[-1]
        pads: list[int] = []
        for size in (y.shape[-1], y.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + k - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(y, pads), weight, stride=stride, groups=groups)

    x = F.relu6(norm("_bn0", same(x, state["_conv_stem.weight"], 2)))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for block in range(16):
        prefix, y = f"_blocks.{block}", x
        if f"{prefix}._expand_conv.weight" in state:
            y = F.relu6(norm(f"{prefix}._bn0", F.conv2d(y, state[f"{prefix}._expand_conv.weight"])))
        depthwise = state[f"{prefix}._depthwise_conv.weight"]
        y = F.relu6(norm(f"{prefix}._bn1", same(y, depthwise, strides.get(block, 1), groups=depthwise.shape[0])))
        y = norm(f"{prefix}._bn2", F.conv2d(y, state[f"{prefix}._project_conv.weight"]))
        x = x + y if y.shape == x.shape and strides.get(block, 1) == 1 else y
    return F.relu6(norm("_bn1", F.conv2d(x, state["_conv_head.weight"])))


def test_trunk_packaged_weights_equal_independent_network():
    trunk = build_trunk("efficientnet_lite0", "package").eval()
    state = read_state_dict(trunks._packaged(TRUNKS["efficientnet_lite0"]))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, expected = trunk(x), functional_lite0(state, x)
    assert features.shape == (1, 1280, 2, 3)
    assert float(expected.abs().mean()) > 0.01
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert trunk.pixel_mean == (127 / 255,) * 3
    assert trunk.pixel_std == (128 / 255,) * 3


def test_a_pickle_of_tensors_loads_and_one_of_code_does_not(tmp_path):
    state = random_state(torchvision_names("resnet18"))
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "net.pth")  # as a distributed wrapper saves it
    trunk = build_trunk("resnet18", str(tmp_path / "net.pth"))
    assert torch.equal(trunk.stages[0][0].weight, state["conv1.weight"])

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    torch.save({"conv1.weight": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(WeightsError):
            build_trunk("resnet18", str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


def test_a_trunk_without_its_classification_layer_loads(tmp_path):
    state = {k: v for k, v in random_state(torchvision_names("resnet18")).items() if not k.startswith("fc.")}
    save_file(state, tmp_path / "net.safetensors")
    assert torch.equal(
        build_trunk("resnet18", str(tmp_path / "net.safetensors")).stages[0][0].weight, state["conv1.weight"]
    )


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    save_file(random_state(torchvision_names("resnet50")), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="another network") as caught:
        build_trunk("resnet18", str(tmp_path / "net.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a file of weights", b"\x80\x02garbage"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, content, suffix):
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(WeightsError):
        read_state_dict(tmp_path / f"net{suffix}")
    with pytest.raises(WeightsError, match="no such"):
        read_state_dict(tmp_path / f"absent{suffix}")


def test_automatic_weights_warn_where_there_are_none():
    with pytest.warns(UserWarning, match="random weights"):
        trunk = build_trunk("resnet18", "auto")
    assert trunk.weights_sha256 == ""
    with pytest.raises(ConfigError, match="efficientnet_lite0"):
        build_trunk("resnet18", "package")
    with pytest.raises(ConfigError, match="resnet101"):
        build_trunk("resnet34")


def test_a_url_needs_a_digest_and_the_digest_must_be_right(tmp_path, monkeypatch):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked: list[str] = []

    def download(url, target, hash_prefix):
        asked.append(url)
        if hash_prefix != digest:
            raise RuntimeError("invalid hash value")
        Path(target).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    address = "https://example.org/net.safetensors"
    for bad in (address, address + "#sha256=12", "http://example.org/net.pth#sha256=" + digest):
        with pytest.raises(WeightsError, match="digest"):
            fetch(bad)
    assert asked == []
    with pytest.raises(WeightsError, match="download failed"):
        fetch(f"{address}#sha256={'0' * 64}")
    assert fetch(f"{address}#sha256={digest}").read_bytes() == content
    assert fetch(f"{address}#sha256={digest}").read_bytes() == content
    assert len(asked) == 2, "a file that is there already is not downloaded again"
    fetch(f"{address}#sha256={digest}").write_bytes(b"tampered")
    with pytest.raises(WeightsError, match="wrong SHA-256"):
        fetch(f"{address}#sha256={digest}")


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_gradient_reaches_the_first_layer(name):
    trunk = build_trunk(name, "none")
    trunk(torch.rand(2, 3, 64, 64)).sum().backward()
    first = next(iter(trunk.parameters()))
    assert float(first.grad.abs().sum()) > 0


def test_every_layer_is_a_module_of_torch_that_scripts():
    scripted = torch.jit.script(build_trunk("efficientnet_lite0", "none").eval())
    assert isinstance(scripted, nn.Module)
    assert scripted(torch.rand(1, 3, 32, 64)).shape == (1, 1280, 1, 2)


@pytest.mark.parametrize("name", list(TRUNKS))
def test_stage_features_halve_in_size_and_end_in_trunk_output(name):
    trunk = build_trunk(name, "none").train()
    trunk.stages[1].eval()
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    channels, modes = trunk.stage_channels(), [m.training for m in trunk.modules()]
    assert all(torch.equal(before[k], v) for k, v in trunk.state_dict().items()), "no running statistics moved"
    assert not any(m.training for m in trunk.stages[1].modules())
    assert sum(modes) == len(modes) - sum(1 for _ in trunk.stages[1].modules())
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 96)
        features = trunk.eval().stages_of(x)
        one_at_a_time = [trunk.stages[0](x)]
        for stage in list(trunk.stages)[1:]:
            one_at_a_time.append(stage(one_at_a_time[-1].clone()))
    assert [tuple(f.shape) for f in features] == [(1, n, 64 >> i, 96 >> i) for i, n in enumerate(channels, start=1)]
    assert channels[-1] == TRUNKS[name].channels
    # A later stage that works in place would overwrite what an earlier one gave.
    assert all(torch.equal(f, g) for f, g in zip(features, one_at_a_time, strict=True))
    assert torch.equal(features[-1], trunk(x))
