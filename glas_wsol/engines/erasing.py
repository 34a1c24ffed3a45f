# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute the state of recursive erasing: trust, accumulated mask, next image (paper, section 3.4).

Tensors in, tensors out: no network, no loss, no engine. A state is never changed, each step makes a new one.

Where an image may have several classes, all that is ``[B]`` here is ``[B, c]``, one entry per sample and class, and
masks ``[B, 1, H, W]`` are ``[B, c, H, W]``: each class that is present is found, trusted and remembered by itself.
Only the image is shared: what any trusted class has found is erased from it, and its region is the union of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from glas_wsol.utils.labels import LEAST_PROBABILITY

__all__ = ["ErasingState", "KeptRegion", "advance", "judged", "keep", "remember", "start", "surroundings", "trust"]


@dataclass(frozen=True)
class ErasingState:
    """What the recursion remembers between two forwards of the localizer.

    Attributes:
        erased: ``[B, 3, H, W]`` next input ``X*``: the image without what was found so far.
        mask: ``[B, 1, H, W]`` accumulated decidable region ``R+*``, in [0, 1].
        present: ``[B]`` bool, whose trust may rise: all; or ``[B, c]``, the classes that each sample has.
        alive: ``[B]`` bool, those of them whose trust may still rise: those whose trust has never been zero, unless
            :func:`advance` has ``permanent_loss_test=False``.
        step: ``t``, number of forwards done.
        first_loss: ``[B]`` loss ``L0`` of the unerased image; None before the first step.
        first_mask: ``[B, 1, H, W]`` mask ``R_0`` of the unerased image; None before the first step.
        largest_trust: ``[B]`` the sample's largest trust so far, in [0, 1].
    """

    erased: Tensor
    mask: Tensor
    present: Tensor
    alive: Tensor
    step: int
    first_loss: Tensor | None
    first_mask: Tensor | None
    largest_trust: Tensor

    @property
    def samples(self) -> Tensor:
        """``[B]`` bool: samples that are alive, or that have a class that is."""
        return _of_any_class(self.alive)

    @property
    def sound(self) -> Tensor:
        """``[B]`` bool: whose label still holds for what erasing left of the image: who is alive.

        Of several classes, also the absent ones of a sample that is alive: no erasing brings them into the image.
        """
        return self.alive | (~self.present & _beside(self.samples, self.present))


@dataclass(frozen=True)
class KeptRegion:
    """What the classifier is trained on.

    Attributes:
        mask: ``[B, 1, H, W]``, in [0, 1]; ``X+ = X mask``, ``X- = X (1 - mask)``. Of several classes, their union.
        counted: ``[B]`` bool, samples (and classes) that count in H+ and H-.
    """

    mask: Tensor
    counted: Tensor


def start(image: Tensor, present: Tensor | None = None) -> ErasingState:
    """Nothing found, nothing erased, every sample alive.

    Args:
        image: ``[B, 3, H, W]`` normalised images ``X``.
        present: ``[B, c]`` bool, the classes that each sample has; None where each has one.
    """
    if present is None:
        present = torch.ones(len(image), dtype=torch.bool, device=image.device)
    return ErasingState(
        erased=image,
        mask=image.new_zeros((len(image), present.shape[1:].numel(), *image.shape[2:])),
        present=present,
        alive=present,
        step=0,
        first_loss=None,
        first_mask=None,
        largest_trust=torch.zeros_like(present, dtype=image.dtype),
    )


