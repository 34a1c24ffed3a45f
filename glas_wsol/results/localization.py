# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The one result: what the network says of one image. Evaluation measures it, every writer consumes it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils.enums import CommonKeys as Keys
from skimage.measure import label as connected_regions
from torch import Tensor

from glas_wsol.dicom import pixel_size
from glas_wsol.errors import ConfigError, ImageFileError, NumericalError
from glas_wsol.inferers.class_scores import DECIDABLE, LOCALIZER, UNDECIDABLE, Opinion, Opinions
from glas_wsol.results.boxes import MIN_BOX_AREA, Box, check_min_area, find_boxes
from glas_wsol.results.provenance import Provenance
from glas_wsol.results.tissue import STAINS, missing_evidence
from glas_wsol.transforms.clean_regions import clean_regions
from glas_wsol.utils.labels import LEAST_PROBABILITY, SEPARATOR, is_several
from glas_wsol.utils.pixel_size import check_mpp

__all__ = ["PRESENCE", "THRESHOLD", "Localization", "LocalizePredictiond", "separate_objects"]

THRESHOLD = 0.5
"""Fixed by training (the pseudo-threshold's centre); nothing is tuned on pixel labels."""

PRESENCE = "presence"
"""Key of an evaluated item: ``[c]``, how probable each class is of an image that may have several."""


