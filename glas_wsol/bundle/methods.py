# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Lists the compared methods with their titles, networks and supervision, and finds their overlays."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glas_wsol.bundle.overrides import load
from glas_wsol.errors import ConfigError
from glas_wsol.networks import (
    AttentionNetwork,
    ClassActivationNetwork,
    FeatureComponentNetwork,
    FixedMaskNetwork,
    MinMaxEntropyNetwork,
    RefinedNetwork,
    SegmentationNetwork,
    TileNetwork,
)
from glas_wsol.utils.shipped_bundles import shipped_root

__all__ = [
    "IMAGE_LABELS",
    "METHODS",
    "PIXEL_LABELS",
    "UNTRAINED",
    "Method",
    "MethodOverlay",
    "find",
    "find_methods",
    "order_of",
    "title_of",
]

IMAGE_LABELS, PIXEL_LABELS, UNTRAINED = "image labels", "pixel labels", "none"


@dataclass(frozen=True)
class Method:
    """One method of the tables; its overlay is the file in ``configs/methods`` with this key.

    Attributes:
        key: as in ``evaluation.json``: ``method`` and ``stage`` of its overlay.
        weights_of: key of the method whose trained network it explains; None where it has its own, or none.
    """

    key: str
    title: str
    network: type[TileNetwork | FixedMaskNetwork]
    weights_of: str | None = None

    @property
    def supervision(self) -> str:
        """What it learns from: ``"image labels"``, ``"pixel labels"`` or ``"none"``."""
        return str(self.network.supervision)


METHODS: Mapping[str, Method] = {
    method.key: method
    for method in (
        Method("all_ones", "All-ones", FixedMaskNetwork),
        Method("centre_gaussian", "Centre Gaussian", FixedMaskNetwork),
        Method("stain", "Haematoxylin stain", FixedMaskNetwork),
        Method("cam_avg", "CAM-Avg", ClassActivationNetwork),
        Method("cam_max", "CAM-Max", ClassActivationNetwork),
        Method("cam_lse", "CAM-LSE", ClassActivationNetwork),
        Method("grad_cam", "Grad-CAM", ClassActivationNetwork, weights_of="cam_avg"),
        Method("grad_cam_pp", "Grad-CAM++", ClassActivationNetwork, weights_of="cam_avg"),
        Method("wildcat", "WILDCAT", ClassActivationNetwork),
        Method("deep_mil", "Deep MIL", AttentionNetwork),
        Method("components", "Components (ours)", FeatureComponentNetwork),
        Method("minmax", "Min-max entropy", MinMaxEntropyNetwork),
        Method("minmax_refined", "Ours + stage two", RefinedNetwork),
        Method("unet", "U-Net", SegmentationNetwork),
    )
}
"""By key, in the order of the tables."""

_REPOSITORY = shipped_root()


def title_of(method: str, passes: int | None = None) -> str:
    """Title of a method with its passes, if any; the key itself where it is not one of `METHODS`."""
    title = METHODS[method].title if method in METHODS else method
    return title if passes is None else f"{title}, passes {passes}"


def order_of(method: str, passes: int | None = None) -> tuple[int, str, int]:
    """Sorts methods as the tables do: in the order of `METHODS`, unknown methods last by key, then by passes."""
    known = list(METHODS).index(method) if method in METHODS else len(METHODS)
    return known, method, -1 if passes is None else passes


@dataclass(frozen=True)
class MethodOverlay:
    """One method as a study runs it: a config file on top of the bundle.

    Attributes:
        name: of the file without its ending, and of the folder of its runs.
        explains: name of the method whose trained network it explains; None where it has its own, or none.
    """

    name: str
    overlay: Path
    explains: str | None = None


def find(path: str | Path, bundle: Path | None = None) -> Path:
    """A file or folder as the user named it: from the working directory, else from what ships with the package.

    Args:
        bundle: the bundle's folder, two levels below the folder that holds ``configs/``.

    Raises:
        ConfigError: if it is in neither place.
    """
    repository = bundle.parents[1] if bundle is not None and len(bundle.parents) > 1 else _REPOSITORY
    for place in dict.fromkeys((Path.cwd(), repository, _REPOSITORY)):
        if (place / Path(path).expanduser()).exists():
            return (place / Path(path).expanduser()).absolute()
    fix = "give a path from the working directory, or one that ships with the package, such as configs/data/demo.json"
    raise ConfigError("no such file or folder", path, fix)


def find_methods(names: Sequence[str], bundle: Path, option: str = "--methods") -> list[MethodOverlay]:
    """The requested methods in the order of the tables, with those whose networks they explain.

    Args:
        names: names of overlays in ``configs/methods``, ``all``, or paths of the user's own overlays (``.json``).
        bundle: the bundle's folder, whose repository holds ``configs/methods``.
        option: where the names were typed.

    Raises:
        ConfigError: if there is no such method or file, two methods would have one name, or an overlay of the user's
            own does not name its method.
    """
    known = _known_methods(bundle)
    requested: list[MethodOverlay] = []
    for name in names:
        if name == "all":
            requested += known.values()
        elif name in known:
            requested.append(known[name])
        elif Path(name).suffix in (".json", ".yaml", ".yml"):
            overlay = find(name, bundle)
            same = known.get(overlay.stem)
            requested.append(same if same and same.overlay.samefile(overlay) else _own_method(overlay, known))
        else:
            near = difflib.get_close_matches(name, [*known, "all"], n=1, cutoff=0.4) or [*known, "all"]
            raise ConfigError(f"no method named {name!r}", option, f"did you mean {' or '.join(near)}")
    if not requested:
        raise ConfigError("no configs/methods beside this bundle", bundle, "give paths of overlays")
    requested += [known[method.explains] for method in requested if method.explains]
    chosen = {method.name: method for method in requested}
    twice = next((method for method in requested if chosen[method.name] != method), None)
    if twice:
        raise ConfigError(f"two methods are called {twice.name!r}", twice.overlay, "rename this overlay")
    order = list(known)
    return sorted(chosen.values(), key=lambda method: order.index(method.name) if method.name in order else len(order))


def _own_method(overlay: Path, known: Mapping[str, MethodOverlay]) -> MethodOverlay:
    """A method of the user's own, whose name differs from all others."""
    config = load(overlay)
    if not isinstance(config.get("method"), str):
        what = "this overlay does not name its method"
        raise ConfigError(what, overlay, 'add "method": "a_name_of_its_own"')
    mine = _method_of(config, overlay), config.get("passes")
    for method in known.values():
        theirs = load(method.overlay)
        if mine == (_method_of(theirs, method.overlay), theirs.get("passes")):
            what = f"this overlay has the name of the method {method.name}"
            raise ConfigError(what, overlay, 'change its (first) "method" to a name of its own')
    return MethodOverlay(overlay.stem, overlay)


def _method_of(config: Mapping[str, Any], overlay: Path) -> str:
    """Its key in the tables."""
    return config.get("method", overlay.stem) + config.get("stage", "")


def _known_methods(bundle: Path) -> dict[str, MethodOverlay]:
    try:
        folder = find("configs/methods", bundle)
    except ConfigError:  # a bundle that was copied out of the repository
        return {}
    found = []
    for overlay in sorted(folder.glob("*.json")):
        config = load(overlay)
        key = _method_of(config, overlay)
        explains = METHODS[key].weights_of if key in METHODS else None
        found.append((order_of(key, config.get("passes")), MethodOverlay(overlay.stem, overlay, explains)))
    return {method.name: method for _, method in sorted(found, key=lambda pair: (pair[0], pair[1].name))}
