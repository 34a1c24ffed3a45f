# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Turn class activation maps into an image mask: weight, upsample, normalise, pseudo-threshold (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "activation_map",
    "at_least_float32",
    "bilinear",
    "distribution",
    "interpolation_matrix",
    "normalise",
    "pseudo_threshold",
    "resize",
    "resize_exactly",
    "score_map",
]


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision values of any shape as float32: selection, softmax and trust need more than 8 bits."""
    if values.dtype == torch.float16 or values.dtype == torch.bfloat16:
        return values.float()
    return values


def activation_map(maps: Tensor, probabilities: Tensor) -> Tensor:
    """``T = sum_k p(k) A_k``, ``[B, 1, h, w]``: maps ``[B, c, h, w]`` weighted by probabilities (equation 10)."""
    return torch.einsum("bk,bkhw->bhw", probabilities, maps).unsqueeze(1)


def interpolation_matrix(source: int, target: int, align_corners: bool, like: Tensor) -> Tensor:
    """Linear interpolation of ``source`` samples to ``target`` samples as a matrix.

    Args:
        source: number of samples given, at least 1.
        target: number of samples wanted, at least 1.
        align_corners: whether first and last samples coincide, as in ``torch.nn.functional.interpolate``.
        like: a tensor whose dtype and device the matrix takes.

    Returns:
        ``[target, source]``; each row sums to 1.
    """
    index = torch.arange(target, dtype=like.dtype, device=like.device)
    if align_corners:
        position = index * ((source - 1) / (target - 1) if target > 1 else 0.0)
    else:
        position = ((index + 0.5) * (source / target) - 0.5).clamp(min=0.0)
    samples = torch.arange(source, dtype=like.dtype, device=like.device)
    position = torch.minimum(position, samples[-1:])
    # A triangle of width 1 around each source sample: (1 - |distance|)+ is linear interpolation.
    return (1.0 - (position.unsqueeze(1) - samples.unsqueeze(0)).abs()).clamp(min=0.0)


def resize(maps: Tensor, height: int, width: int, align_corners: bool = True) -> Tensor:
    """Bilinear resizing of ``[..., h, w]`` as two matrix products: differentiable *and* deterministic anywhere."""
    rows = interpolation_matrix(maps.shape[-2], height, align_corners, maps)
    columns = interpolation_matrix(maps.shape[-1], width, align_corners, maps)
    return rows @ maps @ columns.transpose(0, 1)


def bilinear(maps: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Bilinear resizing: quick, and by matrix products where a gradient passes through it.

    The gradient of ``torch.nn.functional.interpolate`` differs from run to run on CUDA.

    Args:
        maps: ``[B, n, h, w]``, floating point.

    Returns:
        ``[B, n, height, width]``; at least float32 where a gradient passes.
    """
    if maps.requires_grad:
        return resize_exactly(at_least_float32(maps), height, width, align_corners)
    return F.interpolate(maps, size=[height, width], mode="bilinear", align_corners=align_corners)


def resize_exactly(maps: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """:func:`resize` in the precision of the maps, at least float32, under autocast too."""
    if torch.jit.is_scripting():
        return resize(maps, height, width, align_corners)
    else:  # autocast would round the matrix products, and so a mask, to 8 bits
        with torch.autocast(maps.device.type, enabled=False):
            return resize(maps, height, width, align_corners)


def normalise(evidence: Tensor, mode: str = "sample", eps: float = 1e-6) -> Tensor:
    """Min-max normalisation ``(T - min) / (max - min + eps)``, without which the threshold 0.5 has no meaning.

    Args:
        evidence: ``[B, 1, H, W]``, or ``[B, c, H, W]``: each class by itself.
        mode: ``"sample"`` over each image; ``"batch"`` over the whole mini-batch (the reference run, in training);
            ``"none"`` leaves the map as it is.
        eps: activations are of order 1: a map flatter than this means nothing in float32.

    Returns:
        The same shape, in [0, 1] unless ``mode="none"``; a constant map becomes 0 everywhere.
    """
    if mode == "none":
        return evidence
    dims = [0, 2, 3] if mode == "batch" else [2, 3]
    low, high = evidence.amin(dim=dims, keepdim=True), evidence.amax(dim=dims, keepdim=True)
    return (evidence - low) / (high - low + eps)


def pseudo_threshold(evidence: Tensor, omega: float = 8.0, sigma: float = 0.5) -> Tensor:
    """``R+ = sigmoid(omega (T - sigma))``: a soft threshold at ``sigma`` (paper, equation 11).

    Args:
        evidence: normalised map, any shape.
        omega: steepness; defaults to 8.
        sigma: threshold; defaults to 0.5.

    Returns:
        The decidable region ``R+``, same shape, in (0, 1).
    """
    return (evidence - sigma).mul_(omega).sigmoid_()  # in place: at image size, memory access takes the time


def score_map(evidence: Tensor, height: int, width: int, floor: float = 1e-6) -> Tensor:
    """A coarse map as a soft mask of the image: resized, then min-max normalised per image; the mask is at 0.5.

    Args:
        evidence: ``[B, 1, h, w]``, at least float32.
        floor: least value, so that a class can be read from :func:`distribution` even of a constant map: float32 holds
            ``floor * p`` as exactly as ``p``.

    Returns:
        ``[B, 1, height, width]``, in [``floor``, 1]; ``floor`` everywhere for a constant map.
    """
    if torch.jit.is_scripting():
        return normalise(resize(evidence, height, width)).clamp(min=floor)
    else:  # autocast would round the matrix products, and so the mask, to 8 bits
        with torch.autocast(evidence.device.type, enabled=False):
            return normalise(resize(evidence, height, width)).clamp(min=floor)


def distribution(mask: Tensor, probabilities: Tensor) -> Tensor:
    """The output of every network: which pixels decided, and for which class.

    Args:
        mask: ``[B, 1, H, W]`` decidable region ``R+``, in [0, 1].
        probabilities: ``[B, c]``, each row sums to 1.

    Returns:
        ``[B, 1 + c, H, W]``: channel 0 is ``R-``, channel k is ``R+ p(class k)``; the channels sum to 1.
    """
    shares = torch.cat([torch.full_like(probabilities[:, :1], -1.0), probabilities], dim=1)
    prediction = mask * shares.unsqueeze(2).unsqueeze(3)
    prediction[:, :1] += 1  # 1 - R+, without a copy of all channels
    return prediction
