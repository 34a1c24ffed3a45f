# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Checks a bundle and its model, a data set, images to localize, and the output folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from glas_wsol.doctor.check import FAULT, OK, WARNING, Check, faults_of
from glas_wsol.doctor.installation import compare
from glas_wsol.errors import GlasWsolError, WeightsError, count
from glas_wsol.utils.json_files import read_json
from glas_wsol.version import __version__

__all__ = ["check_bundle", "check_data", "check_images", "check_output"]

_NAMED = {"monai": "monai", "torch": "pytorch", "numpy": "numpy"}
_LITTLE_ROOM = 2e9  # bytes: the models of a run of ResNet-101 take one


def check_bundle(folder: str | Path) -> list[Check]:
    """A bundle's configs, which are not executed, what it needs, and its model, loaded as by :func:`glas_wsol.load`."""
    folder = Path(folder)
    return [*_configs(folder), *_metadata(folder), *_model(folder)]


def _configs(folder: Path) -> list[Check]:
    files = sorted(file for kind in ("json", "yaml", "yml") for file in (folder / "configs").glob(f"*.{kind}"))
    if not files:
        what = f"no config is there [{folder / 'configs'}]"
        return [Check("bundle", FAULT, what, "give glas, cub, or a bundle's folder")]
    checks = [fault for file in files for fault in _config_faults(file)]
    return checks or [Check("bundle", OK, f"its {count(len(files), 'config')} can be read; nothing of them was run")]


def _config_faults(file: Path) -> list[Check]:
    from glas_wsol.bundle.overrides import load

    try:
        load(file)
    except GlasWsolError as error:
        return faults_of("bundle", error)
    return []


def _metadata(folder: Path) -> list[Check]:
    path = folder / "configs" / "metadata.json"
    try:
        content: dict[str, Any] = dict(read_json(path))
        exact = dict(content["required_packages_version"])
        exact |= {name: content[f"{word}_version"] for name, word in _NAMED.items()}
        needed = [Requirement(f"{name}=={version}") for name, version in sorted(exact.items())]
    except (OSError, ValueError, TypeError, KeyError, InvalidRequirement) as error:
        what = f"its metadata cannot be read ({type(error).__name__}) [{path}]"
        return [Check("bundle", FAULT, what, "export the bundle again")]
    checks = []
    if content.get("version") != __version__:
        what = f"it is of version {content.get('version')}, and this package of {__version__}"
        checks.append(Check("bundle", WARNING, what, "export it again with this package"))
    found = [one for one in map(compare, needed) if one is not None]
    checks += [Check("bundle", FAULT, one.what, one.fix) for one in found if one.status == FAULT]
    others = [one.what for one in found if one.status != FAULT]
    if others:
        what = f"it was tested with other versions of {len(others)} of its {len(needed)} packages: {'; '.join(others)}"
        checks.append(Check("bundle", WARNING, what, "install those if results must be the same to the last bit"))
    return checks or [
        Check("bundle", OK, f"version {__version__}; its {len(needed)} packages are those it was tested with")
    ]


def _model(folder: Path) -> list[Check]:
    from glas_wsol.loading import ModelSource, load_localizer
    from glas_wsol.networks.checkpoint import model_card
    from glas_wsol.results.provenance import provenance_of
    from glas_wsol.results.verdict import Verdict
    from glas_wsol.utils.digests import sha256_of

    try:
        path = ModelSource(folder).checkpoint
    except WeightsError:
        fix = "train one, then: python -m glas_wsol export BUNDLE OUTPUT --model OUT/models/model.pt"
        return [Check("model", WARNING, f"the bundle has no trained model [{folder / 'models'}]", fix)]
    try:
        localizer = load_localizer(folder, device="cpu")
        provenance = provenance_of(model_card(str(path)))
    except GlasWsolError as error:
        return faults_of("model", error)
    what = f"it loads; classes {', '.join(localizer.classes)}; {provenance.trained_on}; SHA-256 {sha256_of(path)}"
    checks = [Check("model", OK, what)]
    alarm = provenance.alarm
    if alarm is not None and alarm.verdict is not Verdict.NO_ALARM:
        sure = "" if alarm.score is None else f" (estimated failure probability {alarm.score:.2f})"
        what = f"whether its training run failed: {alarm.words}{sure}"
        checks.append(Check("model", WARNING, what, "look at its masks, or train with another seed"))
    return checks


def check_data(
    source: str | Path, fold: str = "paper", seed: int = 0, pixels: bool = True, progress: bool = False
) -> list[Check]:
    """A labelled data set: every fault at once, images of each class in each split and, if wanted, every pixel."""
    from glas_wsol.data import load_datalist
    from glas_wsol.data.damage import damaged

    try:
        datalist = load_datalist(source, fold=fold, seed=seed, log=False)
    except GlasWsolError as error:
        return faults_of("data", error)
    checks = [Check("data", OK, f"{datalist.name}, {len(datalist.classes)} classes, {datalist.source}")]
    header, *rows = datalist.rows()
    for split, *cells in rows:
        counts = ", ".join(f"{title} {cell}" for title, cell in zip(header[1:], cells, strict=True))
        checks.append(Check("data", OK, f"{split}: {counts}"))
    checks += [Check("data", WARNING, one) for one in datalist.warnings]
    if pixels:
        items = [item for split in datalist.splits.values() for item in split]
        faults = damaged([(item.image, item.mask) for item in items], progress)
        checks += _read("data", len(items), faults)
    return checks


def check_images(
    source: str | Path, recursive: bool = False, pixels: bool = True, progress: bool = False
) -> list[Check]:
    """Images to localize."""
    from glas_wsol.data import list_images
    from glas_wsol.data.damage import damaged

    try:
        items, warnings = list_images(source, recursive=recursive)
    except GlasWsolError as error:
        return faults_of("images", error)
    said = [Check("images", WARNING, one) for one in warnings]
    if not pixels:
        return [Check("images", OK, count(len(items), "image")), *said]
    return [*said, *_read("images", len(items), damaged([(item["image"], None) for item in items], progress))]


def _read(name: str, number: int, faults: list[str]) -> list[Check]:
    if not faults:
        return [Check(name, OK, f"all {count(number, 'image')} can be read")]
    return [Check(name, FAULT, fault, "repair or replace this file") for fault in faults]


def check_output(folder: str | Path) -> list[Check]:
    """Whether a run can write there: a file is tried in the folder, or where it would be made; it is not made."""
    folder = Path(folder).expanduser().absolute()
    place = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    elsewhere = "choose another folder"
    if not place.is_dir():
        return [Check("output", FAULT, f"a file is in its way [{place}]", elsewhere)]
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return [Check("output", FAULT, f"cannot be written ({error.strerror or error}) [{place}]", elsewhere)]
    said = f"{folder}: can be written{'' if folder == place else ', once it is made'}; {free / 1e9:.1f} GB free"
    if free < _LITTLE_ROOM:
        return [Check("output", WARNING, said, "free some room: a run may need more")]
    return [Check("output", OK, said)]
