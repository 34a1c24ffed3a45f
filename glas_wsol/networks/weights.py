# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read tensors from untrusted files: safetensors, or pickles restricted to tensors; never anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from glas_wsol.errors import WeightsError
from glas_wsol.utils.digests import sha256_of

__all__ = ["LATER", "fetch", "load_strictly", "read_state_dict"]

_URL = re.compile(r"^(?P<url>https://[^#]+)#sha256=(?P<sha256>[0-9a-f]{64})$")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file, or from a ``.pt``/``.pth`` file with ``weights_only=True``.

    There is no fall-back to an unrestricted pickle: a file that needs one is refused.

    Returns:
        Names to CPU tensors; a ``module.`` prefix left by a distributed wrapper is removed.

    Raises:
        WeightsError: if the file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError("no such weights file", path, "give the path of a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError("not a weights file, or a damaged one", path, "copy or download it again") from error
    except Exception as error:  # torch and pickle raise many types on a file that is not plain tensors
        raise WeightsError(
            "not a file of plain tensors, or a damaged one",
            path,
            "copy it again, or save a state dict of tensors, best as .safetensors",
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError("not a state dict of tensors", path, "save network.state_dict(), best as .safetensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def fetch(url: str) -> Path:
    """Download weights once into torch's cache and check them.

    Args:
        url: ``https://...#sha256=<64 hexadecimal digits>``; the digest is not optional.

    Raises:
        WeightsError: if the digest is missing or wrong, or the file cannot be downloaded.
    """
    match = _URL.match(url)
    if match is None:
        raise WeightsError(
            "weights from a URL need https and a digest", url, "append #sha256=<64 hexadecimal digits> to the address"
        )
    expected = match["sha256"]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    target = folder / f"{expected[:8]}-{Path(urlsplit(match['url']).path).name}"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # hash_prefix: torch compares it with the digest before the file gets its final name.
            torch.hub.download_url_to_file(match["url"], str(target), hash_prefix=expected)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"download failed ({error})", match["url"], "check the address and the digest"
            ) from error
    if sha256_of(target) != expected:
        raise WeightsError("wrong SHA-256", target, "delete this file and run again")
    return target


LATER = ("temperature", "group_statistics")
"""Buffers that older models lack; their networks fill in a default."""


def load_strictly(module: torch.nn.Module, state: Mapping[str, Tensor], where: object, fix: str) -> None:
    """Load every tensor into its place; a WeightsError if a name is missing, unexpected or of another shape."""
    own = module.state_dict()
    absent = {name for name in own.keys() - state.keys() if name.rpartition(".")[2] not in LATER}
    missing, unexpected = sorted(absent), sorted(state.keys() - own.keys())
    reshaped = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unexpected or reshaped:
        faults = [
            f"{len(names)} {kind} (first: {names[0]})"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
            if names
        ]
        raise WeightsError("weights of another network: " + ", ".join(faults), where, fix)
    module.load_state_dict(dict(state))
