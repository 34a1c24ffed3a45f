# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Combine several trained networks: the mean of their masks, and the mean of their class probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError
from glas_wsol.transforms.pixel_size import SAME

__all__ = ["EnsembleNetwork", "class_conditional", "common_card"]

# The strongest supervision first: an ensemble has the strongest of its members'.
_SUPERVISION = ("pixel labels", "image labels", "none")


def class_conditional(prediction: Tensor) -> Tensor:
    """``p(class k)`` at every pixel, if it is decidable.

    Args:
        prediction: ``[B, 1 + c, H, W]``, channel k is ``R+ p(class k)``.

    Returns:
        ``[B, c, H, W]``, sums to 1; where a pixel has ``R+ = 0``, the shares of the image's class channels, and 1 / c
        where the image has nothing else.
    """
    classes = prediction[:, 1:]
    decidable = classes.sum(dim=1, keepdim=True)
    mass = classes.double().sum(dim=(2, 3), keepdim=True)
    total = mass.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, mass / total, torch.full_like(mass, 1.0 / mass.shape[1])).to(classes.dtype)
    return torch.where(decidable > 0, classes / decidable, shares)


def _strength(supervision: str) -> int:
    return _SUPERVISION.index(supervision) if supervision in _SUPERVISION else -1  # some corrected tiles


class EnsembleNetwork(nn.Module):
    """Trained networks of the same classes, of any methods, trunks and seeds, as one network.

    ``R+`` is the mean of the members' ``R+``, and ``p(class k)`` the mean of their ``p(class k)``, whatever the size
    of their masks; of those members only that name a class, where there are any. Each mask was min-max normalised by
    itself; a threshold then acts on the members' mean of ``R+``, which seldom reaches 0 or 1.

    Each member is given the image in [0, 1] and normalises it itself. A forward costs the sum of its members'.

    Args:
        members: at least one, each as in :mod:`glas_wsol.networks`.

    Attributes:
        supervision: the strongest of its members': ``"pixel labels"``, ``"image labels"`` or ``"none"``.
        names_class: whether any member names a class.
        multi_label: False for one class per image, True for several, as those of its members that name a class.
        smallest_side: least height and width in px that every member takes.

    Raises:
        ConfigError: if there is no member, or they have different numbers of classes, in total or per image.
    """

    supervision = "image labels"
    names_class = True
    classifier_knows_mask = True

    if TYPE_CHECKING:  # not for TorchScript
        members: Any

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__()
        if not members:
            raise ConfigError("no member", "ensemble", "name at least one trained model")
        counts = [int(member.num_classes) for member in members]
        if len(set(counts)) > 1:
            said = ", ".join(map(str, counts))
            raise ConfigError(f"members of {said} classes", "ensemble", "name models of the same classes")
        self.members = nn.ModuleList(members)
        self.naming = [bool(member.names_class) for member in members]
        self.supervision = min((str(member.supervision) for member in members), key=_strength)
        self.names_class = any(self.naming)
        self.classifier_knows_mask = all(getattr(member, "classifier_knows_mask", True) for member in members)
        self.num_classes = counts[0]
        kinds = {getattr(member, "multi_label", False) for member in members if member.names_class}
        if len(kinds) > 1:
            fix = "name models of the same multi_label"
            raise ConfigError("members of one class per image and of several", "ensemble", fix)
        self.multi_label = bool(kinds and kinds.pop())
        self.smallest_side = max(int(member.smallest_side) for member in members)

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels decided, and for which class, see :class:`~glas_wsol.networks.base.TileNetwork`."""
        predictions: list[Tensor] = []
        for member in self.members:
            predictions.append(member(image))  # noqa: PERF401 - TorchScript takes no comprehension over modules
        return self.combine(predictions)

    def combine(self, predictions: list[Tensor]) -> Tensor:
        """The combined prediction of the members', ``[B, 1 + c, H, W]`` each, in their order; as :meth:`forward`."""
        rest: list[Tensor] = []
        classes: list[Tensor] = []
        for place, prediction in enumerate(predictions):
            rest.append(prediction[:, :1])
            if self.naming[place] or not self.names_class:
                classes.append(class_conditional(prediction))
        undecidable = torch.stack(rest).mean(dim=0)
        return torch.cat([undecidable, (1 - undecidable) * torch.stack(classes).mean(dim=0)], dim=1)

    def presence(self, image: Tensor) -> Tensor:
        """How probable each class is, ``[B, c]``, of images that may have several: the mean over the naming members."""
        found: list[Tensor] = []
        for place, member in enumerate(self.members):
            if self.naming[place]:
                found.append(member.presence(image))
        return torch.stack(found).mean(dim=0)

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same: the members' settings, in order."""
        return {"class": type(self).__name__, "members": [member.settings() for member in self.members]}


def common_card(cards: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The description of several trained models as an ensemble, from the card of each.

    Args:
        cards: the contents of their ``model.json``.

    Returns:
        Entries equal in all cards, also within ``recipe``; ``trunk``, ``method`` and ``trunk_weights_sha256`` joined
        where they differ; the ``seed`` of the first; ``network``, the settings of an :class:`EnsembleNetwork`, each
        member's with its trunk; and ``members``, the cards themselves.

    Raises:
        ConfigError: if there is none, they have different classes or training resolutions, or one is named twice.
    """
    if not cards:
        raise ConfigError("no model", "checkpoint", "name at least one trained model")
    first = cards[0]
    for name, fix in (
        ("classes", "name models of the same classes"),
        ("scale", "name models of one training resolution"),
        ("short_side", "name models of one training resolution"),
    ):
        for card, file in zip(cards, names, strict=True):
            if card.get(name) != first.get(name):
                what = f"{name} is {first.get(name)!r} in {names[0]} and {card.get(name)!r} here"
                raise ConfigError(what, file, fix)
    sizes = [card.get("mpp") for card in cards]
    for size, file in zip(sizes, names, strict=True):
        if (size is None) != (sizes[0] is None) or (size and abs(size / sizes[0] - 1) > SAME):
            what = f"its network works at mpp={size}, that of {names[0]} at mpp={sizes[0]}"
            raise ConfigError(what, file, "name models of one training resolution")
    digests = [card.get("sha256", file) for card, file in zip(cards, names, strict=True)]
    for place, digest in enumerate(digests):
        if digest in digests[:place]:
            what = f"the same model as {names[digests.index(digest)]}"
            raise ConfigError(what, names[place], "name every member of an ensemble once")
    shared = _alike(cards)
    if all(isinstance(card.get("recipe"), Mapping) for card in cards):
        shared["recipe"] = _alike([card["recipe"] for card in cards])
    for name in ("trunk", "method", "trunk_weights_sha256"):
        if all(name in card for card in cards):
            shared[name] = " + ".join(dict.fromkeys(str(card[name]) for card in cards))
    if sizes[0] is not None:
        shared["mpp"] = sizes[0]
    if "seed" in first:
        shared["seed"] = first["seed"]
    members = [{**card.get("network", {}), **({"trunk": card["trunk"]} if "trunk" in card else {})} for card in cards]
    shared["network"] = {"class": EnsembleNetwork.__name__, "members": members}
    return {**shared, "members": [dict(card) for card in cards]}


def _alike(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = cards
    return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}
