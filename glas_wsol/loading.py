# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A trained model in three lines of Python: load it, give it an image, use the result."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange
from monai.utils import ensure_tuple
from torch import Tensor

from glas_wsol.errors import ConfigError, ImageFileError, WeightsError
from glas_wsol.inferers import ClassScoreInferer, WholeTileInferer
from glas_wsol.networks import build_network, fold_batch_norm
from glas_wsol.networks.checkpoint import load_checkpoint, model_card, model_digests
from glas_wsol.results.localization import THRESHOLD, Localization
from glas_wsol.results.postprocessing import LocalizePredictiond
from glas_wsol.results.provenance import provenance_of
from glas_wsol.transforms.reading import MAX_PIXELS, read_image
from glas_wsol.transforms.reading.spacing import MPP, mpp_metadata
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.pixel_size import check_mpp

__all__ = ["Localizer", "ModelSource", "load_localizer"]

_SAID_BY_CARD = "what model.json says"
_OF_CARD: Mapping[str, Any] = {"stain": None, "fill_holes": 0, "drop_specks": 0}  # with what it means if it does not
_DEFAULTS: Mapping[str, Any] = {  # of what neither a bundle nor the caller says
    "flips": False,
    "rotations": False,
    "scales": (1.0,),
    "class_scores": "all",
    "threshold": THRESHOLD,
    "min_box_area": None,
    "mpp": None,
    "max_pixels": MAX_PIXELS,
}
_OF_POSTPROCESSING = ("threshold", "min_box_area")
_FORMS = "give a file, a uint8 array [H, W, 3], or a tensor [3, H, W] in [0, 1]"


