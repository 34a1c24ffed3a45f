# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Turn a network's prediction into a result, after each image of an evaluator."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils.enums import CommonKeys as Keys
from skimage.measure import label as connected_regions
from torch import Tensor

from glas_wsol.errors import ConfigError, ImageFileError, NumericalError
from glas_wsol.results.boxes import MIN_BOX_AREA, check_min_area
from glas_wsol.results.class_scores import (
    DECIDABLE,
    FAMILIAR,
    LOCALIZER,
    PRESENCE,
    UNDECIDABLE,
    WHOLE_IMAGE,
    ClassProbabilities,
    ClassScores,
)
from glas_wsol.results.localization import THRESHOLD, Localization
from glas_wsol.results.provenance import Provenance
from glas_wsol.results.tissue_presence import STAINS, missing_evidence
from glas_wsol.transforms.clean_regions import clean_regions
from glas_wsol.transforms.reading.spacing import DOUBT, mpp_of_metadata
from glas_wsol.utils.host_copy import to_host
from glas_wsol.utils.labels import check_multi_label

__all__ = ["LocalizePredictiond", "separate_objects"]

logger = logging.getLogger(__name__)

_MASS = "mass"  # the sums of the classes' channels


def separate_objects(mask: Tensor | np.ndarray, threshold: float = 0) -> np.ndarray:
    """Number the objects of a true mask.

    With a threshold of 0 the values may be ids: an object is a connected region (8-connectivity) of one value, so that
    two glands that touch stay two, and a mask of one value is split into its connected parts. With a higher one the
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
    share the decidable region hold no probabilities that need not sum to 1. Where present, it reads the class scores
    of M and C too, and ``familiar`` (``[]``), see :mod:`glas_wsol.inferers.class_score_inferer`.

    Args:
        classes: class names in label order.
        threshold: for the mask. Defaults to 0.5.
        mask_threshold: true masks are foreground above this value: 0 (default) for instance ids as in GlaS, 127 for
            the grey votes of CUB.
        names_class: False for a network whose class channels mean nothing. Defaults to True.
        min_box_area: see :class:`Localization`. Defaults to 0.001.
        judge_evidence: False for a mask that does not come from a class activation map, such as a baseline's or a
            segmentation's: it may rightly be all ones. Defaults to True.
        stain: of the images, ``"H&E"``: those without tissue of this stain show nothing to decide on. None (default)
            or empty for images of any kind.
        multi_label: False (default) for one class per image, True for several.
        hole_area: px of the image; smaller holes of the mask are filled, see
            :func:`~glas_wsol.transforms.clean_regions.clean_regions`. Defaults to 0, none.
        speck_area: px of the image; smaller parts of the mask are removed. Defaults to 0, none.
        short_side: px; both areas are those of an image whose shorter side is this long. None (default): as they are.
        training_mpp: micrometres of a pixel of the training images, which the areas hold for and which is assumed where
            an image's is not known; None (default) where the model does not record it.
        provenance: what results are made with; None (default) if not needed.
        classifier_knows_mask: False for a network whose classifier was not trained on masks such as it predicts, see
            :class:`~glas_wsol.results.class_scores.ClassScores`. Defaults to True.

    Raises:
        ConfigError: if ``threshold`` or ``min_box_area`` is not in [0, 1], an area is negative, the stain is another,
            or ``multi_label`` is not true or false.
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
        multi_label: bool = False,
        hole_area: float = 0,
        speck_area: float = 0,
        short_side: int | None = None,
        training_mpp: float | None = None,
        provenance: Provenance | None = None,
        classifier_knows_mask: bool = True,
    ) -> None:
        if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise ConfigError(f"threshold={threshold!r}", "LocalizePredictiond", "give a number from 0 to 1")
        check_min_area(min_box_area)
        clean_regions(np.zeros((3, 3)), threshold, hole_area, speck_area)  # refuses what it cannot do
        stain = None if stain == "null" else stain  # as the command line writes it
        if stain and stain not in STAINS:
            raise ConfigError(f"stain={stain!r}", "LocalizePredictiond", f"choose {' or '.join(STAINS)}, or null")
        self.classes = tuple(classes)
        self.threshold = threshold
        self.mask_threshold = mask_threshold
        self.names_class, self.classifier_knows_mask = names_class, classifier_knows_mask
        self.min_box_area = min_box_area
        self.judge_evidence = judge_evidence
        self.stain = stain
        self.multi_label = check_multi_label(multi_label, "LocalizePredictiond")
        self.hole_area, self.speck_area, self.short_side = hole_area, speck_area, short_side
        self.training_mpp, self.provenance = training_mpp, provenance
        self._said: set[str] = set()

    @classmethod
    def for_network(cls, network: Any, labels: bool | None = None, **options: Any) -> LocalizePredictiond:
        """Build it for a network, which declares whether it names a class, how many per image, and its supervision.

        Args:
            labels: the data set's ``multi_label``; None (default) where there are no labels.

        Raises:
            ConfigError: if the network names one class per image and the labels several, or the other way round.
        """
        own, names_class = getattr(network, "multi_label", False), getattr(network, "names_class", True)
        if names_class and labels is not None and check_multi_label(labels, "labels") != own:
            what = f"{type(network).__name__} has multi_label={own}, and the labels have multi_label={labels}"
            fix = "give both the same multi_label; a method that cannot have several goes with one"
            raise ConfigError(what, "multi_label", fix)
        judged = getattr(network, "supervision", "image labels").startswith("image labels")
        return cls(
            names_class=names_class,
            multi_label=own,
            judge_evidence=judged,
            classifier_knows_mask=getattr(network, "classifier_knows_mask", True),
            **options,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Localize one decollated item.

        Raises:
            ConfigError: if an image may have several classes and their probabilities are missing.
            ImageFileError: if the mask has another size than its image, or no value above ``mask_threshold`` but some.
            NumericalError: if the prediction is not finite.
        """
        if isinstance(data[Keys.PRED], Mapping):  # with class scores
            data = {**data, **data[Keys.PRED]}
        prediction, image = (
            v.as_tensor() if isinstance(v, MetaTensor) else v for v in (data[Keys.PRED], data[Keys.IMAGE])
        )
        meta = data[Keys.IMAGE].meta if isinstance(data[Keys.IMAGE], MetaTensor) else {}
        path = str(meta.get("filename_or_obj", ""))
        parts = _numbers(data, prediction)
        decidable, values = to_host((1 - prediction[0]).float(), torch.cat(list(parts.values())))
        several = values.split([len(part) for part in parts.values()])
        scores = {key: tuple(one.tolist()) for key, one in zip(parts, several, strict=True)}
        image = image.cpu()
        # of a sum that is finite every value is
        if not (decidable.sum(dtype=torch.float64).isfinite() and np.isfinite(scores[_MASS]).all()):
            raise NumericalError("the network's output is not a finite number", path, "train again at a lower rate")
        mpp = mpp_of_metadata(meta)
        # how many pixels of this image are as large as one of the training's
        if self.short_side:
            area = (min(decidable.shape) / self.short_side) ** 2
        else:
            area = self.training_mpp**2 / (mpp[0] * mpp[1]) if mpp and self.training_mpp else 1.0
        item = dict(data)
        probabilities: tuple[float, ...] = ()
        if self.names_class:
            probabilities = self._presence(scores) if self.multi_label else _shares(scores[_MASS])
            item["probabilities"] = torch.tensor(probabilities)
        item |= {key: torch.tensor(scores[key]) for key in WHOLE_IMAGE if key in scores}
        reason = missing_evidence(image, decidable, self.stain) if self.judge_evidence else ""
        item["localization"] = Localization(
            name=str(data.get("name", Path(path).stem)),
            path=path,
            classes=self.classes,
            probabilities=probabilities,
            decidable=decidable.numpy(),
            evidence=not reason,
            threshold=self.threshold,
            hole_area=self.hole_area * area,
            speck_area=self.speck_area * area,
            min_box_area=self.min_box_area,
            reason=reason,
            multi_label=self.multi_label,
            class_scores=self._class_scores(scores, probabilities),
            familiarity=scores[FAMILIAR][0] if FAMILIAR in scores else None,
            image=_pixels(image),
            mpp=mpp,
            assumed_mpp=None if mpp else self.training_mpp,
            pixel_size_remark=self._pixel_size_remark(mpp, meta, path),
            provenance=self.provenance,
        )
        if "mask" in data:
            item["truth"] = self._truth(data["mask"], image)
            item["truth_objects"] = separate_objects(data["mask"], self.mask_threshold)
            item["truth_path"] = str(getattr(data["mask"], "meta", {}).get("filename_or_obj", "in memory"))
        return item

    def _pixel_size_remark(self, mpp: tuple[float, float] | None, meta: Mapping, path: str) -> str:
        """What a reader must know; logged too, once for each kind."""
        doubt = str(meta.get(DOUBT, ""))
        if self.training_mpp is None:
            said = "the model records no pixel size: images are not brought to one" if mpp or self.stain else ""
            remark = said if mpp else ""
        elif mpp is None:
            why = f"not known (its file has {doubt})" if doubt else "not known"
            remark = said = f"pixel size {why}: {self.training_mpp:.4g} um assumed, that of the training images"
        else:
            remark = said = ""
        if said and said not in self._said:
            self._said.add(said)
            logger.warning("%s (first in %s)", said, path or "an image in memory")
        return remark

    @staticmethod
    def _presence(scores: Mapping[str, tuple[float, ...]]) -> tuple[float, ...]:
        if PRESENCE not in scores:
            fix = "predict with glas_wsol.inferers.ClassScoreInferer"
            raise ConfigError("nothing says how probable each of several classes is", "LocalizePredictiond", fix)
        return scores[PRESENCE]

    def _class_scores(self, scores: Mapping[str, tuple[float, ...]], probabilities: tuple[float, ...]) -> ClassScores:
        if not probabilities:
            return ClassScores()
        # the class named is C's on the decidable region: these scores are the prediction's own
        found = {
            key: ClassProbabilities(scores[key] or probabilities, self.multi_label)
            for key in (LOCALIZER, DECIDABLE, UNDECIDABLE)
            if key in scores
        }
        regions = found.get(DECIDABLE), found.get(UNDECIDABLE)
        return ClassScores(found.get(LOCALIZER), *regions, self.classifier_knows_mask)

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


def _numbers(data: Mapping[Hashable, Any], prediction: Tensor) -> dict[str, Tensor]:
    """All numbers that an item has beside its maps, by their keys: ``[n]`` float64 each, on the prediction's device."""
    found = {_MASS: prediction[1:].sum(dim=(1, 2), dtype=torch.float64)}
    keys = [key for key in (LOCALIZER, DECIDABLE, UNDECIDABLE, PRESENCE, FAMILIAR, *WHOLE_IMAGE) if key in data]
    return found | {key: torch.as_tensor(data[key]).to(prediction.device, torch.float64).ravel() for key in keys}


def _pixels(image: Tensor) -> np.ndarray:
    """``[H, W, 3]`` uint8 of a tensor ``[3, H, W]`` in [0, 1]."""
    values = (image.float() * 255).round_().clamp_(0, 255)
    return values.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _shares(mass: tuple[float, ...]) -> tuple[float, ...]:
    """``[c]`` probabilities: channel k is ``R+ p(k)``, so the sums have their ratio wherever ``R+`` is not 0."""
    total = sum(mass)
    return tuple(one / total if total > 0 else 1 / len(mass) for one in mass)
