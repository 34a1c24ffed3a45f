# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Predict whole tiles of any width and height."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import Rescale, Window, crop_back, pad_to_multiple
from glas_wsol.transforms.reading.spacing import mpp_of

__all__ = ["TrainingInferer", "WholeTileInferer"]


class _View(NamedTuple):
    """A symmetry of the square: mirrored left to right or not, then turned anticlockwise by quarters."""

    quarters: int = 0
    mirrored: bool = False

    def of(self, image: Tensor) -> Tensor:
        """``[B, n, H, W]`` in this view; height and width are exchanged after an odd number of quarters."""
        return (image.flip(-1) if self.mirrored else image).rot90(self.quarters, (-2, -1)).contiguous()

    def undo(self, prediction: Tensor) -> Tensor:
        """Put a prediction of the view back into the image's place; no value changes."""
        upright = prediction.rot90(-self.quarters, (-2, -1))
        return upright.flip(-1) if self.mirrored else upright

    def size(self, mpp: tuple[float, float] | None) -> tuple[float, float] | None:
        """Width and height of a pixel in this view."""
        return (mpp[1], mpp[0]) if mpp and self.quarters % 2 else mpp


def _views(flips: bool | str, rotations: bool) -> tuple[_View, ...]:
    """The views, in an order in which each half, quarter, ... is a coset of a normal subgroup of all of them.

    Mirroring or turning the image only makes such parts change places, and a sum that is made of two halves, each made
    of two halves, ... stays the same to the last bit.
    """
    if flips not in (False, True, "horizontal"):
        raise ConfigError(f"flips={flips!r}", "WholeTileInferer", "give true, false or horizontal")
    if flips == "horizontal":
        if rotations:
            raise ConfigError("flips=horizontal with rotations", "WholeTileInferer", "quarter turns need flips=true")
        return _View(0), _View(0, True)
    views = [_View(0)]
    if flips or rotations:
        views.append(_View(2))
    if flips:
        views += [view._replace(mirrored=True) for view in views]
    if rotations:
        views += [view._replace(quarters=view.quarters + 1) for view in views]
    return tuple(views)


def _by_halves(views: Sequence[_View], predict: Callable[[_View], Tensor]) -> Tensor:
    """The sum over views, in the order of :func:`_views`. Not a closure: one that calls itself would keep its image."""
    if len(views) == 1:
        return predict(views[0])
    half = len(views) // 2
    return _by_halves(views[:half], predict) + _by_halves(views[half:], predict)


