# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Share code of the networks on a trunk: input normalisation, frozen batch normalisation, optimiser groups, seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.networks.familiarity import Familiarity
from glas_wsol.networks.hypercolumn import number_of_stages, rescale
from glas_wsol.networks.trunks import Trunk, build_trunk
from glas_wsol.networks.weights import LATER

__all__ = ["TileNetwork", "choose", "construct", "require_classes", "seeded", "undecidable_part"]


def choose(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse, by a ConfigError, a value that is not one of those allowed."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}", "network", f"choose one of {', '.join(allowed)}")


def require_classes(num_classes: int) -> None:
    """Refuse fewer than two classes, by a ConfigError."""
    if num_classes < 2:
        raise ConfigError(f"{num_classes} classes", "num_classes", "give at least 2: entropy needs an alternative")


def construct(
    kinds: Mapping[str, type[nn.Module]], settings: Mapping[str, Any], arguments: Mapping[str, Any]
) -> nn.Module:
    """One of several kinds of network, by the name of its class.

    Args:
        kinds: the classes, by name; the first is taken where the settings name none.
        settings: of a network's ``settings()``.

    Raises:
        ConfigError: if there is no such network, or it has no such argument.
    """
    name = settings.get("class", next(iter(kinds)))
    if name not in kinds:
        raise ConfigError(f"no network named {name!r}", "network", f"choose one of {', '.join(kinds)}")
    try:
        return kinds[name](**{k: v for k, v in settings.items() if k != "class"}, **arguments)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}", "network", "remove or correct the argument") from error


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed, and leave the generator outside as it was; None draws on from that generator."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def undecidable_part(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The cheapest function of an image that gives ``R-``: the method ``undecidable``, else the network itself."""
    return getattr(network, "undecidable", network)


