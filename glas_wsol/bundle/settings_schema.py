# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Defines the flat settings of the bundles: valid values, and whether a model depends on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from glas_wsol.data import training_data, training_mpp
from glas_wsol.data.files import log_warnings
from glas_wsol.data.spelling import split_word
from glas_wsol.errors import ConfigError
from glas_wsol.networks.trunks import FOLDER_PREFIX, is_folder
from glas_wsol.transforms.pixel_size import MPP_RANGE
from glas_wsol.utils.digests import digest_of
from glas_wsol.utils.shares import SHARE_WORDS, is_share
from glas_wsol.utils.subjects import SUBJECTS

__all__ = ["SCHEMA", "Setting", "Settings"]


@dataclass(frozen=True)
class Setting:
    """A flat setting.

    Attributes:
        allowed: whether a value is valid; None: its component checks it.
        free: whether a run may be resumed with another value.
        card: whether ``model.json`` has it beside the whole recipe, for inference and reports.
        model: whether an evaluation must have the value that the model was trained with.
        second: whether it is a setting of the second stage only.
    """

    allowed: Callable[[Any], bool] | None = None
    words: str = ""
    free: bool = False
    card: bool = False
    model: bool = False
    second: bool = False


class Settings(dict[str, Any]):
    """The flat settings of a run by their ids: what is checked before it, and what its model is bound to after it.

    Args:
        values: ids with their values; one that :data:`SCHEMA` does not have is checked by its component alone, and
            compared when a run is resumed.
    """

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self._mpp: tuple[Any, float | None] = None, None

    def check(self) -> None:
        """Refuse values that a component would misread: a ConfigError names each, and what may be given."""
        same = {"stage_one_dir"} if self.get("stage_one_dir") == self.get("ckpt_dir") else set()  # of one stage
        typed = ((name, value) for name, value in self.items() if name not in same)
        wrong = [(name, value, _words(name, value)) for name, value in typed if _breaks(name, value)]
        if wrong:
            what = ", ".join(f"{name}={value!r}" for name, value, _ in wrong)
            fix = "; ".join(f"give {words}" if len(wrong) == 1 else f"{name}: {words}" for name, _, words in wrong)
            raise ConfigError(what, "settings", fix)
        if is_folder(self.get("trunk")) and self.get("batch_norm") == "batch":
            fix = "take the recommended recipe, or set batch_norm=frozen and pixel_mean and pixel_std to '$None'"
            raise ConfigError("batch_norm=batch trains the trunk, and a transformer stays frozen", "settings", fix)
        for name in ("device", "data_device"):
            if name in self:
                _check_device(name, self[name])

    def training_mpp(self, datalist: Any) -> float | None:
        """The micrometres per pixel that the training images are brought to, before the scale; None for none.

        The first time, what to know of the images' own is logged, unless they are photographs.

        Args:
            datalist: the data it learns from.
        """
        mpp = self.get("mpp")
        if self._mpp[0] is not datalist:
            found, said = training_mpp(datalist, mpp)
            self._mpp = datalist, None if self.get("short_side") and mpp is None else found
            if mpp or self.get("stain"):
                log_warnings(datalist.source, said)
        return self._mpp[1]

    def card(self, datalist: Any, network: Any, second: bool = False) -> dict[str, Any]:
        """Entries of ``model.json``, of the second stage or not, beside network, recipe and validation."""
        found = {name: value for name, value in self._of(second).items() if _of_schema(name).card}
        if second:
            rule = f"first stage: {self['selection_rule']}; second stage: the last round; no pixel label"
            found["selection_rule"] = rule
        elif self.get("stage"):  # a first stage's masks are left as they are: the second has them finished
            found = {name: value for name, value in found.items() if name not in ("fill_holes", "drop_specks")}
        if self["trunk"] == "none":
            found.pop("seed", None)  # nothing is drawn
        found["training_data"] = {} if self["trunk"] == "none" else training_data(datalist)
        mpp = self.training_mpp(datalist)
        found["mpp"] = None if mpp is None else mpp / self["scale"]  # that the network works at
        trunk = getattr(network, "trunk", None)
        weights = {} if trunk is None else {"trunk_weights_sha256": trunk.weights_sha256}
        if trunk is not None and trunk.licence:
            weights["trunk_licence"] = trunk.licence
        return {**found, "classes": list(datalist.classes), **weights}

    def fingerprint(self, datalist: Any, network: Any, second: bool = False) -> dict[str, Any]:
        """What must be the same for a training to be resumed, as JSON values; its engine adds what it was made with.

        Args:
            datalist: the data it learns from, known by its images' names and labels.
            network: the trained one, or the first stage's; its weights are known by their digest, not by their place.
            second: whether it is that of the second stage.
        """
        found = {name: value for name, value in self._of(second).items() if not _of_schema(name).free}
        if second:
            found["epochs"] = self["epochs"]
        if is_folder(self["trunk"]):  # known by the digest of its files
            found["trunk"] = FOLDER_PREFIX
        images = {"training_images": datalist.digest("train"), "validation_images": datalist.digest("valid")}
        sizes = [item.get("mpp") for item in datalist.select("train")]
        if any(sizes):
            images["pixel_sizes"] = digest_of(sizes)
        pixels = {name: getattr(network, name).flatten().tolist() for name in ("pixel_mean", "pixel_std")}
        weights = {"weights": network.trunk.weights_sha256, "training_mpp": self.training_mpp(datalist)}
        return {**found, **images, **pixels, **weights, "classes": list(datalist.classes)}

    def of_model(self, datalist: Any) -> dict[str, Any]:
        """What an evaluation must have as the model's training had it."""
        own = {name: value for name, value in self.items() if _of_schema(name).model}
        return {**own, "classes": list(datalist.classes)}

    def _of(self, second: bool) -> dict[str, Any]:
        own = {name: value for name, value in self.items() if second or not _of_schema(name).second}
        return {**own, "method": self["method"] + self["stage"]} if second else own