class WholeTileInferer(Inferer):
    """Shrink to the training resolution, reflect-pad to a multiple of the stride, predict, crop and enlarge back.

    The prediction has the input's own height and width; interpolation keeps its channels' sum at 1. With
    ``training_mpp`` an image is brought to the micrometres per pixel of the training, whatever its own: those are in
    its metadata, see :func:`~glas_wsol.transforms.reading.spacing.mpp_of`.

    With several views it is the mean of their predictions, each put back into the image's place: still a distribution
    at every pixel. Every view is padded for itself, so that the result of a mirrored image is the mirrored result,
    whatever the network, where the views hold that mirroring, and the same for turns: to the last bit if the network
    is deterministic. Each view's mask was min-max normalised by itself; a threshold then acts on the views' mean of
    ``R+``, which seldom reaches 0 or 1. A view's weight in the class is its decidable area.

    A prediction costs as many forwards as there are views: ``flips`` 4 (2 if horizontal), ``rotations`` 4, both 8;
    times the number of scales, where a forward's work goes with the square of its scale.

    Args:
        factor: training resolution as a factor of the input's. Defaults to 1.
        short_side: training resolution as the length of the shorter side in px, instead of ``factor``.
        divisor: of both padded sides. Defaults to 32, the trunks' stride.
        flips: average over the image, its two mirror images and both mirrorings at once; ``"horizontal"``: over the
            image and its mirror image left to right only, where up and down are not alike. Defaults to False.
        rotations: average over quarter turns, with ``flips`` those of the mirror images too. Defaults to False.
        scales: average over these resolutions, relative to the training resolution. Defaults to (1,).
        training_mpp: micrometres of a pixel that ``factor`` holds for, see :class:`~glas_wsol.transforms.Rescale`; None
            (default): for any.
    """

    def __init__(
        self,
        factor: float = 1.0,
        short_side: int | None = None,
        divisor: int = 32,
        flips: bool | str = False,
        rotations: bool = False,
        scales: Sequence[float] = (1.0,),
        training_mpp: float | None = None,
    ) -> None:
        super().__init__()
        if not scales or not isinstance(scales, (list, tuple)) or not all(0 < scale < math.inf for scale in scales):
            raise ConfigError(f"scales={scales!r}", "WholeTileInferer", "give a list of numbers above 0, as [1.0]")
        self.rescale = Rescale(factor, short_side, training_mpp=training_mpp)
        self.rescales = [
            Rescale(factor * scale, training_mpp=training_mpp)
            if short_side is None
            else Rescale(factor, max(1, round(short_side * scale)))
            for scale in scales
        ]
        self.divisor = divisor
        self._views = _views(flips, rotations)
        self._settings = {"factor": factor, "short_side": short_side, "divisor": divisor}
        self._settings |= {"flips": flips, "rotations": rotations, "scales": [float(scale) for scale in scales]}
        self._settings |= {} if training_mpp is None else {"training_mpp": training_mpp}

    def settings(self) -> dict[str, Any]:
        """What a prediction depends on besides the network, as JSON values."""
        return dict(self._settings)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Predict.

        Args:
            inputs: ``[B, 3, H, W]``, in [0, 1].
            network: maps ``[B, 3, H', W']`` to ``[B, n, H', W']``, ``H'`` and ``W'`` multiples of the divisor.

        Returns:
            ``[B, n, H, W]``.
        """

        def predict(view: _View, rescale: Rescale) -> Tensor:
            seen = view.of(image)
            padded, window = self._pad(seen, rescale, view.size(mpp))
            prediction = crop_back(network(padded, *args, **kwargs), window)
            if prediction.shape[-2:] != seen.shape[-2:]:
                size = seen.shape[-2:]
                prediction = F.interpolate(prediction, size=size, mode="bilinear", align_corners=False)
            return view.undo(prediction)

        image, mpp = _plain(inputs), mpp_of(inputs)
        prediction = _by_halves(self._views, partial(predict, rescale=self.rescales[0]))
        for rescale in self.rescales[1:]:
            prediction = prediction + _by_halves(self._views, partial(predict, rescale=rescale))
        count = len(self._views) * len(self.rescales)
        return prediction if count == 1 else prediction / count

    def prepare(self, inputs: Tensor) -> tuple[Tensor, Window]:
        """The image as the network is given it, ``[B, 3, H', W']``, and where the image lies in it."""
        return self._pad(_plain(inputs), self.rescale, mpp_of(inputs))

    def views(self, inputs: Tensor) -> Iterator[Tensor]:
        """What the network is given, view by view: ``[B, 3, H', W']`` of every view at every scale, padded."""
        image, mpp = _plain(inputs), mpp_of(inputs)
        return (
            self._pad(view.of(image), rescale, view.size(mpp))[0] for rescale in self.rescales for view in self._views
        )

    def scales(self) -> list[float]:
        """Of every view, in the order of :meth:`views`: its resolution relative to the training's."""
        return [scale for scale in self._settings["scales"] for _ in self._views]

    def _pad(self, image: Tensor, rescale: Rescale, mpp: tuple[float, float] | None) -> tuple[Tensor, Window]:
        return pad_to_multiple(torch.stack([rescale(one, mpp=mpp) for one in image]), self.divisor)


def _plain(inputs: Tensor) -> Tensor:
    return inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs


class TrainingInferer(Inferer):
    """Returns a network's raw scores, before they become a distribution per pixel: the values a loss is computed from.

    Args:
        method: the network's method to call on normalised images: ``"logits"`` (class scores ``[B, c]``, default) or
            ``"mask_logits"`` (``[B, 1, H, W]``).
    """

    def __init__(self, method: str = "logits") -> None:
        super().__init__()
        self.method = method

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Call the method. ``inputs``: ``[B, 3, H, W]``, in [0, 1]; ``network``: has ``normalise`` and the method."""
        return getattr(network, self.method)(network.normalise(inputs), *args, **kwargs)
