# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The state of recursive erasing: trust, accumulated mask, next image (paper, section 3.4).

Tensors in, tensors out: no network, no loss, no engine. A state is never changed, each step makes a new one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["ErasingState", "KeptRegion", "advance", "keep", "remember", "start", "surroundings", "trust"]


@dataclass(frozen=True)
class ErasingState:
    """What the recursion remembers between two forwards of the localizer.

    Attributes:
        erased: ``[B, 3, H, W]`` next input ``X*``: the image without what was found so far.
        mask: ``[B, 1, H, W]`` accumulated decidable region ``R+*``, in [0, 1].
        alive: ``[B]`` bool, samples whose trust has never been zero.
        step: ``t``, number of forwards done.
        first_loss: ``[B]`` loss ``L0`` of the unerased image; None before the first step.
        first_mask: ``[B, 1, H, W]`` mask ``R_0`` of the unerased image; None before the first step.
        largest_trust: ``[B]`` the sample's largest trust so far, in [0, 1].
    """

    erased: Tensor
    mask: Tensor
    alive: Tensor
    step: int
    first_loss: Tensor | None
    first_mask: Tensor | None
    largest_trust: Tensor


@dataclass(frozen=True)
class KeptRegion:
    """What the classifier is trained on.

    Attributes:
        mask: ``[B, 1, H, W]``, in [0, 1]; ``X+ = X mask``, ``X- = X (1 - mask)``.
        counted: ``[B]`` bool, samples that count in H+ and H-.
    """

    mask: Tensor
    counted: Tensor


def start(image: Tensor) -> ErasingState:
    """Nothing found, nothing erased, every sample alive.

    Args:
        image: ``[B, 3, H, W]`` normalised images ``X``.
    """
    batch = image.shape[0]
    return ErasingState(
        erased=image,
        mask=torch.zeros_like(image[:, :1]),
        alive=torch.ones(batch, dtype=torch.bool, device=image.device),
        step=0,
        first_loss=None,
        first_mask=None,
        largest_trust=torch.zeros(batch, dtype=image.dtype, device=image.device),
    )


def trust(
    step: int, logits: Tensor, losses: Tensor, first_loss: Tensor, label: Tensor, alive: Tensor, sigma: float = 10.0
) -> Tensor:
    """``psi_t = exp(-t / sigma) p(y)`` where M is right and no worse than unerased, else 0 (equations 13 and 14).

    Args:
        step: ``t``, 0 for the unerased image.
        logits: ``[B, c]`` scores of M.
        losses: ``[B]`` ``-log p(y)`` of M.
        first_loss: ``[B]`` the same of the unerased image.
        label: ``[B]`` class indices.
        alive: ``[B]`` bool, samples whose trust has never been zero; a zero is permanent.
        sigma: slope of the decay with depth. Defaults to 10.

    Returns:
        ``[B]``, in [0, 1], without gradient.
    """
    probability = logits.detach().softmax(dim=1).gather(1, label.unsqueeze(1)).squeeze(1)
    trusted = alive & (logits.argmax(dim=1) == label) & (losses.detach() <= first_loss)
    return torch.where(trusted, math.exp(-step / sigma) * probability, 0.0)


def advance(
    state: ErasingState,
    logits: Tensor,
    losses: Tensor,
    mask: Tensor,
    label: Tensor,
    index: Tensor | None = None,
    sigma: float = 10.0,
) -> ErasingState:
    """One step of the recursion, after a forward of M on ``state.erased``.

    Args:
        state: the state that forward started from.
        logits: ``[n, c]`` scores of M.
        losses: ``[n]`` ``-log p(y)`` of M.
        mask: ``[n, 1, H, W]`` mask ``R_t`` of M. Only if it carries a gradient does ``R+*`` carry one.
        label: ``[B]`` class indices of the whole mini-batch.
        index: ``[n]`` which samples the forward ran on, at least all alive ones; None for all.
        sigma: slope of the trust. Defaults to 10.

    Returns:
        The next state: ``R+* = max(R+*, psi_t R_t)`` (equation 12) and ``X* = X* (1 - R+*)`` where ``psi_t > 0``.
    """
    if index is not None:  # the others are not alive: their trust is zero, so any filler does
        logits = _spread(logits, index, state.alive.shape[0])
        losses = _spread(losses, index, state.alive.shape[0])
        mask = _spread(mask, index, state.alive.shape[0])
    first_loss = losses.detach() if state.first_loss is None else state.first_loss
    first_mask = mask if state.first_mask is None else state.first_mask
    psi = trust(state.step, logits, losses, first_loss, label, state.alive, sigma).to(mask.dtype)
    alive = psi > 0
    accumulated = torch.maximum(state.mask, psi.view(-1, 1, 1, 1) * mask)
    erased = torch.where(alive.view(-1, 1, 1, 1), state.erased * (1 - accumulated.detach()), state.erased)
    return replace(
        state,
        erased=erased,
        mask=accumulated,
        alive=alive,
        step=state.step + 1,
        first_loss=first_loss,
        first_mask=first_mask,
        largest_trust=torch.maximum(state.largest_trust, psi.to(state.largest_trust.dtype)),
    )


