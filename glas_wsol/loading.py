# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Loads a trained model in three lines of Python, and predicts images with it."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import ensure_tuple
from torch import Tensor

from glas_wsol.errors import ConfigError, GlasWsolError, ImageFileError, WeightsError
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.results.localization import Localization
from glas_wsol.slides.localize_slide import SlideModel
from glas_wsol.transforms.pixel_size import check_mpp
from glas_wsol.transforms.reading.slide_formats import is_slide
from glas_wsol.transforms.reading.spacing import DOUBT, MPP, mpp_metadata
from glas_wsol.utils.configs import executed_parts, parsed, plain_path, refuse_renamed
from glas_wsol.utils.foreign_config import OF_POSTPROCESSING, ForeignConfig, agreed_settings, setting_id
from glas_wsol.utils.settings import settings_of
from glas_wsol.utils.shipped_bundles import bundle_named, bundle_of

__all__ = ["Localizer", "ModelSource", "load_localizer"]

_OF_CARD = ("trunk", "classes", "scale", "short_side", "stain", "fill_holes", "drop_specks")
_ASSUMED = ("scale", "short_side", "stain")
"""What a ``model.json`` may lack: the package's own bundle of the same classes says it then, as in a run of it."""
_SETTINGS = (
    *("stain", "fill_holes", "drop_specks", "flips", "rotations", "scales", "class_scores", "mpp", "max_pixels"),
    *("trunk", *OF_POSTPROCESSING),
)
"""What :func:`glas_wsol.load` takes: ids of ``inference.json``."""
_FORMS = "give a file, a uint8 array [H, W, 3], or a tensor [3, H, W] in [0, 1]"