@dataclass(frozen=True)
class Localization:
    """Which pixels decided, and for which class.

    Its arrays cannot be written to: what was derived of them stays true.

    Attributes:
        name: the image's name, unique in its run.
        path: the image's file, empty if it came from memory.
        classes: class names in label order.
        probabilities: of the class that is named, one per class, sum 1 unless ``several``: ``p(class | X+)`` of the
            classifier on the decidable region where the network names it so (the paper's does), else its own way of the
            whole image; empty where the method names no class (a U-Net, a stain's threshold).
        decidable: ``[H, W]`` float32, soft decidable region ``R+`` in [0, 1], at the image's own size.
        evidence: False if the image shows nothing to decide on: its mask is empty and its class is not to be read.
        threshold: of ``decidable``, for the mask.
        min_box_area: a part of the mask below this share of the image's area gets no box.
        reason: why there is no evidence (see :func:`~glas_wsol.results.tissue.missing_evidence`); empty if there is.
        several: whether an image may have several classes: those at least as probable as not are named.
        opinions: what M says of the whole image, and C of the decidable region and of the rest, with or without
            evidence; those that the method has.
        image: ``[H, W, 3]`` uint8 RGB, the image itself; None where it was not kept.
        mpp: width and height of a pixel in micrometres; None where unknown.
        provenance: what it was made with; None where nobody said.
    """

    name: str
    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    decidable: np.ndarray = field(repr=False)
    evidence: bool
    threshold: float = THRESHOLD
    min_box_area: float = MIN_BOX_AREA
    reason: str = ""
    several: bool = False
    opinions: Opinions = field(default_factory=Opinions)
    image: np.ndarray | None = field(default=None, repr=False)
    mpp: tuple[float, float] | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        for name in ("decidable", "image"):
            array = getattr(self, name)
            if array is not None:
                view = np.asarray(array).view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self.decidable.shape
        return height, width

    @property
    def mask(self) -> np.ndarray:
        """``[H, W]`` bool: the decidable region; empty without evidence."""
        return (self.decidable >= self.threshold) & self.evidence

    @property
    def undecidable(self) -> np.ndarray:
        """``[H, W]`` float32, ``R- = 1 - R+``: how little each pixel decided, in [0, 1]."""
        return 1 - self.decidable

    @property
    def rest(self) -> np.ndarray:
        """``[H, W]`` bool: the undecidable region, all that is not in the mask; the whole image without evidence."""
        return ~self.mask

    @property
    def label(self) -> int | None:
        """Index of the most probable class, with evidence or without; None where the method names no class."""
        return int(np.argmax(self.probabilities)) if self.probabilities else None

    @property
    def labels(self) -> tuple[int, ...]:
        """Indices of the classes named, with evidence or without; empty where the method names no class.

        Where an image may have several, they are those of at least 0.5, if any.
        """
        if self.several:
            return tuple(k for k, p in enumerate(self.probabilities) if p >= LEAST_PROBABILITY)
        return () if self.label is None else (self.label,)

    @property
    def predicted(self) -> str:
        """Names of :attr:`labels`, joined by ``;``, or ``"no class"``; empty where the method names no class."""
        if self.probabilities and not self.labels:
            return "no class"
        return SEPARATOR.join(self.classes[label] for label in self.labels)

    @property
    def class_name(self) -> str:
        """What is said of the image: its class or classes as :attr:`predicted`, or ``"no evidence"``."""
        return self.predicted if self.evidence else "no evidence"

    @property
    def named(self) -> dict[str, float]:
        """The classes named, in label order, each with its probability; empty without evidence."""
        return {self.classes[k]: self.probabilities[k] for k in self.labels} if self.evidence else {}

    @property
    def probability(self) -> float | None:
        """Probability of the most probable class; None without evidence and where the method names no class."""
        return None if self.label is None or not self.evidence else self.probabilities[self.label]

    @property
    def decidable_fraction(self) -> float:
        """Share of the image in the mask, in [0, 1]."""
        return float(self.mask.mean())

    @property
    def decidable_area(self) -> int:
        """Pixels of the mask."""
        return int(self.mask.sum())

    def square_micrometres(self, pixels: float) -> float | None:
        """An area in square micrometres; None where the size of a pixel is unknown.

        Args:
            pixels: the area in pixels.
        """
        return None if self.mpp is None else pixels * self.mpp[0] * self.mpp[1]

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes around the mask's connected parts, the largest first (see :func:`~glas_wsol.results.boxes.find_boxes`)."""
        return find_boxes(self.decidable, self.mask, self.min_box_area)

    def save(
        self, folder: str | Path, formats: str | Iterable[str] = ("png",), *, overlay: bool = True, rest: bool = False
    ) -> list[Path]:
        """Write it, as a run of inference does; a file of the same name is replaced.

        Args:
            folder: made if absent; files are named after :attr:`name`.
            formats: of :data:`~glas_wsol.writers.formats.FORMATS`. Defaults to the mask as PNG.
            overlay: whether to draw the overlay too. Defaults to True.
            rest: whether GeoJSON outlines the undecidable region too. Defaults to False.

        Returns:
            The files written.

        Raises:
            ConfigError: on an unknown format, or one that needs a missing package.
            ImageFileError: where a format needs what the image's file does not have.
            OutputError: where a file cannot be written.
        """
        from glas_wsol.writers.formats import save_localization  # writers are made of results, not results of writers

        return save_localization(folder, self, formats, overlay=overlay, rest=rest)


def separate_objects(mask: Tensor | np.ndarray, threshold: float = 0) -> np.ndarray:
    """Number the objects of a true mask.

    With a threshold of 0 the values may be ids: an object is a connected region (8-connectivity) of one value, so that
    two glands that touch stay two, and a mask of one value falls apart into its connected parts. With a higher one the
    values are votes: an object is a connected region of pixels above it.

    Args:
        mask: ``[1, H, W]`` or ``[H, W]``, on any device.
        threshold: foreground lies above it.

    Returns:
        ``[H, W]`` int32, 0 background, 1 to n in the order of their first pixels.
    """
    values = torch.as_tensor(mask).cpu().numpy()
    values = values.reshape(values.shape[-2:])
    ids = np.where(values > threshold, values, 0) if threshold == 0 else values > threshold
    if ids.dtype.kind == "f":  # only whole numbers can be labelled
        ids = np.unique(np.append(ids, 0), return_inverse=True)[1][:-1].reshape(ids.shape)
    return connected_regions(ids, background=0, connectivity=2).astype(np.int32)