def surroundings(found: Tensor, radius: int) -> Tensor:
    """How near a pixel is to what was found, without what was found.

    ``N(x) = max(0, 1 - (d(x) - 1) / radius)``, where ``d(x)`` is the chessboard distance to the nearest pixel found, in
    px; 0 within. It is the mean of the dilations by 1, ..., ``radius`` px, counted in whole numbers: the same on every
    device.

    Args:
        found: ``[B, 1, H, W]`` bool.
        radius: how far it reaches, in px, at least 1.

    Returns:
        ``[B, 1, H, W]``, float32: 1 just outside what was found, ``1 / radius`` at ``radius`` px, 0 beyond, 0 within.
    """
    grown, count = found, torch.zeros_like(found, dtype=torch.int16)
    for _ in range(radius):
        grown = _grow(_grow(grown, dim=2), dim=3)
        count += grown
    return torch.where(found, 0.0, count / radius)


def remember(
    mask: Tensor, state: ErasingState, memory: float, radius: float, omega: float, index: Tensor | None = None
) -> Tensor:
    """The mask of an erased image, had it been looked for next to what was found before (paper, sections 5 and B.3).

    Erasing forgets where it erased. So the prior ``memory * N`` (:func:`surroundings`) is added to the normalised
    evidence ``T`` before the pseudo-threshold: ``sigmoid(omega (T + memory N - sigma'))``. As that multiplies the odds
    of ``R_t`` by ``exp(omega memory N)``, ``R_t`` is all that is needed. Found is where ``R+*``, divided by the
    sample's largest trust, is at least 0.5: the region as its mask would be drawn. The prior carries no gradient.

    Args:
        mask: ``[n, 1, H, W]`` mask ``R_t`` of M.
        state: the state that forward started from; nothing was found before the first, and the mask stays as it is.
        memory: normalised evidence granted just beside what was found, in [0, 1].
        radius: how far the prior reaches, as a fraction of the shorter side; at least one pixel.
        omega: steepness of the pseudo-threshold the mask was made with.
        index: ``[n]`` which samples the forward ran on; None for all.

    Returns:
        ``[n, 1, H, W]``, at least ``mask``; equal to it within what was found and far away.
    """
    if state.step == 0:
        return mask
    # A sample never trusted has found 0 of trust 0: all of it passes for found, and nothing is beside it.
    found = state.mask.detach() >= 0.5 * state.largest_trust.view(-1, 1, 1, 1)
    found = found if index is None else found[index]
    reach = max(1, round(radius * min(mask.shape[2:])))
    prior = memory * surroundings(found, reach).to(mask.dtype)
    return mask / (mask + (1 - mask) * torch.exp(-omega * prior))


def keep(state: ErasingState, untrusted: str = "blank", rescale_trust: bool = False) -> KeptRegion:
    """The region handed to the classifier when the recursion has ended.

    Args:
        state: the state after the last step, at least one.
        untrusted: what becomes of a sample that M got wrong at once, so that nothing was found: ``"blank"`` (default,
            the reference run) keeps nothing of it; ``"plain"`` keeps ``R_0`` as without erasing; ``"skip"`` leaves the
            sample out of H+ and H-.
        rescale_trust: whether to divide ``R+*`` by the sample's largest trust: trust dims X+ in training, but not at
            test. Defaults to False.
    """
    mask, trusted = state.mask, state.largest_trust > 0
    if rescale_trust:
        mask = mask / torch.where(trusted, state.largest_trust, 1.0).view(-1, 1, 1, 1)
    counted = torch.ones_like(trusted)
    if untrusted == "plain":
        mask = torch.where(trusted.view(-1, 1, 1, 1), mask, state.first_mask)
    elif untrusted == "skip":
        counted = trusted
    return KeptRegion(mask, counted)


def _spread(values: Tensor, index: Tensor, size: int) -> Tensor:
    return values.new_zeros((size, *values.shape[1:])).index_copy(0, index, values)


def _grow(region: Tensor, dim: int) -> Tensor:
    """Dilation of a bool region by one pixel along one dimension."""
    rest = region.shape[dim] - 1
    grown = region.clone()
    grown.narrow(dim, 1, rest).logical_or_(region.narrow(dim, 0, rest))
    grown.narrow(dim, 0, rest).logical_or_(region.narrow(dim, 1, rest))
    return grown
