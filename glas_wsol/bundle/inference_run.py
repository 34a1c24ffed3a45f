# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs the package's ``inference.json`` with a model on some images, and counts the results."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from glas_wsol.bundle.bundle_runs import BundleRun
from glas_wsol.bundle.command_line import refuse_unknown
from glas_wsol.data import images_datalist
from glas_wsol.data.files import existing
from glas_wsol.errors import ConfigError, IncompleteError, OutputError
from glas_wsol.loading import ModelSource
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.results.how_to_read import is_strange
from glas_wsol.utils.configs import plain_path
from glas_wsol.utils.csv_files import read_table, write_csv
from glas_wsol.utils.foreign_config import ForeignConfig, agreed_settings
from glas_wsol.utils.json_files import RECORD
from glas_wsol.utils.locks import claim, release
from glas_wsol.utils.shipped_bundles import bundle_folder, bundle_folders, bundle_of, is_shipped
from glas_wsol.version import PACKAGE

__all__ = ["Results", "infer", "plan_inference"]

LISTED = "images_given.csv"
"""The list of the images where they were given as several files or folders."""


@dataclass(frozen=True)
class Results:
    """What a run left in its output folder.

    Attributes:
        evidence: those of them that show something to decide on.
        failed: the table of images without a result; None where there are none.
        pixel_sizes: sentences on unknown pixel sizes, each with how many images it holds for.
        unlike: how many of those done are unlike the training images; None where not known.
    """

    done: int
    evidence: int
    failed: Path | None = None
    failures: int = 0
    pixel_sizes: Mapping[str, int] = field(default_factory=dict)
    unlike: int | None = None


def plan_inference(
    images: Sequence[str | Path],
    model: Sequence[str | Path],
    output: str | Path,
    bundle: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    listed: Sequence[Mapping[str, Any]] | None = None,
) -> BundleRun:
    """Find the package's own bundle for a model, with the settings of the bundle around it, and give it the images.

    Args:
        images: an image, a folder or a CSV; of several, a list is written into ``output``.
        model: exported bundle, output folder of a training, or weights' file; several are an ensemble.
        output: receives the results; made if absent.
        bundle: the bundle that the model belongs to. None (default): the exported one around it. What is run is the
            package's own bundle, the one with the model's classes or else the one for tissue; of any other only the
            flat settings are taken, as data.
        settings: ids of ``inference.json`` with their values.
        listed: those of the images that are run on, where some are left out. Defaults to None: all.

    Raises:
        ConfigError: if there is no such bundle, it has no such setting, or sets one by an expression.
        DatalistError: if there is no image.
        OutputError: if the list cannot be written.
        WeightsError: if there is no such model.
    """
    sources = [ModelSource(Path(one)) for one in model]
    checkpoint = [plain_path(source.checkpoint) for source in sources]
    cards = [model_card(file) for file in checkpoint]
    bundles = [source.bundle for source in sources] if bundle is None else _given(bundle)
    classes = [one["classes"] for one in (*cards, *(one.card() for one in bundles)) if "classes" in one]
    folder = _shipped(bundle, classes[0] if classes else None)
    config = folder / "configs" / "inference.json"
    parser = ConfigParser()
    parser.read_config(str(config))
    given = dict(settings or {})
    refuse_unknown(parser, given, config)
    own = {"bundle_root": str(folder), "checkpoint": checkpoint[0] if len(checkpoint) == 1 else checkpoint}
    ids = {*parser.get(), "postprocessing#threshold", "postprocessing#min_box_area"}
    wanted = ids - {*own, *given, "dataset_dir", "output_dir"}
    said = agreed_settings(bundles, parser.get(), wanted, "give --{id} VALUE")
    if bundles:
        assumed = {name: value for name, value in bundles[0].card().items() if not all(name in one for one in cards)}
        said |= {f"card#{k}": v for k, v in assumed.items() if v != parser["card"].get(k)}
    said = {k: "$None" if v is None else v for k, v in said.items() if k not in given}  # MONAI leaves out a None
    recursive = bool(given.get("recursive", said.get("recursive", parser["recursive"])))
    own["dataset_dir"] = plain_path(_source(images, Path(output), recursive, listed))
    own["output_dir"] = plain_path(output)
    return BundleRun([config], own | said | given)


def _given(bundle: str | Path) -> list[ForeignConfig]:
    """The config of a bundle that was named, as data; none of one that came with the package: it is run itself."""
    folder = bundle_folder(bundle)
    if not (folder / "configs" / "inference.json").is_file():
        raise ConfigError("no bundle for inference here", bundle, "name a folder that holds configs/inference.json")
    return [] if is_shipped(folder / "configs" / "inference.json") else [ForeignConfig(folder)]


def _shipped(bundle: str | Path | None, classes: Any) -> Path:
    """The package's own bundle that is run: the one that was named, else the one with these classes."""
    known = bundle_folders()
    named = None if bundle is None else bundle_folder(bundle).resolve()
    found = next((one for one in known if one.resolve() == named), None) or bundle_of(classes)
    if found is None:
        raise ConfigError("no bundle came with this package", PACKAGE, "install it whole")
    return found


def _source(
    images: Sequence[str | Path], output: Path, recursive: bool, listed: Sequence[Mapping[str, Any]] | None
) -> Path:
    if len(images) == 1 and listed is None:
        existing(images[0])
        return Path(images[0]).absolute() if str(images[0]) == "phantom" else Path(images[0])  # not the config's word
    if listed is None:
        listed = [item for one in images for item in images_datalist(one, recursive, exclude=output)]
    table = output / LISTED
    if table.exists() and read_table(table, errors="replace")[0] not in (["image"], ["image", "mpp"]):
        raise OutputError("this file is no list of an earlier run", table, "choose another output folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the output folder ({error.strerror})", output, "choose another") from error
    claim(output / RECORD)  # a run that is at work here keeps its list
    try:
        sizes = {item["image"]: str(item["mpp"]) for item in listed if "mpp" in item}
        rows = [
            {"image": image, "mpp": sizes.get(image, "")} for image in dict.fromkeys(one["image"] for one in listed)
        ]
        columns = ("image", "mpp") if sizes else ("image",)
        write_csv(table, [{key: row[key] for key in columns} for row in rows], columns=columns)
    finally:
        release(output / RECORD)
    return table


def infer(run: BundleRun) -> Results:
    """Make the run, in this process.

    Raises:
        GlasWsolError: as the bundle raises it, freed from what MONAI wraps around it. Images that failed are none:
            the results name them.
    """
    output = Path(run.settings["output_dir"])
    try:
        with contextlib.suppress(IncompleteError):
            run.make()
    finally:
        release(output / RECORD)  # a process that goes on to other work does not keep what an incomplete run had
    done, failed = _rows(output / "predictions.csv"), output / "failed.csv"
    failures = _rows(failed) if failed.is_file() else []
    evidence = sum(row.get("class") != "no evidence" for row in done)
    sizes = Counter(row["pixel_size"] for row in done if row.get("pixel_size"))
    known = [float(row["familiarity"]) for row in done if row.get("familiarity")]
    unlike = sum(bool(is_strange(one)) for one in known) if known else None
    return Results(len(done), evidence, failed if failures else None, len(failures), sizes, unlike)


def _rows(path: Path) -> list[dict[str, str]]:
    return read_table(path, "the results cannot be read", "run it again")[1]