def trust(
    step: int, logits: Tensor, losses: Tensor, first_loss: Tensor, label: Tensor, alive: Tensor, sigma: float = 10.0
) -> Tensor:
    """``psi_t = exp(-t / sigma) p(y)`` where M is right and no worse than unerased, else 0 (equations 13 and 14).

    Of several classes, M is right about one that is present where ``p(k)`` is at least 0.5.

    Args:
        step: ``t``, 0 for the unerased image.
        logits: ``[B, c]`` scores of M.
        losses: ``[B]`` ``-log p(y)`` of M; of several classes the loss of each.
        first_loss: ``[B]`` the same of the unerased image.
        label: ``[B]`` class indices; or ``[B, c]`` zeros and ones.
        alive: ``[B]`` bool, samples whose trust may be above zero.
        sigma: slope of the decay with depth. Defaults to 10.

    Returns:
        ``[B]``, in [0, 1], without gradient.
    """
    if label.ndim == 2:
        probability = logits.detach().sigmoid()
    else:
        probability = logits.detach().softmax(dim=1).gather(1, label.unsqueeze(1)).squeeze(1)
    trusted = alive & _is_right(logits, label) & (losses.detach() <= first_loss)
    return torch.where(trusted, math.exp(-step / sigma) * probability, 0.0)


def judged(
    state: ErasingState, logits: Tensor, losses: Tensor, label: Tensor, index: Tensor | None = None, sigma: float = 10.0
) -> ErasingState:
    """The state in which only what this step trusts is alive: known before :func:`advance` and any mask."""
    return replace(state, alive=_trust_of(state, logits, losses, label, index, sigma) > 0)