class Localizer:
    """A trained model that takes an image and gives a :class:`~glas_wsol.results.Localization`.

    It is made of the components of the package's own ``inference.json``. Made by :func:`glas_wsol.load`. One call at a
    time.

    Attributes:
        network: in evaluation mode.
        classes: class names in label order.
    """

    def __init__(self, config: ConfigParser) -> None:
        self.classes: tuple[str, ...] = tuple(parsed(config, "classes"))
        self.device, self._mpp = torch.device(parsed(config, "device")), check_mpp(parsed(config, "mpp"))
        self.network = parsed(config, "network")
        parsed(config, "load_model")
        self._inferer, self._postprocessing = parsed(config, "inferer"), parsed(config, "postprocessing")
        with warnings.catch_warnings():  # MONAI looks for a decoder of DICOM on the GPU
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
            self._preprocessing = parsed(config, "preprocessing")

    @property
    def inferer(self) -> Any:
        """Predicts whole tiles: a :class:`~glas_wsol.inferers.ClassScoreInferer`."""
        return self._inferer

    @property
    def postprocessing(self) -> Any:
        """Makes results of predictions: a :class:`~glas_wsol.results.LocalizePredictiond`."""
        return self._postprocessing

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
                model was loaded with, else as the image's file says.

        Raises:
            ConfigError: on an impossible ``mpp``.
            ImageFileError: if the file cannot be read, or an array or tensor is of another kind.
            NumericalError: if the network's output is not finite.
        """
        size = check_mpp(mpp)
        values = self._read(image)
        if size is not None:
            values.meta.update({MPP: mpp_metadata(size), DOUBT: ""})
        batch = MetaTensor(values.as_tensor()[None].to(self.device), meta=values.meta)
        with torch.no_grad():
            item = {key: found[0] for key, found in self._inferer(batch, self.network).items()}
        item |= {"image": values, "name": name or Path(values.meta["filename_or_obj"]).stem or "image"}
        return self._postprocessing(item)["localization"]

    def for_slides(self) -> SlideModel:
        """The same model, as :func:`~glas_wsol.slides.localize_slide.localize_slide` takes it.

        Raises:
            ConfigError: if its mask depends on the whole image, its pixel size is not known, or it was loaded with a
                setting that makes no sense on a slide.
        """
        inferer, last = self._inferer.inferer.settings(), self._postprocessing
        for name, usual in (("flips", False), ("rotations", False), ("scales", [1.0]), ("short_side", None)):
            if inferer[name] != usual:
                raise ConfigError(f"{name}={inferer[name]!r} makes no sense on a slide", name, "leave it out")
        holes, specks = (area * inferer["factor"] ** 2 for area in (last.hole_area, last.speck_area))
        provenance = last.provenance
        made_with = {
            "models": list(provenance.models),
            "network": settings_of(self.network),
            "stain": last.stain,
            "cleaning": [holes, specks],
            "threshold": last.threshold,
            "device": self.device.type,
        }
        return SlideModel(
            network=self.network,
            classes=self.classes,
            mpp=provenance.network_mpp,
            stain=last.stain,
            hole_area=holes,
            speck_area=specks,
            threshold=last.threshold,
            made_with=made_with,
            provenance=provenance,
        )

    def _read(self, image: Any) -> MetaTensor:
        """``[3, H, W]`` float32 in [0, 1]; its metadata name the file, if any, and the size of a pixel."""
        meta = {"filename_or_obj": "", MPP: mpp_metadata(self._mpp), DOUBT: ""}
        if isinstance(image, Tensor):
            return MetaTensor(_checked(image), meta=meta)
        item, first = {"image": str(image)}, 0
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ImageFileError(f"an array of {image.dtype} {list(image.shape)}", "in memory", _FORMS)
            item, first = {"image": MetaTensor(np.ascontiguousarray(image.transpose(2, 0, 1)), meta=meta)}, 1
        elif not isinstance(image, (str, PathLike)):
            raise ImageFileError(f"a {type(image).__name__} is no image", "in memory", _FORMS)
        elif is_slide(image):
            fix = "give it to predict, or to glas_wsol.slides.localize_slide.localize_slide"
            raise ImageFileError("this is a whole slide", image, fix)
        try:
            return self._preprocessing(item, start=first)["image"]  # the first of its transforms reads the file
        except Exception as error:
            own = GlasWsolError.behind(error)
            if own is None:
                raise
            raise own from None


def load_localizer(
    model: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    device: str | torch.device | None = None,
    **settings: Any,
) -> Localizer:
    """Load a trained model; see :func:`glas_wsol.load`."""
    for name, value in settings.items():
        refuse_renamed(name, "glas_wsol.load")
        if name not in _SETTINGS:
            near = difflib.get_close_matches(name, _SETTINGS, n=1, cutoff=0.5) or _SETTINGS
            raise ConfigError(f"no setting named {name!r}", "glas_wsol.load", f"did you mean {' or '.join(near)}")
        if executed_parts(value):
            raise ConfigError(f"{name}={value!r} is an expression", "glas_wsol.load", "give a value")
    sources = [ModelSource(Path(one)) for one in ensure_tuple(model)]
    if not sources:
        raise ConfigError("no model", "glas_wsol.load", "name at least one trained model")
    checkpoint = [plain_path(source.checkpoint) for source in sources]
    assumed = sources[0].bundle.card()
    card = model_card(checkpoint, **assumed)
    if not {"network", "trunk", "classes"} <= card.keys():
        what = "no model.json beside this model says its network, trunk and classes"
        raise WeightsError(what, checkpoint[0], "put the model.json that training wrote beside it")
    folder = bundle_of(card["classes"])
    if folder is None:
        raise ConfigError("no bundle came with this package", "glas_wsol.load", "install it whole")
    config = ConfigParser()
    config.read_config(str(folder / "configs" / "inference.json"))
    given = {setting_id(name): value for name, value in settings.items()}
    wanted = [one for one in map(setting_id, (*_OF_CARD, *_SETTINGS)) if one not in given]
    said = agreed_settings([one.bundle for one in sources], config.get(), wanted, "give glas_wsol.load({name}=...)")
    shipped = {name: config["card"][name] for name in ("_target_", "checkpoint", *_ASSUMED)}
    config["card"] = shipped | assumed
    config["checkpoint"] = checkpoint if len(checkpoint) > 1 else checkpoint[0]
    if device is not None:
        config["device"] = str(device)
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in {**said, **given}.items()}
    config.update({k: v for k, v in values.items() if v is not None or k != "postprocessing#min_box_area"})
    return Localizer(config)


class ModelSource:
    """Path of a model, and the bundle around it.

    Args:
        path: an exported bundle with its model, the output folder of a training, the weights' file, or the name of a
            bundle that came with the package.

    Attributes:
        checkpoint: the weights' file.
        bundle: the config of the bundle around it; an empty one where there is none.

    Raises:
        ConfigError: if that config cannot be read.
        WeightsError: if there is no model.
    """

    def __init__(self, path: Path) -> None:
        found = _weights(path)
        if found is None and (named := bundle_named(path)):  # a folder of data may have the name of a bundle
            path, found = named, _weights(named)
        if found is None:
            fix = "name an exported bundle with its model, the output folder of a training, or a model.pt"
            raise WeightsError("no trained model", path, fix)
        self.path, self.checkpoint, self.bundle = path, found, ForeignConfig(path)


def _weights(path: Path) -> Path | None:
    places = (path / "models" / "model.pt", path / "model.pt") if path.is_dir() else (path,)
    return next((file for file in places if file.is_file()), None)


def _checked(image: Tensor) -> Tensor:
    values = image.as_tensor() if isinstance(image, MetaTensor) else image
    if not values.is_floating_point() or values.ndim != 3 or values.shape[0] != 3 or 0 in values.shape:
        raise ImageFileError(f"a tensor of {values.dtype} {list(values.shape)}", "in memory", _FORMS)
    values = values.detach().float()
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # not a number too
        raise ImageFileError(f"a tensor of values from {low:g} to {high:g}", "in memory", _FORMS)
    return values