def _of_schema(name: str) -> Setting:
    return SCHEMA.get(name, Setting())


def _breaks(name: str, value: Any) -> bool:
    rule = _of_schema(name).allowed
    return rule is not None and not rule(value)


def _words(name: str, value: Any) -> str:
    setting = _of_schema(name)
    # MONAI's command line passes null as text, and drops None
    null = value in ("null", "None") and setting.allowed is not None and setting.allowed(None)
    return f"{setting.words}; null is typed '$None'" if null else setting.words


def _check_device(name: str, device: Any) -> None:
    try:
        where = torch.device(str(device))  # a bare number would leave open of what: the configs look for "cuda"
    except RuntimeError as error:
        raise ConfigError(f"{name}={device!r} is no device", "settings", "give cpu, cuda, or cuda:1") from error
    if where.type != "cuda":
        return
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not there:
        raise ConfigError(f"{name}={device!r}, and torch finds no CUDA device", "settings", "give cpu")
    if where.index is not None and where.index >= there:
        fix = f"give cuda:0 to cuda:{there - 1}" if there > 1 else "give cuda"
        raise ConfigError(f"{name}={device!r}, and {there} CUDA devices are here", "settings", fix)


def _whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _or_null(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_text, value))


def _three(value: Any, rule: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(rule, value))


def _among(*names: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: _text(value) and value in names), f"{', '.join(names[:-1])} or {names[-1]}"


def _weights(value: Any) -> bool:
    # which teachers there are is checked by the second stage, before the first is trained
    return (
        isinstance(value, Mapping) and all(_number(one) and one >= 0 for one in value.values()) and any(value.values())
    )


_PARTS: Mapping[str, Callable[[Any], bool]] = {
    "seed": lambda value: _whole(0)(value),
    "train": lambda value: _whole(1)(value),
    "test": lambda value: _whole(0)(value),
    "size": lambda value: isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_whole(1), value)),
    "scale": lambda value: _number(value) and value > 0,
    "confounded": lambda value: isinstance(value, bool),
}
_PHANTOM_WORDS = "seed, train, test, size, scale or confounded its own value, as --phantom#train 40"


def _phantom(value: Any) -> bool:
    return isinstance(value, Mapping) and all(key in _PARTS and _PARTS[key](part) for key, part in value.items())


