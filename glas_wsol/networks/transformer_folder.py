# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read a vision transformer from a local folder: nothing is downloaded, and no code but that of transformers is run."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
import yaml
from torch import nn

from glas_wsol.errors import WeightsError
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import read_json

__all__ = ["NOT_STATED", "HeldTransformer", "TransformerFolder"]

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


class HeldTransformer:
    """A transformer that several networks hold. It is no module of theirs: never saved, trained or copied with them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __deepcopy__(self, _: Any) -> HeldTransformer:
        return self


_LOADED: WeakValueDictionary[str, HeldTransformer] = WeakValueDictionary()
"""By the digest of its files: the networks of one run share one transformer."""


@dataclass(frozen=True)
class TransformerFolder:
    """What a folder holds.

    Attributes:
        path: of the folder.
        held: the model, frozen and in evaluation mode.
        options: of its forward.
        patch: side of a patch, px.
        channels: of its features.
        prefix: tokens before those of the patches: the class token and registers.
        pixel_mean: mean it expects, for images in [0, 1].
        pixel_std: standard deviation it expects, for images in [0, 1].
        sha256: what ``sha256sum config.json *.safetensors | sha256sum`` prints in the folder, of the files it uses.
        licence: as its files say; :data:`NOT_STATED` where they do not.
    """

    path: Path
    held: HeldTransformer
    options: Mapping[str, Any]
    patch: int
    channels: int
    prefix: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    sha256: str
    licence: str

    @classmethod
    def read(cls, path: Path, transformers: Any) -> TransformerFolder:
        """Read a model as transformers saves it.

        Args:
            path: of the folder, with ``config.json``, ``model.safetensors`` or several with their index, and
                ``preprocessor_config.json``.
            transformers: the package.

        Raises:
            WeightsError: if a file or a value is missing, or the model is none of a known kind.
        """
        content = _content(path, "config.json")
        kind, (mean, std) = _kind(content, path), _normalisation(path)
        sha256 = _digest([path / "config.json", *(path / one for one in _weights_files(path))])
        held = _LOADED.get(sha256)
        if held is None:
            held = _LOADED[sha256] = HeldTransformer(_load(transformers, kind, content, path))
        config: Any = held.model.config
        prefix = 1 + getattr(config, "num_register_tokens", 0)
        return cls(
            path, held, _FORWARD.get(kind, {}), _patch(config, path), int(config.hidden_size), prefix, mean, std,
            sha256, _licence(path),
        )  # fmt: skip


def _content(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder."""
    try:
        return dict(read_json(folder / name))
    except (OSError, ValueError, TypeError) as error:
        what = "missing" if not (folder / name).exists() else "not a readable JSON file"
        raise WeightsError(f"{name} of the transformer is {what}", folder, "download the model again") from error


def _kind(content: Mapping[str, Any], folder: Path) -> str:
    """A key of :data:`_CLASSES`."""
    kind = str(content.get("model_type"))
    if kind == "dinov2" and content.get("num_register_tokens"):
        return _REGISTERS
    if kind in _CLASSES:
        return kind
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
        listed = _content(folder, index).get("weight_map")
        names = sorted(set(map(str, listed.values()))) if isinstance(listed, Mapping) else [index]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        fix = "download it again; weights in another format, such as pytorch_model.bin, are not read"
        raise WeightsError(f"{missing[0]} of the transformer is missing", folder, fix)
    return names


def _digest(files: Sequence[Path]) -> str:
    """See :class:`TransformerFolder`."""
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
    for file in sorted(one for one in folder.iterdir() if one.stem.upper() in ("LICENSE", "LICENCE") and one.is_file()):
        lines = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        first = next(filter(None, lines), "")
        if first:
            return first[:100]
    return NOT_STATED