class Localizer:
    """A trained model that takes an image and gives a :class:`~glas_wsol.results.Localization`.

    It does what a run of ``inference.json`` does, in the same order and with the same numbers. Made by
    :func:`glas_wsol.load`. One call at a time.

    Args:
        checkpoint: the weights' file, or the files of an ensemble.
        card: what they are, see :func:`~glas_wsol.networks.checkpoint.model_card`.
        settings: all of those that :func:`glas_wsol.load` takes.
        device: where to compute.

    Attributes:
        network: in evaluation mode.
        classes: class names in label order.
        device: where it computes.
    """

    def __init__(
        self, checkpoint: Sequence[str], card: Mapping[str, Any], settings: Mapping[str, Any], device: torch.device
    ) -> None:
        self.classes: tuple[str, ...] = tuple(card["classes"])
        self.device = device
        self.network = build_network(
            card["network"], trunk=card["trunk"], weights="none", num_classes=len(self.classes), seed=0
        )
        load_checkpoint(self.network, checkpoint)
        self.network = fold_batch_norm(self.network.to(device))
        views = {name: settings[name] for name in ("flips", "rotations", "scales")}
        views["scales"] = list(views["scales"])
        scale = card.get("scale", 1.0)
        inferer = WholeTileInferer(scale, card.get("short_side"), **views)
        self._inferer = ClassScoreInferer(inferer, settings["class_scores"])
        least = {} if settings["min_box_area"] is None else {"min_box_area": settings["min_box_area"]}
        self._postprocessing = LocalizePredictiond.for_network(
            self.network,
            classes=self.classes,
            threshold=settings["threshold"],
            stain=settings["stain"],
            hole_area=settings["fill_holes"] / scale**2,
            speck_area=settings["drop_specks"] / scale**2,
            mpp=settings["mpp"],
            provenance=provenance_of(card, model_digests(checkpoint), views),
            **least,
        )
        self._to_unit = ScaleIntensityRange(a_min=0, a_max=255)
        self._max_pixels = settings["max_pixels"]

    def __call__(
        self,
        image: str | PathLike[str] | np.ndarray | Tensor,
        name: str = "",
        mpp: float | Sequence[float] | None = None,
    ) -> Localization:
        """Localize one image.

        Args:
            image: a file (PNG, JPEG, TIFF, BMP or DICOM); ``[H, W, 3]`` uint8 RGB; or a tensor ``[3, H, W]`` of floats
                in [0, 1], on any device.
            name: of the result and its files. Defaults to the file's name without suffix, or ``"image"``.
            mpp: micrometres per pixel of this image, or the width and the height of a pixel; None (default): as the
                model was loaded with, else as the image's DICOM file says.

        Raises:
            ConfigError: on an impossible ``mpp``.
            ImageFileError: if the file cannot be read, or an array or tensor is of another kind.
            NumericalError: if the network's output is not finite.
        """
        size = check_mpp(mpp)
        values, path, said = self._read(image)
        item: dict[str, Any] = {"name": name or (Path(path).stem if path else "image")}
        batch = values[None].to(self.device)
        with torch.no_grad():
            item |= {key: values[0] for key, values in self._inferer(batch, self.network).items()}
        item["image"] = MetaTensor(values, meta={"filename_or_obj": path, MPP: mpp_metadata(said)})
        found: Localization = self._postprocessing(item)["localization"]
        return found if size is None else replace(found, mpp=size)

    def _read(self, image: Any) -> tuple[Tensor, str, tuple[float, float] | None]:
        """``[3, H, W]`` float32 in [0, 1], the file it came from, and the size of a pixel that the file says."""
        if isinstance(image, Tensor):
            return _checked(image), "", None
        path, said = "", None
        if isinstance(image, (str, PathLike)):
            path = str(image)
            picture = read_image(image, self._max_pixels)
            image, said = picture.pixels, picture.mpp
        if not isinstance(image, np.ndarray):
            raise ImageFileError(f"a {type(image).__name__} is no image", "in memory", _FORMS)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ImageFileError(f"an array of {image.dtype} {list(image.shape)}", "in memory", _FORMS)
        scaled = self._to_unit(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return scaled.as_tensor() if isinstance(scaled, MetaTensor) else torch.as_tensor(scaled), path, said


def load_localizer(
    model: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Localizer:
    """Load a trained model; see :func:`glas_wsol.load`."""
    for name in settings:
        if name not in (known := [*_OF_CARD, *_DEFAULTS]):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or known
            raise ConfigError(f"no setting named {name!r}", "glas_wsol.load", f"did you mean {' or '.join(near)}")
    places = [ModelSource(Path(one)) for one in ensure_tuple(model)]
    if not places:
        raise ConfigError("no model", "glas_wsol.load", "name at least one trained model")
    checkpoint = [str(place.checkpoint) for place in places]
    found = {name: _agreed(name, places) for name in (*_OF_CARD, *_DEFAULTS) if name not in settings}
    card = model_card(checkpoint, **places[0].card_defaults())
    found |= {name: card.get(name, _OF_CARD[name]) for name, value in found.items() if value == _SAID_BY_CARD}
    if not {"network", "trunk", "classes"} <= card.keys():
        what = "no model.json beside this model says its network, trunk and classes"
        raise WeightsError(what, checkpoint[0], "put the model.json that training wrote beside it")
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Localizer(checkpoint, card, {**found, **settings}, torch.device(chosen))


class ModelSource:
    """Where a model lies, and what the bundle around it sets; nothing of a bundle's config is executed.

    Args:
        path: an exported bundle with its model, the output folder of a training, or the weights' file.

    Attributes:
        checkpoint: the weights' file.
        config_file: the bundle's ``inference.json``; it is not there where there is no bundle around the model.

    Raises:
        ConfigError: if that config cannot be read.
        WeightsError: if there is no model.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.config = path, {}
        self.checkpoint = path
        if path.is_dir():
            self.checkpoint = next(
                (file for file in (path / "models" / "model.pt", path / "model.pt") if file.is_file()), path
            )
        if not self.checkpoint.is_file():
            fix = "name an exported bundle with its model, the output folder of a training, or a model.pt"
            raise WeightsError("no trained model", path, fix)
        self.config_file = path / "configs" / "inference.json"
        if self.config_file.is_file():
            try:
                self.config = dict(read_json(self.config_file))
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError("cannot be read", self.config_file, "export the bundle again") from error

    def setting(self, name: str) -> Any:
        """What the bundle sets, or that the model's card says it; the default where there is no bundle."""
        where = self.config.get("postprocessing", {}) if name in _OF_POSTPROCESSING else self.config
        value = where.get(name, _SAID_BY_CARD if name in _OF_CARD else _DEFAULTS[name])
        if isinstance(value, str) and value.startswith(("$", "@", "%")):
            if name in _OF_CARD and "card" in value:
                return _SAID_BY_CARD
            fix = f"give glas_wsol.load({name}=...)"
            raise ConfigError(f"{name!r} is an expression, which is not run here", self.config_file, fix)
        return value

    def card_defaults(self) -> dict[str, Any]:
        """What the bundle assumes of a model that no ``model.json`` describes."""
        card = self.config.get("card")
        own = card if isinstance(card, Mapping) else {}
        return {name: value for name, value in own.items() if name not in ("_target_", "checkpoint")}


def _agreed(name: str, places: Sequence[ModelSource]) -> Any:
    values = [place.setting(name) for place in places]
    if any(value != values[0] for value in values):
        said = " and ".join(repr(value) for value in values)
        raise ConfigError(f"the bundles set {name!r} to {said}", "glas_wsol.load", f"give {name}=...")
    return values[0]


def _checked(image: Tensor) -> Tensor:
    values = image.as_tensor() if isinstance(image, MetaTensor) else image
    if not values.is_floating_point() or values.ndim != 3 or values.shape[0] != 3 or 0 in values.shape:
        raise ImageFileError(f"a tensor of {values.dtype} {list(values.shape)}", "in memory", _FORMS)
    values = values.detach().float()
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # not a number too
        raise ImageFileError(f"a tensor of values from {low:g} to {high:g}", "in memory", _FORMS)
    return values