class LocalizePredictiond(Transform):
    """From the network's tensor to a :class:`Localization`, after each image of an evaluator.

    Reads ``pred`` (``[1 + c, H, W]``, sums to 1 at every pixel), ``image`` (``[3, H, W]`` in [0, 1]) and, where they
    are, ``name`` and ``mask``. Adds ``localization``; ``probabilities`` (``[c]``), unless the method names no class;
    and, where there is a mask, ``truth`` (``[1, H, W]`` bool), ``truth_objects`` (``[H, W]`` int32 array: 0 background,
    1, 2, ... the objects, see :func:`separate_objects`) and ``truth_path``.

    Where an image may have several classes, it reads ``presence`` (``[c]``, each in [0, 1]) besides: channels that
    share the decidable region hold no probabilities that need not sum to 1. Where they are, it reads what M and C say
    too, see :mod:`glas_wsol.inferers.class_scores`.

    Args:
        classes: class names in label order.
        threshold: for the mask. Defaults to 0.5.
        mask_threshold: true masks are foreground above this value: 0 (default) for instance ids as in GlaS, 127 for
            the grey votes of CUB.
        names_class: False for a network whose class channels mean nothing. Defaults to True.
        min_box_area: see :class:`Localization`. Defaults to 0.001.
        judge_evidence: False for a mask that does not come from the evidence for a class, a floor's or a
            segmentation's: it may rightly be all ones. Defaults to True.
        stain: of the images, ``"H&E"``: those without tissue of this stain are no evidence. None (default) or empty
            for images of anything.
        classes_per_image: ``"one"`` (default) or ``"several"``.
        hole_area: px of the image; smaller holes of the mask are filled, see
            :func:`~glas_wsol.transforms.clean_regions.clean_regions`. Defaults to 0, none.
        speck_area: px of the image; smaller parts of the mask are removed. Defaults to 0, none.
        mpp: micrometres per pixel, or the width and the height of a pixel; None (default): as an image's DICOM file
            says.
        provenance: what results are made with; None (default) if nobody asks.

    Raises:
        ConfigError: if ``threshold`` or ``min_box_area`` is not in [0, 1], an area is negative, on another stain,
            another word for classes per image, or an impossible ``mpp``.
    """

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float = THRESHOLD,
        mask_threshold: float = 0,
        names_class: bool = True,
        min_box_area: float = MIN_BOX_AREA,
        judge_evidence: bool = True,
        stain: str | None = None,
        classes_per_image: str = "one",
        hole_area: float = 0,
        speck_area: float = 0,
        mpp: float | Sequence[float] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise ConfigError(f"threshold={threshold!r}", "LocalizePredictiond", "give a number from 0 to 1")
        check_min_area(min_box_area)
        clean_regions(np.zeros((3, 3), np.float32), hole_area, speck_area)  # refuses what it cannot do
        stain = None if stain == "null" else stain  # as the command line says it
        if stain and stain not in STAINS:
            raise ConfigError(f"stain={stain!r}", "LocalizePredictiond", f"choose {' or '.join(STAINS)}, or null")
        self.classes = tuple(classes)
        self.threshold = threshold
        self.mask_threshold = mask_threshold
        self.names_class = names_class
        self.min_box_area = min_box_area
        self.judge_evidence = judge_evidence
        self.stain = stain
        self.several = is_several(classes_per_image, "LocalizePredictiond")
        self.hole_area, self.speck_area = hole_area, speck_area
        self.mpp, self.provenance = check_mpp(mpp), provenance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Localize one decollated item.

        Raises:
            ConfigError: if an image may have several classes and nothing said how probable they are.
            ImageFileError: if the mask has another size than its image, or no value above ``mask_threshold`` but some.
            NumericalError: if the prediction is not finite.
        """
        prediction, image = (
            v.as_tensor() if isinstance(v, MetaTensor) else v for v in (data[Keys.PRED], data[Keys.IMAGE])
        )
        meta = data[Keys.IMAGE].meta if isinstance(data[Keys.IMAGE], MetaTensor) else {}
        path = str(meta.get("filename_or_obj", ""))
        if not prediction.isfinite().all():
            raise NumericalError("the network's output is not a finite number", path, "train again at a lower rate")
        decidable = 1 - prediction[0]
        item = dict(data)
        probabilities: tuple[float, ...] = ()
        if self.names_class:
            shares = self._presence(data) if self.several else _shares(prediction)
            item["probabilities"], probabilities = shares.float(), tuple(shares.tolist())
        reason = missing_evidence(image, decidable, self.stain) if self.judge_evidence else ""
        item["localization"] = Localization(
            name=str(data.get("name", Path(path).stem)),
            path=path,
            classes=self.classes,
            probabilities=probabilities,
            decidable=clean_regions(decidable.float().cpu().numpy(), self.hole_area, self.speck_area),
            evidence=not reason,
            threshold=self.threshold,
            min_box_area=self.min_box_area,
            reason=reason,
            several=self.several,
            opinions=self._opinions(data, probabilities),
            image=_pixels(image),
            mpp=self.mpp or pixel_size(path),
            provenance=self.provenance,
        )
        if "mask" in data:
            item["truth"] = self._truth(data["mask"], image)
            item["truth_objects"] = separate_objects(data["mask"], self.mask_threshold)
            item["truth_path"] = str(getattr(data["mask"], "meta", {}).get("filename_or_obj", "in memory"))
        return item

    @staticmethod
    def _presence(data: Mapping[Hashable, Any]) -> Tensor:
        if PRESENCE not in data:
            fix = "attach glas_wsol.handlers.ClassPresence to the evaluator"
            raise ConfigError("nothing says how probable each of several classes is", "LocalizePredictiond", fix)
        return torch.as_tensor(data[PRESENCE]).double()

    def _opinions(self, data: Mapping[Hashable, Any], probabilities: tuple[float, ...]) -> Opinions:
        if not probabilities:
            return Opinions()
        said = {k: tuple(torch.as_tensor(data[k]).tolist()) for k in (LOCALIZER, DECIDABLE, UNDECIDABLE) if k in data}
        # C on the decidable part names the class, and has said no more of it
        opinions = {key: Opinion(shares or probabilities, self.several) for key, shares in said.items()}
        return Opinions(opinions.get(LOCALIZER), opinions.get(DECIDABLE), opinions.get(UNDECIDABLE))

    def _truth(self, mask: Tensor, image: Tensor) -> Tensor:
        values = torch.as_tensor(mask)
        path = getattr(mask, "meta", {}).get("filename_or_obj", "mask")
        if values.shape[-2:] != image.shape[-2:]:
            sizes = f"{tuple(values.shape[-2:])}, its image {tuple(image.shape[-2:])}"
            raise ImageFileError(f"the mask's size is {sizes}", path, "give masks of their images' size")
        largest = float(values.max())
        if 0 < largest <= self.mask_threshold:
            what = f"no value of the mask is above mask_threshold={self.mask_threshold}, the largest is {largest:g}"
            raise ImageFileError(what, path, "set mask_threshold=0 for masks of labels or ids")
        return values > self.mask_threshold


def _pixels(image: Tensor) -> np.ndarray:
    """``[H, W, 3]`` uint8 of a tensor ``[3, H, W]`` in [0, 1]."""
    values = (np.asarray(image.float().cpu()) * 255).round().clip(0, 255)
    return np.ascontiguousarray(values.astype(np.uint8).transpose(1, 2, 0))


def _shares(prediction: Tensor) -> Tensor:
    """``[c]`` probabilities: channel k is ``R+ p(k)``, so the sums have their ratio wherever ``R+`` is not 0."""
    mass = prediction[1:].double().sum(dim=(1, 2))
    return mass / mass.sum() if mass.sum() > 0 else torch.full_like(mass, 1 / len(mass))