class TileNetwork(nn.Module):
    """A network on a trunk. Images in [0, 1] to a distribution over {undecidable, class 1, ..., class c} per pixel.

    ``forward`` maps ``[B, 3, H, W]`` in [0, 1] to ``[B, 1 + c, H, W]``: channel 0 is ``R-``, channel k is
    ``R+ p(class k)``, and the channels sum to 1; sides divisible by 32 give exact maps. Other methods take ``x``,
    *normalised* images of that shape, see :meth:`normalise`.

    A subclass draws all its weights within :func:`seeded`, this class's ``__init__`` included, the trunk first.

    Args:
        trunk: name of the trunk (see :data:`~glas_wsol.networks.trunks.TRUNKS`) or a trunk.
        num_classes: ``c``, at least 2.
        weights: the trunk's weights, see :func:`~glas_wsol.networks.trunks.build_trunk`. Defaults to ``"auto"``.
        batch_norm: ``"batch"`` (default) for batch statistics in training; ``"frozen"`` for the running statistics of
            the pretrained trunk, with the affine part trained.
        pixel_mean: mean subtracted from images in [0, 1]; defaults to what the trunk's weights expect.
        pixel_std: divisor after that; defaults to what the trunk's weights expect.
        map_stride: px between two positions of the features that the heads read: 32 (default, the paper's), 16 or 8.

    Attributes:
        temperature: ``[]``, above 0: class scores are divided by it to become probabilities. 1 in training; in a
            trained model what makes its confidences calibrated on validation images, see
            :func:`~glas_wsol.metrics.temperature.fit_temperature`.
        supervision: what it is trained from: ``"image labels"``, ``"pixel labels"`` or ``"none"``.
        classifier_knows_mask: whether its classifier, where it has one, was trained on masks such as it predicts.
        names_class: whether ``p(class k)`` is a prediction; if not, it is 1 / c and no class is to be reported.
        familiarity: what a trained model knows of its training images; None (default) where that is not known.
        smallest_side: least height and width in px; below it, the trunk has no feature position left.
        local: whether ``R+`` of a pixel depends on its surroundings only, not on the whole tile.
    """

    supervision = "image labels"
    names_class = True
    classifier_knows_mask = True
    local = False

    if TYPE_CHECKING:  # buffers, and what a model's card says; not for TorchScript
        familiarity: Familiarity | None
        pixel_mean: Tensor
        pixel_std: Tensor
        temperature: Tensor
    else:
        familiarity = None

    def __init__(
        self,
        trunk: str | Trunk,
        num_classes: int,
        weights: str = "auto",
        batch_norm: str = "batch",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        map_stride: int = 32,
    ) -> None:
        super().__init__()
        choose("batch_norm", batch_norm, ("batch", "frozen"))
        require_classes(num_classes)
        self.stages_read = number_of_stages(map_stride)
        self.trunk = build_trunk(trunk, weights) if isinstance(trunk, str) else trunk
        self.num_classes = num_classes
        self.smallest_side = self.trunk.stride
        self.map_stride = map_stride
        self.batch_norm = batch_norm
        for name, values in (
            ("pixel_mean", self.trunk.pixel_mean if pixel_mean is None else pixel_mean),
            ("pixel_std", self.trunk.pixel_std if pixel_std is None else pixel_std),
        ):
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("temperature", torch.ones(()))

    def train(self, mode: bool = True) -> TileNetwork:
        """Set training mode; the trunk's batch normalisation stays in evaluation mode where it is frozen."""
        super().train(mode)
        if self.batch_norm == "frozen":  # the trunk's only: a fresh decoder has no statistics worth keeping
            for module in self.trunk.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights, and refuse an incomplete set: ``monai.bundle.load`` fills gaps with the network's own tensors.

        Raises:
            WeightsError: if some of them are this network's own tensors.
        """
        own = {value.data_ptr() for value in self.state_dict().values() if value.numel()}
        kept = [
            name
            for name, value in state_dict.items()
            if isinstance(value, Tensor) and value.data_ptr() in own and name.rpartition(".")[2] not in LATER
        ]
        if kept:
            what = f"the model is of another network: {len(kept)} of {len(state_dict)} weights are not in it"
            raise WeightsError(what, kept[0], "export the bundle with this model, and load that")
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def normalise(self, image: Tensor) -> Tensor:
        """Images in [0, 1] to what the trunk expects; 0 is then the mean colour, with which erasing fills.

        Args:
            image: ``[B, 3, H, W]``, in [0, 1].

        Returns:
            ``[B, 3, H, W]``, the ``X`` of the paper.
        """
        return (image - self.pixel_mean).div_(self.pixel_std)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class scores as probabilities: ``[B, c]``, in [0, 1]; each row sums to 1. ``logits``: ``[B, c]``."""
        return (logits / self.temperature).softmax(dim=1)

    @torch.jit.unused
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Models of versions without a temperature have none, which is 1."""
        state_dict.setdefault(f"{prefix}temperature", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def features(self, x: Tensor) -> list[Tensor]:
        """The trunk's features ``[B, n, h, w]`` from its last stage to that of ``map_stride``, finer ones rescaled."""
        if self.stages_read == 1:
            return [self.trunk(x)]
        return self.features_of(self.trunk.stages_of(x))

    def features_of(self, stages: list[Tensor]) -> list[Tensor]:
        """:meth:`features`, from what :meth:`~glas_wsol.networks.trunks.Trunk.stages_of` gave."""
        features = [rescale(finer) for finer in stages[-self.stages_read : -1]]
        features.append(stages[-1])
        features.reverse()
        return features

    @torch.jit.unused
    def feature_channels(self) -> list[int]:
        """Channels of each of :meth:`features`."""
        finer = self.trunk.stage_channels()[:-1] if self.stages_read > 1 else []
        return [self.trunk.channels, *finer[::-1][: self.stages_read - 1]]

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same; subclasses add to it.

        Returns:
            ``class``, the name of the class, and the arguments of the class that decide it, as JSON values.
        """
        return {"class": type(self).__name__}

    @torch.jit.unused
    def parameter_groups(self, trunk_lr: float, head_lr: float) -> list[dict[str, Any]]:
        """Optimiser groups with their own learning rates: the pretrained trunk, and all that is fresh on it.

        Args:
            trunk_lr: learning rate of the trunk; 0 freezes it: no gradient of it is computed.
            head_lr: learning rate of everything else.
        """
        if trunk_lr == 0:
            self.trunk.requires_grad_(False)
        rest = [p for name, p in self.named_parameters() if not name.startswith("trunk.")]
        return [{"params": list(self.trunk.parameters()), "lr": trunk_lr}, {"params": rest, "lr": head_lr}]
