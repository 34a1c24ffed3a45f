# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""How probable each class is of an image that may have several."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys as Keys

from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.inferers.class_scores import presence_of
from glas_wsol.results.localization import PRESENCE
from glas_wsol.utils.labels import is_several

__all__ = ["ClassPresence"]


class ClassPresence:
    """Adds ``presence``, ``[B, c]``, to an evaluator's output, for the postprocessing; of one class per image, nothing.

    Classes that share an image's decidable region in one tensor cannot say there how probable they are, so the network
    is run once more on every view, and asked: the mean of what it says.

    Args:
        network: the network evaluated; ``classes_per_image`` is ``"one"`` where it does not say.
        inferer: prepares the image as for the prediction.
        classes_per_image: what the labels are, ``"one"`` or ``"several"``; None (default) where there are none.

    Raises:
        ConfigError: if the network names one class per image and the labels say several, or the other way round.
    """

    def __init__(self, network: Any, inferer: WholeTileInferer, classes_per_image: str | None = None) -> None:
        own = getattr(network, "classes_per_image", "one")
        self.network, self.inferer, self.several = network, inferer, is_several(own, "network")
        known = classes_per_image is not None and getattr(network, "names_class", True)
        if known and is_several(classes_per_image, "labels") != self.several:
            fix = "give both the same classes_per_image; a method that cannot have several goes with one"
            what = f"{type(network).__name__} has classes_per_image={own}, and the labels are of {classes_per_image}"
            raise ConfigError(what, "ClassPresence", fix)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.several:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Ask the network."""
        with eval_mode(self.network):  # no gradient either
            image = engine.state.output[Keys.IMAGE]
            engine.state.output[PRESENCE] = presence_of(self.network, self.inferer, image)
