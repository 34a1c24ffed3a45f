# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Use a vision transformer from a local folder as a trunk: frozen, and known by its files, which no model copies."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
import yaml
from monai.utils import optional_import
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks.maps import bilinear
from glas_wsol.networks.trunks import FOLDER_PREFIX, Trunk
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import read_json

__all__ = ["NOT_STATED", "TransformerTrunk", "build_transformer_trunk"]

NOT_STATED = "not stated"
"""The licence of a folder whose files name none."""

_REGISTERS = "dinov2_with_registers"
_CLASSES = {
    "dinov2": "Dinov2Model",
    _REGISTERS: "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "vit": "ViTModel",
}
"""By ``model_type`` of ``config.json`` the class of transformers; no other code is run."""

_FORWARD: Mapping[str, dict[str, Any]] = {"vit": {"interpolate_pos_encoding": True}}
_MADE: Mapping[str, dict[str, Any]] = {"vit": {"add_pooling_layer": False}}
_UNUSED = re.compile(r"(^|\.)(pooler|classifier|mask_token)(\.|$)")  # tensors that no feature depends on
_STRIDES = (2, 4, 8, 16, 32)


class _Held:
    """A transformer that several networks hold. It is no module of theirs: never saved, trained or copied with them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __deepcopy__(self, _: Any) -> _Held:
        return self


_LOADED: WeakValueDictionary[str, _Held] = WeakValueDictionary()
"""By the digest of its files: the networks of one run share one transformer."""


class TransformerStages(nn.Module):
    """Five stages of a frozen transformer, whose features have a single stride.

    An image is padded on the right and below, by its last pixels, to multiples of 32. It is then resized so that a
    patch covers a power of two of its pixels, the *stride* of the features: 16 for patches of 16, and of 14, of which
    the image is made 14 / 16 as large. The features are the patch tokens of the last layer, normalised as the
    transformer does it; class and register tokens are dropped. Coarser stages are means of them, finer ones are
    interpolated. The stages of strides 2 and 4 are the image itself, its pixels as channels: what the
    transformer cannot say of details a decoder learns from them.

    Args:
        held: the transformer.
        patch: side of a patch, px.
        channels: of its features.
        options: of its forward.
        prefix: tokens before those of the patches.
        sha256: digest of its files.
        folder: where they are, for messages.
    """

    if TYPE_CHECKING:  # a buffer
        digest: Tensor

    def __init__(
        self, held: _Held, patch: int, channels: int, options: dict[str, Any], prefix: int, sha256: str, folder: Path
    ) -> None:
        super().__init__()
        self.held, self.patch, self.channels = held, patch, channels
        self.options, self.prefix, self.folder = options, prefix, folder
        self.stride = 2 ** round(math.log2(patch))
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))

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
        if self.patch != self.stride:
            padded = bilinear(padded, rows * self.patch, columns * self.patch)
        model = self.held.model
        if next(model.parameters()).device != padded.device:
            model.to(padded.device)
        tokens = model(padded, **self.options).last_hidden_state[:, self.prefix :]
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
            raise WeightsError(what, self.folder, f"restore its files, or give trunk={FOLDER_PREFIX}FOLDER with them")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TransformerTrunk(Trunk):
    """A trunk that is a vision transformer of a local folder, the same object for all networks of a process.

    It stays frozen and in evaluation mode. It has no parameter, and of its state only the digest of its files.

    Args:
        stages: the transformer.
        channels: of its features.
        pixel_mean: mean it expects, for images in [0, 1].
        pixel_std: standard deviation it expects, for images in [0, 1].
        sha256: digest of its files.
        licence: as its files say; :data:`NOT_STATED` where they do not.
    """

    local = False
    image_stages = True

    def __init__(
        self,
        stages: TransformerStages,
        channels: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        sha256: str,
        licence: str,
    ) -> None:
        super().__init__(stages, channels, pixel_mean, pixel_std, sha256)
        self.licence = licence

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
    content = _content(folder, "config.json")
    kind = _kind(content, folder)
    mean, std = _normalisation(folder)
    files = [folder / one for one in _weights_files(folder)]
    sha256 = _digest([folder / "config.json", *files])
    held = _LOADED.get(sha256)
    if held is None:
        held = _LOADED[sha256] = _Held(_load(transformers, kind, content, folder))
    config: Any = held.model.config
    patch, sides = _patch(config, folder), 1 + getattr(config, "num_register_tokens", 0)
    channels = int(config.hidden_size)
    stages = TransformerStages(held, patch, channels, _FORWARD.get(kind, {}), sides, sha256, folder)
    return TransformerTrunk(stages, channels, mean, std, sha256, _licence(folder))


def _content(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder."""
    try:
        return dict(read_json(folder / name))
    except (OSError, ValueError, TypeError) as error:
        what = "missing" if not (folder / name).exists() else "not a readable JSON file"
        raise WeightsError(f"{name} of the transformer is {what}", folder, "download the model again") from error


