# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Exports a trained model, with all that whole-tile inference does, as one file: torch.export, ONNX or TorchScript."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from glas_wsol.errors import ConfigError, NumericalError, OutputError
from glas_wsol.inferers.whole_tile_network import MaskAndClassNetwork, WholeTileNetwork
from glas_wsol.loading import Localizer, load_localizer
from glas_wsol.networks.trunks import Trunk
from glas_wsol.results.class_scores import PRESENCE
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.version import __version__

__all__ = ["FILE_TARGETS", "TOLERANCE", "ExportedModel", "export_file", "exported_bytes", "write_export"]

DESCRIPTION = "glas_wsol.json"
"""Name under which an exported file says what it is: an extra file in ``.pt2`` and TorchScript, a property in ONNX."""

TOLERANCE = 1e-3
"""Greatest difference to the model itself, of ``R+`` and of a probability, with which a file is written."""

_TRACED = (483, 390)  # height and width of the image that is traced, px
_SIZES = ((131, 94), (77, 160), (64, 64))  # of those that an export is compared on
_ONE_VIEW = {"flips": False, "rotations": False, "scales": [1.0]}

Function = Callable[[Tensor], tuple[Tensor, Tensor]]


class ExportedModel:
    """A trained model, ready to be written.

    Args:
        models: as :func:`glas_wsol.load` takes them; several are an ensemble.

    Attributes:
        localizer: the model itself.
        tiles: its network with what inference does around it, in evaluation mode, on the CPU.
        description: what it is, as JSON values: classes, input, outputs, resolution, and the provenance of results.

    Raises:
        ConfigError: if the model names no class, or the bundle around it asks for what a file cannot do.
        WeightsError: if a model cannot be loaded.
    """

    def __init__(self, models: Sequence[str | Path]) -> None:
        self.localizer: Localizer = load_localizer([str(one) for one in models], device="cpu")
        self.name = str(models[0])
        network, inferer = self.localizer.network, self.localizer.inferer
        settings = inferer.settings()
        if not getattr(network, "names_class", True):
            raise ConfigError("an untrained baseline has nothing to export", self.name, "name a trained model")
        left_out = [name for name, one in _ONE_VIEW.items() if settings[name] != one]
        left_out += ["class_scores"] if settings["class_scores"] == "localizer" else []
        if left_out:
            sets = f"the bundle's inference.json sets {', '.join(left_out)}"
            what = f"a file holds one view and the model's own class; {sets}"
            raise ConfigError(what, self.name, "export the model alone: name its model.pt")
        if any(isinstance(one, Trunk) and one.image_stages for one in network.modules()):
            what = "a file would hold a copy of the transformer, which the model only refers to"
            raise ConfigError(what, self.name, "export the bundle instead: --to bundle")
        self.factor, self.short_side = settings["factor"], settings["short_side"]
        self.tiles = WholeTileNetwork(network, self.factor, self.short_side, settings["divisor"]).eval()
        found = self.localizer.postprocessing
        self.mpp: float | None = settings.get("training_mpp")
        self.description: dict[str, Any] = {
            "classes": list(self.localizer.classes),
            "input": "image: float32 [B, 3, H, W], RGB in [0, 1]; any height and width",
            "outputs": {
                "decidable": f"float32 [B, 1, H, W], R+ in [0, 1]; the mask is where it is above {found.threshold}",
                "probabilities": "float32 [B, c], in the order of the classes",
            },
            "mpp": self.mpp,
            "scale": self.factor,
            "short_side": self.short_side,
            "stain": found.stain,
            "threshold": found.threshold,
            "hole_area": found.hole_area,
            "speck_area": found.speck_area,
            "made_by": f"glas_wsol {__version__}",
            "intended_use": "Research only. Not for diagnosis.",
            **found.provenance.entry(),
        }

    def eager(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What inference with the model itself gives.

        Args:
            image: ``[1, 3, H, W]``, in [0, 1].

        Returns:
            ``[1, 1, H, W]`` ``R+``, and ``[1, c]`` probabilities.
        """
        with torch.no_grad():
            found = self.localizer.inferer(image, self.localizer.network)
        prediction = found[Keys.PRED]
        mass = prediction[:, 1:].double().sum(dim=(2, 3))
        return 1 - prediction[:, :1], found.get(PRESENCE, (mass / mass.sum(dim=1, keepdim=True)).float())

    def check(self, function: Function, to: str) -> None:
        """See that an export gives what the model gives, for sizes that it was not exported with.

        Args:
            function: the export, read back.
            to: its target, for the message.

        Raises:
            NumericalError: if it does not.
        """
        generator = torch.Generator().manual_seed(0)
        for size in _SIZES:
            image = torch.rand(1, 3, *size, generator=generator)
            with torch.no_grad():
                found = function(image)
            for one, wanted in zip(found, self.eager(image), strict=True):
                difference = float((one - wanted).abs().max()) if one.shape == wanted.shape else float("inf")
                if not difference <= TOLERANCE:
                    what = f"the export to {to} differs from the model by {difference:.2g} for an image of {size} px"
                    raise NumericalError(what, self.name, "export the bundle instead: --to bundle")


@dataclass(frozen=True)
class _FileTarget:
    """How a format is written and read back.

    Attributes:
        suffixes: of its files, the usual one first.
        packages: needed besides the required ones.
        write: makes the file's bytes of a module and its description.
        read: makes a function of a file's bytes.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[[nn.Module, str], bytes]
    read: Callable[[bytes], Function]


def export_file(model: ExportedModel, output: str | Path, to: str) -> Path:
    """Write a model as one file, after what was made is read back and gives the same as the model.

    Args:
        model: to be written.
        output: the file; or a folder, in which it is called ``model`` with the usual suffix. An earlier export is
            replaced.
        to: one of :data:`FILE_TARGETS`.

    Returns:
        The file.

    Raises:
        ConfigError: if the network cannot be exported, packages are missing, or the suffix is of another format.
        NumericalError: if the export does not give what the model gives.
        OutputError: if the file cannot be written, or is there and no export.
    """
    target, path = FILE_TARGETS[to], Path(output)
    if path.is_dir() or not path.suffix:
        path = path / f"model{target.suffixes[0]}"
    if path.suffix not in target.suffixes:
        raise ConfigError(f"a file for --to {to} ends in {' or '.join(target.suffixes)}", path, "give it this ending")
    if path.exists() and not (path.is_file() and DESCRIPTION.encode() in path.read_bytes()):
        raise OutputError("this file is no export", path, "choose another name")
    missing = [name for name in target.packages if not optional_import(name)[1]]
    if missing:
        raise ConfigError(f"--to {to} needs packages that are missing", to, f"pip install {' '.join(missing)}")
    content = exported_bytes(MaskAndClassNetwork(model.tiles).eval(), model, to)
    model.check(target.read(content), to)
    return write_export(path, content)


def write_export(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; its folder is made.

    Args:
        path: of the file.
        content: of the file.

    Returns:
        The file.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder ({error.strerror})", path.parent, "choose another") from error
    with atomic_write(path) as file:
        file.write(content)
    return path


def exported_bytes(module: nn.Module, model: ExportedModel, to: str) -> bytes:
    """A file's content.

    Args:
        module: to be exported.
        model: whose description goes into it.
        to: one of :data:`FILE_TARGETS`.

    Raises:
        ConfigError: if the network cannot be exported.
    """
    try:
        with torch.no_grad(), _quiet():
            return FILE_TARGETS[to].write(module, json.dumps(model.description, ensure_ascii=False, indent=4))
    except Exception as error:  # whatever an exporter of torch finds it cannot express
        reason = (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
        name = type(model.localizer.network).__name__
        fix = "export the bundle instead: --to bundle"
        raise ConfigError(f"{name} cannot be exported to {to} ({reason})", model.name, fix) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters of torch warn of their own deprecations, and write about every step."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _program(module: nn.Module) -> torch.export.ExportedProgram:
    from torch.fx.experimental import _config

    height, width = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    # without a special case for sizes of 1, which a map of a small image has
    with _config.patch(backed_size_oblivious=True):  # pyright: ignore[reportAttributeAccessIssue]
        return torch.export.export(module, (torch.rand(1, 3, *_TRACED),), dynamic_shapes=({2: height, 3: width},))


def _write_pt2(module: nn.Module, description: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(module), buffer, extra_files={DESCRIPTION: description})
    return buffer.getvalue()


def _read_pt2(content: bytes) -> Function:
    return torch.export.load(io.BytesIO(content)).module()


def _write_torchscript(module: nn.Module, description: str) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer, _extra_files={DESCRIPTION: description})
    return buffer.getvalue()


def _read_torchscript(content: bytes) -> Function:
    return torch.jit.load(io.BytesIO(content))


def _write_onnx(module: nn.Module, description: str) -> bytes:
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["decidable", "probabilities"]}
    made: Any = torch.onnx.export(_program(module), dynamo=True, external_data=False, verbose=False, **names)
    proto = made.model_proto
    optional_import("onnx")[0].helper.set_model_props(proto, {DESCRIPTION: description})
    return proto.SerializeToString()


def _read_onnx(content: bytes) -> Function:
    session = optional_import("onnxruntime")[0].InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        decidable, probabilities = session.run(None, {"image": image.numpy()})
        return torch.from_numpy(decidable), torch.from_numpy(probabilities)

    return run


FILE_TARGETS: dict[str, _FileTarget] = {
    "pt2": _FileTarget((".pt2",), (), _write_pt2, _read_pt2),
    "onnx": _FileTarget((".onnx",), ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _read_onnx),
    "torchscript": _FileTarget((".ts", ".pt"), (), _write_torchscript, _read_torchscript),
}
"""How each format of one file is written, by the name that ``--to`` takes."""
