# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Use a vision transformer from a local folder as a trunk: frozen, and known by its files, which no model copies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.utils import optional_import
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks.maps import bilinear
from glas_wsol.networks.transformer_folder import TransformerFolder
from glas_wsol.networks.trunks import FOLDER_PREFIX, Trunk

__all__ = ["TransformerStages", "TransformerTrunk", "build_transformer_trunk"]

_STRIDES = (2, 4, 8, 16, 32)


class TransformerStages(nn.Module):
    """Five stages of a frozen transformer, whose features have a single stride.

    An image is padded on the right and below, by its last pixels, to multiples of 32. It is then resized so that a
    patch covers a power of two of its pixels, the *stride* of the features: 16 for patches of 16, and of 14, of which
    the image is made 14 / 16 as large. The features are the patch tokens of the last layer, normalised as the
    transformer does it; class and register tokens are dropped. Coarser stages are means of them, finer ones are
    interpolated. The stages of strides 2 and 4 are the image itself, its pixels as channels: what the
    transformer cannot say of details a decoder learns from them.

    Args:
        source: the transformer.
    """

    if TYPE_CHECKING:  # a buffer
        digest: Tensor

    def __init__(self, source: TransformerFolder) -> None:
        super().__init__()
        self.source = source
        self.stride = 2 ** round(math.log2(source.patch))
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(source.sha256)), dtype=torch.uint8))

    def forward(self, x: Tensor, every: bool) -> list[Tensor]:
        """Features of the last stage, or of every one.

        Args:
            x: ``[B, 3, H, W]``, normalised.
            every: whether those of all stages are returned.

        Returns:
            ``[B, n, h, w]`` each, ``h`` and ``w`` the sides divided by the stage's stride, rounded up; of the last
            stage alone unless ``every``.
        """
        height, width = x.shape[2], x.shape[3]
        padded = F.pad(x, [0, -width % 32, 0, -height % 32], mode="replicate")
        tokens = self._tokens(padded)
        found: list[Tensor] = []
        for stride in _STRIDES if every else _STRIDES[-1:]:
            stage = self._stage(padded, tokens, stride)
            found.append(stage[:, :, : -(-height // stride), : -(-width // stride)])
        return found

    def _tokens(self, padded: Tensor) -> Tensor:
        """Tokens of the patches, ``[B, channels, h, w]``."""
        rows, columns = padded.shape[2] // self.stride, padded.shape[3] // self.stride
        if self.source.patch != self.stride:
            padded = bilinear(padded, rows * self.source.patch, columns * self.source.patch)
        model = self.source.held.model
        if next(model.parameters()).device != padded.device:
            model.to(padded.device)
        tokens = model(padded, **self.source.options).last_hidden_state[:, self.source.prefix :]
        return tokens.transpose(1, 2).unflatten(2, (rows, columns)).to(padded.dtype)

    def _stage(self, padded: Tensor, tokens: Tensor, stride: int) -> Tensor:
        if stride < 8:
            return F.pixel_unshuffle(padded, stride)
        if stride < self.stride:
            return bilinear(tokens, padded.shape[2] // stride, padded.shape[3] // stride)
        return F.avg_pool2d(tokens, stride // self.stride) if stride > self.stride else tokens

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Refuse weights that were learnt on other features."""
        then = state_dict.get(f"{prefix}digest")
        if then is not None and not torch.equal(then.cpu(), self.digest.cpu()):
            said, here = (bytes(one.tolist()).hex()[:12] for one in (then, self.digest))
            what = f"the transformer is not the one that the model was trained with: SHA-256 {said}..., here {here}..."
            fix = f"restore its files, or give trunk={FOLDER_PREFIX}FOLDER with them"
            raise WeightsError(what, self.source.path, fix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TransformerTrunk(Trunk):
    """A trunk that is a vision transformer of a local folder, the same object for all networks of a process.

    It stays frozen and in evaluation mode. It has no parameter, and of its state only the digest of its files.

    Args:
        source: the transformer.
    """

    local = False
    image_stages = True

    def __init__(self, source: TransformerFolder) -> None:
        stages = TransformerStages(source)
        super().__init__(stages, source.channels, source.pixel_mean, source.pixel_std, source.sha256)
        self.licence = source.licence

    def stage_channels(self) -> list[int]:
        """Feature channels of every stage."""
        return [3 * stride**2 if stride < 8 else self.channels for stride in _STRIDES]


def build_transformer_trunk(name: str, weights: str = "auto") -> TransformerTrunk:
    """The trunk ``hf:FOLDER``; nothing is downloaded, and no code but that of transformers is run.

    Args:
        name: ``hf:`` and the folder of a model as transformers saves it: ``config.json``, ``model.safetensors`` or
            several with their index, and ``preprocessor_config.json``.
        weights: ``"auto"`` or ``"none"``: the folder has them in any case.

    Raises:
        ConfigError: if transformers is missing, or other weights are given.
        WeightsError: if the folder, a file or a value is missing, or the model is none of a known kind.
    """
    if weights not in ("auto", "none"):
        raise ConfigError(f"weights={weights} with trunk={name}", "weights", "leave it out: the folder has the weights")
    transformers, there = optional_import("transformers")
    if not there:
        fix = "install it with `pip install glas_wsol[transformers]`, or choose another trunk"
        raise ConfigError("the package transformers is missing, which loads this trunk", f"trunk={name}", fix)
    folder = Path(name.removeprefix(FOLDER_PREFIX)).expanduser()
    if not folder.is_dir():
        fix = f"download the model, and give its folder as trunk={FOLDER_PREFIX}FOLDER; nothing is downloaded here"
        raise WeightsError("no such folder of a transformer", folder, fix)
    return TransformerTrunk(TransformerFolder.read(folder, transformers))
