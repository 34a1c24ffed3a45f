# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A run of a bundle's ``inference.json`` from a model and some images: which config, which settings, what came out."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from glas_wsol.bundle import refuse_unknown
from glas_wsol.bundle.runs import BundleRun, bundle_of
from glas_wsol.data import images_datalist
from glas_wsol.data.files import existing
from glas_wsol.errors import ConfigError, IncompleteError, OutputError
from glas_wsol.loading import ModelSource
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.utils.csv_files import read_cells, write_csv
from glas_wsol.utils.json_files import RECORD
from glas_wsol.utils.locks import claim, release
from glas_wsol.utils.shipped import bundle_folder

__all__ = ["Inference", "Results", "infer", "plan_inference"]

LISTED = "images_given.csv"
"""The list of the images where they were given as several files or folders."""


@dataclass(frozen=True)
class Inference:
    """A run of inference, ready to be made.

    Attributes:
        config: the bundle's ``inference.json``.
        output: receives the results.
        settings: by their ids.
    """

    config: Path
    output: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The same run as one would type it."""
        return BundleRun([self.config], self.settings).command


@dataclass(frozen=True)
class Results:
    """What a run left in its output folder.

    Attributes:
        done: images with a result.
        evidence: those of them that show something to decide on.
        failed: the table of images without a result; None where there are none.
        failures: how many those are.
    """

    done: int
    evidence: int
    failed: Path | None = None
    failures: int = 0


def plan_inference(
    images: Sequence[str | Path],
    model: Sequence[str | Path],
    output: str | Path,
    bundle: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Inference:
    """Find the bundle that a model belongs to and give it the images.

    Args:
        images: an image, a folder or a CSV; of several, a list is written into ``output``.
        model: exported bundle, output folder of a training, or weights' file; several are an ensemble.
        output: receives the results; made if absent.
        bundle: folder of the bundle that the model belongs to. None (default): the exported one around it, else that
            that came with the package and has the model's classes, else the one for tissue.
        settings: ids of ``inference.json`` with their values.

    Raises:
        ConfigError: if there is no such bundle, or it has no such setting.
        DatalistError: if there is no image.
        OutputError: if the list cannot be written.
        WeightsError: if there is no such model.
    """
    places = [ModelSource(Path(one)) for one in model]
    checkpoint = [str(place.checkpoint) for place in places]
    config = _config(bundle, places)
    given = dict(settings or {})
    parser = ConfigParser()
    parser.read_config(str(config))
    refuse_unknown(parser, given, config)
    own = {
        "bundle_root": str(config.parent.parent),
        "checkpoint": checkpoint[0] if len(checkpoint) == 1 else checkpoint,
        "dataset_dir": str(_source(images, Path(output), bool(given.get("recursive", parser.get("recursive", False))))),
        "output_dir": str(output),
    }
    return Inference(config, Path(output), own | given)


def _config(bundle: str | Path | None, places: Sequence[ModelSource]) -> Path:
    if bundle is None:
        around = next((place.config_file for place in places if place.config_file.is_file()), None)
        return around if around is not None else _guessed(places[0])
    config = bundle_folder(bundle) / "configs" / "inference.json"
    if not config.is_file():
        raise ConfigError("no bundle for inference here", bundle, "name a folder that holds configs/inference.json")
    return config


def _guessed(place: ModelSource) -> Path:
    """That of the bundle that came with the package and has the model's classes, else of that for tissue."""
    known = bundle_of(model_card(str(place.checkpoint)).get("classes"))
    if known is None:
        what = "which bundle this model belongs to is not known"
        raise ConfigError(what, place.path, "name an exported bundle as the model, or give --bundle DIR")
    return known / "configs" / "inference.json"


def _source(images: Sequence[str | Path], output: Path, recursive: bool) -> Path:
    if len(images) == 1:
        existing(images[0])
        return Path(images[0]).absolute() if str(images[0]) == "phantom" else Path(images[0])  # not the config's word
    listed = [Path(item["image"]) for one in images for item in images_datalist(one, recursive, exclude=output)]
    table = output / LISTED
    if table.exists():
        with table.open(encoding="utf-8", errors="replace", newline="") as file:
            if read_cells(file)[0] != ["image"]:
                raise OutputError("this file is no list of an earlier run", table, "choose another output folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the output folder ({error.strerror})", output, "choose another") from error
    claim(output / RECORD)  # a run that is at work here keeps its list
    try:
        write_csv(table, [{"image": str(path)} for path in dict.fromkeys(listed)], columns=("image",))
    finally:
        release(output / RECORD)
    return table


def infer(inference: Inference) -> Results:
    """Make the run, in this process.

    Args:
        inference: as planned.

    Raises:
        GlasWsolError: as the bundle raises it, freed from what MONAI wraps around it. Images that failed are none:
            the results name them.
    """
    with contextlib.suppress(IncompleteError):
        BundleRun([inference.config], inference.settings).make()
    done, failed = _rows(inference.output / "predictions.csv"), inference.output / "failed.csv"
    failures = _rows(failed) if failed.is_file() else []
    evidence = sum(row.get("class") != "no evidence" for row in done)
    return Results(len(done), evidence, failed if failures else None, len(failures))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return read_cells(file)[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OutputError("the results cannot be read", path, "run it again") from error