def _kind(content: Mapping[str, Any], folder: Path) -> str:
    """A key of :data:`_CLASSES`."""
    kind = content.get("model_type")
    if kind == "dinov2" and content.get("num_register_tokens"):
        return _REGISTERS
    if kind in _CLASSES:
        return str(kind)
    what = f"model_type {kind!r} is none of {', '.join(_CLASSES)}"
    if content.get("auto_map"):
        what = f"this model asks for code of its own (auto_map), which is never run, and its {what}"
    raise WeightsError(what, folder, "choose a model of one of these kinds")


def _normalisation(folder: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation that the transformer expects."""
    content = _content(folder, "preprocessor_config.json")
    if content.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    found = [content.get(name) for name in ("image_mean", "image_std")]
    for one in found:
        if not (isinstance(one, list) and len(one) == 3 and all(type(v) in (int, float) for v in one)):
            fix = 'add "image_mean" and "image_std" to it, three numbers each, as the authors of the model say'
            raise WeightsError("preprocessor_config.json names no mean and deviation of pixels", folder, fix)
    mean, std = (tuple(map(float, one or ())) for one in found)
    return mean, std  # pyright: ignore[reportReturnType] - three numbers each


def _weights_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights."""
    names, index = ["model.safetensors"], "model.safetensors.index.json"
    if (folder / "adapter_config.json").exists():  # transformers applies it where the package peft is installed
        fix = "merge it into the model, or remove adapter_config.json"
        raise WeightsError("the folder of the transformer holds an adapter too", folder, fix)
    if not (folder / names[0]).is_file() and (folder / index).is_file():
        names = sorted(set(map(str, dict(_content(folder, index).get("weight_map") or {}).values())))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        fix = "download it again; weights in another format, such as pytorch_model.bin, are not read"
        raise WeightsError(f"{missing[0]} of the transformer is missing", folder, fix)
    return names


def _digest(files: Sequence[Path]) -> str:
    """What ``sha256sum FILES | sha256sum`` prints in their folder."""
    return hashlib.sha256("".join(f"{sha256_of(one)}  {one.name}\n" for one in files).encode()).hexdigest()


def _load(transformers: Any, kind: str, content: dict[str, Any], folder: Path) -> nn.Module:
    network = getattr(transformers, _CLASSES[kind])
    try:
        # numbers of the architecture alone: other entries could ask for code, kernels or packages
        known = [name for name in vars(network.config_class)["__annotations__"] if not name.startswith("_")]
        config = network.config_class(**{name: content[name] for name in known if name in content})
        # what random numbers it draws before it loads the weights must not decide what heads start from
        with _quiet(transformers), torch.random.fork_rng(devices=[]):
            model, report = network.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True,
                dtype=torch.float32, attn_implementation="sdpa", **_MADE.get(kind, {}),
            )  # fmt: skip
    except Exception as error:  # of many types: of the file's format, of a value in the config, of another shape
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(f"the transformer cannot be loaded ({reason})", folder, "download it again") from error
    for fault, word in (("missing_keys", "missing"), ("unexpected_keys", "not of this kind of model")):
        names = sorted(one for one in report[fault] if not _UNUSED.search(one))
        if names:
            what = f"{len(names)} weights of the transformer are {word} (first: {names[0]})"
            raise WeightsError(what, folder, "download it again, and see that config.json belongs to the weights")
    return model.eval().requires_grad_(False)


def _patch(config: Any, folder: Path) -> int:
    """Side of a patch."""
    sides = config.patch_size if isinstance(config.patch_size, (list, tuple)) else [config.patch_size]
    if len(set(sides)) != 1 or not 6 <= sides[0] <= 45:
        fix = "choose a model with square patches of 6 to 45 pixels"
        raise WeightsError(f"patch_size={config.patch_size} of the transformer is not supported", folder, fix)
    return int(sides[0])


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """What loading reports is returned to the caller, not printed."""
    say, level = transformers.utils.logging, transformers.utils.logging.get_verbosity()
    bars = say.is_progress_bar_enabled()
    say.set_verbosity(logging.CRITICAL)
    say.disable_progress_bar()
    try:
        yield
    finally:
        say.set_verbosity(level)
        if bars:
            say.enable_progress_bar()


def _licence(folder: Path) -> str:
    """The licence that the front matter of ``README.md`` names, else the first line of a licence file."""
    readme = folder / "README.md"
    if readme.is_file():
        parts = readme.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        try:
            front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        except yaml.YAMLError:
            front = None
        if isinstance(front, Mapping):
            named = [front.get(key) for key in ("license_name", "license") if front.get(key)]
            if named:
                return str(named[0])
    for file in sorted(one for one in folder.iterdir() if one.stem.upper() in ("LICENSE", "LICENCE")):
        lines = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        first = next(filter(None, lines), "")
        if first:
            return first[:100]
    return NOT_STATED
