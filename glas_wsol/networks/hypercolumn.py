# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute finer class maps: features of several stages of a trunk as one hypercolumn, which is never built.

A hypercolumn (Hariharan et al., CVPR 2015) is the features of several stages at one position, the coarser ones
resized to the finest grid. All that the networks do to it is linear and position by position, and so commutes with
resizing: each stage is projected on its own grid, to few maps, and these are resized and added.

Resizing is by matrix products, because the gradient passes through it, see :func:`~glas_wsol.networks.maps.resize`.
Corners are not aligned: a position covers a square of the image, and the squares of all grids share their borders.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks.maps import at_least_float32, interpolation_matrix, resize_exactly

__all__ = ["attended", "join", "number_of_stages", "project", "rescale", "widen"]

_STAGES = {32: 1, 16: 2, 8: 3}


def number_of_stages(map_stride: int) -> int:
    """How many of a trunk's last stages give maps of stride 32, 16 or 8 px; a ConfigError for any other."""
    if map_stride not in _STAGES:
        raise ConfigError(f"map_stride={map_stride}", "network", f"choose one of {', '.join(map(str, _STAGES))}")
    return _STAGES[map_stride]


def rescale(features: Tensor, norm: float = 20.0, eps: float = 0.1) -> Tensor:
    """Features brought to one Euclidean norm over the channels, position by position (ParseNet, Liu et al., 2015).

    A weight learns at a rate that grows with the norm of what it multiplies, and stages differ: in the pretrained
    EfficientNet-Lite0 the norm is 46 at stride 8, 52 at stride 16, and 23 in the last stage, with many more channels.
    20, the scale of SSD (Liu et al., ECCV 2016), lets a finer stage learn about as fast as the last.
    It depends on neither other positions nor other images: activations at one place must not change by erasing another.

    Args:
        features: ``[B, channels, h, w]``.
        norm: wanted.
        eps: added to the squared norm; keeps features near zero from being amplified.
    """
    values = at_least_float32(features)
    return (values * (norm * torch.rsqrt(values.square().sum(dim=1, keepdim=True) + eps))).to(features.dtype)


def widen(layer: nn.Conv2d | nn.Linear, channels: Sequence[int]) -> None:
    """Let a linear layer of the last stage's features read finer stages too, with weights that start at 0.

    So a seed draws the same weights at every stride, and training starts from the maps of stride 32, resized.

    Args:
        layer: ``nn.Conv2d`` with a 1x1 kernel or ``nn.Linear``, of ``channels[0]`` input channels; changed in place.
        channels: of the stages, the last stage first.
    """
    if len(channels) == 1:
        return
    weight = layer.weight
    finer = weight.new_zeros(weight.shape[0], sum(channels[1:]), *weight.shape[2:])
    layer.weight = nn.Parameter(torch.cat([weight.detach(), finer], dim=1))
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", sum(channels))


def join(features: list[Tensor]) -> Tensor:
    """The hypercolumn itself, ``[B, sum of n, h, w]`` on the finest grid, of the stages' features, the finest last."""
    if len(features) == 1:
        return features[0]
    height, width = features[-1].shape[2], features[-1].shape[3]
    return torch.cat([_resized(one, height, width) for one in features], dim=1)


def project(features: list[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution of the hypercolumn.

    Args:
        features: as for :func:`join`.
        weight: ``[maps, sum of n, 1, 1]``.
        bias: ``[maps]``, or None.

    Returns:
        ``[B, maps, h, w]`` on the finest grid.
    """
    if len(features) == 1:
        return F.conv2d(features[0], weight, bias)
    height, width = features[-1].shape[2], features[-1].shape[3]
    start = features[0].shape[1]
    # A row of the interpolation matrix sums to 1: a bias added before it is the bias added after it.
    maps = _resized(F.conv2d(features[0], weight[:, :start], bias), height, width)
    for finer in features[1:]:
        end = start + finer.shape[1]
        maps = maps + _resized(F.conv2d(finer, weight[:, start:end]), height, width)
        start = end
    return maps


def attended(features: list[Tensor], attention: Tensor) -> Tensor:
    """The mean hypercolumn, weighted by attention: ``sum_i a_i h_i``.

    Attention is taken to each stage's grid by the transposed interpolation, which gives the same sum.

    Args:
        features: as for :func:`join`.
        attention: ``[B, 1, h, w]`` on the finest grid, at least float32.

    Returns:
        ``[B, sum of n]``.
    """
    if len(features) == 1:
        return (attention * features[0]).sum(dim=[2, 3])
    bags = [(_spread(attention, one.shape[2], one.shape[3]) * one).sum(dim=[2, 3]) for one in features]
    return torch.cat(bags, dim=1)


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    maps = at_least_float32(maps)
    if maps.shape[2] == height and maps.shape[3] == width:
        return maps
    return resize_exactly(maps, height, width)


def _spread(weights: Tensor, height: int, width: int) -> Tensor:
    if torch.jit.is_scripting():
        return _transposed(weights, height, width)
    else:
        with torch.autocast(weights.device.type, enabled=False):
            return _transposed(weights, height, width)


def _transposed(weights: Tensor, height: int, width: int) -> Tensor:
    rows = interpolation_matrix(height, weights.shape[2], False, weights)
    columns = interpolation_matrix(width, weights.shape[3], False, weights)
    return rows.transpose(0, 1) @ weights @ columns