def advance(
    state: ErasingState,
    logits: Tensor,
    losses: Tensor,
    mask: Tensor,
    label: Tensor,
    index: Tensor | None = None,
    sigma: float = 10.0,
    permanent_loss_test: bool = True,
) -> ErasingState:
    """One step of the recursion, after a forward of M on ``state.erased``.

    Args:
        state: the state that forward started from.
        logits: ``[n, c]`` scores of M.
        losses: ``[n]`` ``-log p(y)`` of M.
        mask: ``[n, 1, H, W]`` mask ``R_t`` of M. Only if it carries a gradient does ``R+*`` carry one.
        label: ``[B]`` class indices of the whole mini-batch; or ``[B, c]`` zeros and ones.
        index: ``[n]`` which samples the forward ran on, at least all alive ones; None for all.
        sigma: slope of the trust. Defaults to 10.
        permanent_loss_test: whether a zero is permanent whatever its reason (default, the paper); else only that of a
            wrong class is, and a sample whose loss rose may be trusted again. Then the forward must have run on all.

    Returns:
        The next state: ``R+* = max(R+*, psi_t R_t)`` (equation 12) and ``X* = X* (1 - R+*)`` where ``psi_t > 0``; of
        several classes, the largest ``R+*`` of those with ``psi_t > 0``.
    """
    psi = _trust_of(state, logits, losses, label, index, sigma).to(mask.dtype)
    trusted = psi > 0
    alive = trusted if permanent_loss_test else state.alive & _is_right(logits, label)
    if index is not None:
        losses, mask = (_spread(values, index, state.alive.shape[0]) for values in (losses, mask))
    first_loss = losses.detach() if state.first_loss is None else state.first_loss
    first_mask = mask if state.first_mask is None else state.first_mask
    accumulated = torch.maximum(state.mask, _beside(psi, mask) * mask)
    taken = torch.where(_beside(trusted, mask), accumulated.detach(), 0.0).amax(dim=1, keepdim=True)
    return replace(
        state,
        erased=state.erased * (1 - taken),
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
        found: ``[B, n, H, W]`` bool.
        radius: how far it reaches, in px, at least 1.

    Returns:
        ``[B, n, H, W]``, float32: 1 just outside what was found, ``1 / radius`` at ``radius`` px, 0 beyond, 0 within.
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

    Erasing forgets where it erased. So the prior ``memory * N`` (:func:`surroundings`) is added to the normalised map
    ``T`` before the pseudo-threshold: ``sigmoid(omega (T + memory N - sigma'))``. As that multiplies the odds
    of ``R_t`` by ``exp(omega memory N)``, ``R_t`` is all that is needed. Found is where ``R+*``, divided by the
    sample's largest trust, is at least 0.5: the region as its mask would be drawn. The prior carries no gradient.

    Args:
        mask: ``[n, 1, H, W]`` mask ``R_t`` of M.
        state: the state that forward started from; nothing was found before the first, and the mask stays as it is.
        memory: added to the normalised activation map just beside what was found, in [0, 1].
        radius: how far the prior reaches, as a fraction of the shorter side; at least one pixel.
        omega: steepness of the pseudo-threshold the mask was made with.
        index: ``[n]`` which samples the forward ran on; None for all.

    Returns:
        ``[n, 1, H, W]``, at least ``mask``; equal to it within what was found and far away.
    """
    if state.step == 0:
        return mask
    # A sample never trusted has found 0 of trust 0: all of it counts as found, and nothing is beside it.
    found = state.mask.detach() >= 0.5 * _beside(state.largest_trust, state.mask)
    found = found if index is None else found[index]
    reach = max(1, round(radius * min(mask.shape[2:])))
    prior = memory * surroundings(found, reach).to(mask.dtype)
    return mask / (mask + (1 - mask) * torch.exp(-omega * prior))


def keep(state: ErasingState, untrusted: str = "blank", rescale_trust: bool = False) -> KeptRegion:
    """The region handed to the classifier when the recursion has ended.

    Args:
        state: the state after the last step, at least one.
        untrusted: treatment of a sample (or a class present in it) that M classified wrongly at once, so that no region
            was found: ``"blank"`` (default, the reference run) gives it an empty mask; ``"plain"`` uses its ``R_0`` as
            without erasing; ``"skip"`` leaves it out of H+ and H-, and all classes of a sample of which nothing was
            found.
        rescale_trust: whether to divide ``R+*`` by the sample's largest trust: trust dims X+ in training, but not at
            test. Defaults to False.
    """
    mask, trusted = state.mask, state.largest_trust > 0
    if rescale_trust:
        mask = mask / _beside(torch.where(trusted, state.largest_trust, 1.0), mask)
    missed = state.present & ~trusted
    counted = torch.ones_like(trusted)
    if untrusted == "plain":
        mask = torch.where(_beside(missed, mask), cast("Tensor", state.first_mask), mask)
    elif untrusted == "skip":
        counted = ~missed & _beside(_of_any_class(trusted), trusted)
    return KeptRegion(mask.amax(dim=1, keepdim=True), counted)


def _trust_of(
    state: ErasingState, logits: Tensor, losses: Tensor, label: Tensor, index: Tensor | None, sigma: float
) -> Tensor:
    """``[B]`` :func:`trust` of the whole mini-batch after a forward on some of it."""
    if index is not None:  # the others are not alive: their trust is zero, so any filler does
        logits = _spread(logits, index, state.alive.shape[0])
        losses = _spread(losses, index, state.alive.shape[0])
    first_loss = losses if state.first_loss is None else state.first_loss
    return trust(state.step, logits, losses, first_loss.detach(), label, state.alive, sigma)


def _is_right(logits: Tensor, label: Tensor) -> Tensor:
    """``[B]`` bool: whether M names the class; or ``[B, c]``, the classes present that it names."""
    if label.ndim == 2:
        return (label > 0) & (logits.detach().sigmoid() >= LEAST_PROBABILITY)
    return logits.argmax(dim=1) == label


def _beside(values: Tensor, others: Tensor) -> Tensor:
    """Values of samples, or of samples and classes, with as many dimensions as others that they are combined with."""
    return values.view(*values.shape, *[1] * (others.ndim - values.ndim))


def _of_any_class(values: Tensor) -> Tensor:
    """``[B]`` bool: ``[B]`` itself, or of ``[B, c]`` whether it is true of any class."""
    return values.view(len(values), -1).any(dim=1)


def _spread(values: Tensor, index: Tensor, size: int) -> Tensor:
    return values.new_zeros((size, *values.shape[1:])).index_copy(0, index, values)


def _grow(region: Tensor, dim: int) -> Tensor:
    """Dilation of a bool region by one pixel along one dimension."""
    rest = region.shape[dim] - 1
    grown = region.clone()
    grown.narrow(dim, 1, rest).logical_or_(region.narrow(dim, 0, rest))
    grown.narrow(dim, 0, rest).logical_or_(region.narrow(dim, 1, rest))
    return grown