_ANY, _SOME = (_whole(0), "a whole number from 0"), (_whole(1), "a whole number from 1")
# "false" from a command line is a text, and a text that is not empty counts as true
_SWITCH = (lambda value: isinstance(value, bool), "True or False, with a capital on the command line")
_PROBABILITY = (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1")
_FROM_0 = (lambda value: _number(value) and value >= 0, "a number from 0")
_ABOVE_0 = (lambda value: _number(value) and value > 0, "a number above 0")
# a folder called 2024 is a number to the command line
_PATH = (_text, "a path; before a name that is a number put ./")
_FILES = (lambda value: _text(value) or (_texts(value) and bool(value)), "a path, or a list of paths")

SCHEMA: dict[str, Setting] = {
    "method": Setting(_text, "the name of one", card=True),
    "stage": Setting(lambda value: value in ("", "_refined"), "_refined for two stages, else an empty text", free=True),
    "dataset_dir": Setting(*_PATH, free=True),  # the images themselves are compared
    "output_dir": Setting(*_PATH, free=True),
    "ckpt_dir": Setting(*_PATH, free=True),
    "stage_one_dir": Setting(*_PATH, free=True),
    "checkpoint": Setting(*_FILES, free=True),
    "split": Setting(lambda value: _text(value) and split_word(value) is not None, "train, valid or test", free=True),
    "phantom": Setting(_phantom, _PHANTOM_WORDS, free=True),
    "trunk": Setting(_text, "the name of one, such as efficientnet_lite0, or hf:FOLDER", card=True, model=True),
    "weights": Setting(_text, "a file, auto, package, none or an https address", free=True),  # their digest is compared
    "device": Setting(free=True),
    "data_device": Setting(free=True),
    "seed": Setting(_whole(0, 2**32 - 1), "a whole number from 0 to 4294967295", card=True),
    "epochs": Setting(*_SOME, free=True),  # but where the schedule has a fixed length, see RunCheckpoint
    "batch_size": Setting(*_SOME),
    "crop_size": Setting(*_SOME),
    # null for the methods without erasing
    "passes": Setting(
        _or_null(_whole(0)), "0 for no erasing, or a whole number of forwards of the localizer", card=True
    ),
    "fold": Setting(card=True, model=True),
    "fold_seed": Setting(card=True, model=True),
    "cub_classes": Setting(
        lambda value: _text(value) or _texts(value), "cub5, all or a list of names", free=True
    ),  # the classes themselves are compared
    "classes": Setting(_texts, "a list of names, as ['benign','malignant']", free=True),
    "num_workers": Setting(*_ANY, free=True),
    "amp": Setting(*_SWITCH),
    "amp_dtype": Setting(*_among("bfloat16", "float16"), free=True),
    "channels_last": Setting(*_SWITCH, free=True),
    "fused": Setting(*_SWITCH, free=True),
    "compiler": Setting(
        _or_null(_text), "null, or the name of a backend of torch.compile, such as inductor", free=True
    ),
    "resume": Setting(*_SWITCH, free=True),
    "patience": Setting(*_ANY, free=True),
    "val_interval": Setting(*_SOME),
    "selection_ties": Setting(*_among("loss", "last")),
    "selection_rule": Setting(free=True, card=True),
    "scale": Setting(
        lambda value: _number(value) and 0 < value <= 100, "a number above 0, at most 100", card=True, model=True
    ),
    "short_side": Setting(
        _or_null(_whole(1, 100_000)), "a whole number of pixels from 1 to 100000, or null", card=True, model=True
    ),
    "mpp": Setting(
        _or_null(lambda value: _number(value) and MPP_RANGE[0] <= value <= MPP_RANGE[1]),
        f"micrometres per pixel from {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g}, or null",
    ),
    "stain": Setting(card=True),
    "subject": Setting(*_among(*SUBJECTS), card=True),
    "pixel_mean": Setting(_or_null(lambda value: _three(value, _number)), "three numbers, or null"),
    "pixel_std": Setting(
        _or_null(lambda value: _three(value, lambda one: _number(one) and one > 0)), "three numbers above 0, or null"
    ),
    "dropout": Setting(lambda value: _number(value) and 0 <= value < 1, "a number from 0, below 1"),
    "reflect_fraction": Setting(*_FROM_0),
    "vertical_flip": Setting(*_PROBABILITY),
    "rotation": Setting(*_PROBABILITY),
    "affine": Setting(*_PROBABILITY),
    "color_jitter": Setting(*_PROBABILITY),
    "stain_jitter": Setting(*_PROBABILITY),
    "mask_threshold": Setting(*_FROM_0),
    "fill_holes": Setting(*_FROM_0, free=True, card=True),  # of the finished mask, which no training sees
    "drop_specks": Setting(*_FROM_0, free=True, card=True),
    "rotations": Setting(*_SWITCH),
    "lr_per_epoch": Setting(*_SWITCH),
    "teachers": Setting(_weights, "weights from 0, one of them above", second=True),
    "seed_share": Setting(is_share, SHARE_WORDS, second=True),
    "seed_scope": Setting(*_among("source", "dataset", "image", "both"), second=True),
    "seed_softness": Setting(*_PROBABILITY, second=True),
    "refine_epochs": Setting(*_SOME, second=True),
    "refine_rounds": Setting(*_SOME, second=True),
    "refine_batch_size": Setting(*_SOME, second=True),
    "refine_lr": Setting(*_ABOVE_0, second=True),
    "decoder_width": Setting(
        lambda value: _whole(8)(value) and value % 8 == 0, "a positive multiple of 8", second=True
    ),
    "decoder_norm": Setting(second=True),
    # of inference alone
    "formats": Setting(lambda value: _text(value) or _texts(value), "a list of them, as ['png','geojson']"),
    "prefetch": Setting(*_SWITCH),
    "overlays": Setting(*_SWITCH),
    "recursive": Setting(*_SWITCH),
    "undecidable": Setting(*_SWITCH),
}
"""By flat id: the settings that a component would misread, or that are not only compared when a run is resumed."""
