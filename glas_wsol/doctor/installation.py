# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Checks Python, packages, torch and its device, and the trunk's weights."""

from __future__ import annotations

import platform
import warnings
from importlib import metadata
from typing import Any, cast

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from glas_wsol.doctor.check import FAULT, OK, WARNING, Check, faults_of
from glas_wsol.errors import GlasWsolError, count
from glas_wsol.utils.processors import processors
from glas_wsol.version import __version__

__all__ = ["check_packages", "check_python", "check_torch", "check_weights", "compare"]

_NAME = "glas_wsol"


def _distribution() -> metadata.Distribution | None:
    try:
        return metadata.distribution(_NAME)
    except metadata.PackageNotFoundError:  # an exported bundle carries the package without its metadata
        return None


def check_python() -> list[Check]:
    """Whether this Python is one that the package is made for."""
    found, installed = platform.python_version(), _distribution()
    wanted = "" if installed is None else cast("Any", installed.metadata).get("Requires-Python", "")
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        return [Check("python", FAULT, f"{found}, and {wanted} is needed", "make a virtual environment with one")]
    needed = f" ({wanted} is needed)" if wanted else ""
    return [Check("python", OK, f"{found}{needed}, {platform.platform(terse=True)}")]


def check_packages() -> list[Check]:
    """The required packages, by the installed metadata, that are missing or of another version, by name."""
    installed = _distribution()
    if installed is None:
        what = f"{_NAME} {__version__} is a copy that was not installed: its required packages are not known here"
        return [Check("packages", WARNING, what, "give --bundle: its metadata.json lists them")]
    checks, fine = [], 0
    if installed.version != __version__:
        what = f"{_NAME} {installed.version} is installed, and this is {__version__}"
        checks.append(Check("packages", WARNING, what, "install this one: pip install --no-deps ."))
    for text in installed.requires or ():
        requirement = Requirement(text)
        extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        found = compare(requirement)
        if found is None:
            fine += 1
        elif extra:
            checks.append(Check("packages", OK, f"{found.what}; it is optional", found.fix))
        else:
            checks.append(found)
    return [Check("packages", OK, f"{_NAME} {__version__}; required packages: {fine}"), *checks]


def compare(requirement: Requirement) -> Check | None:
    """What is wrong with an installed package; None where nothing is.

    Args:
        requirement: its name, and the valid versions. Another one than the exact version required is a
            warning: it was not tried, and may do.
    """
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check("packages", FAULT, f"{requirement.name} is not installed", f'pip install "{wanted}"')
    if requirement.specifier.contains(version, prereleases=True):
        return None
    exact = all(one.operator == "==" for one in requirement.specifier)
    what = f"{requirement.name} is {version}, and {requirement.specifier} {'was tested' if exact else 'is needed'}"
    return Check("packages", WARNING if exact else FAULT, what, f'pip install "{wanted}"')


def check_torch(device: str | None = None) -> list[Check]:
    """Torch's build, its threads, and whether it computes on the device; None is the one that a run takes by itself."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of the system that is missing
        what = f"torch cannot be imported ({' '.join(str(error).split())[:200]})"
        return [Check("torch", FAULT, what, "install it first and exactly, as the README says")]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    threads, usable = torch.get_num_threads(), processors()
    said = f"{torch.__version__}, built for {build}; {count(threads, 'thread')} on {count(usable, 'processor')}"
    checks = [Check("torch", OK, said)]
    if threads > usable:
        what = f"{count(threads, 'thread')} share {usable} processors"
        checks.append(Check("torch", WARNING, what, f"set OMP_NUM_THREADS={usable}"))
    if torch.version.cuda and not torch.cuda.is_available():
        what = "this torch is built for CUDA and finds no device: runs take the CPU"
        checks.append(Check("torch", WARNING, what, "see that the driver works, or install torch's CPU build"))
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return [*checks, _computes(wanted)]


def _computes(device: str) -> Check:
    import torch

    image = torch.linspace(-1, 1, 3 * 40 * 56).reshape(1, 3, 40, 56)
    kernel = torch.linspace(-1, 1, 4 * 3 * 9).reshape(4, 3, 3, 3)
    expected = torch.nn.functional.conv2d(image, kernel)
    try:
        found = torch.nn.functional.conv2d(image.to(device), kernel.to(device)).cpu()
    except (RuntimeError, AssertionError) as error:
        what = f"{device!r} is not usable ({str(error).strip().splitlines()[0]})"
        return Check("device", FAULT, what, "give --device cpu, or one that this machine has")
    if not torch.allclose(found, expected, atol=0.05):  # a GPU may round to ten bits
        return Check("device", FAULT, f"{device!r} computes something else than the CPU", "look after its driver")
    if torch.device(device).type != "cuda":
        return Check("device", OK, f"{device}: it computes")
    whole = torch.cuda.get_device_properties(device)
    free = torch.cuda.mem_get_info(device)[0]
    return Check("device", OK, f"{device}: {whole.name}, {free / 1e9:.1f} of {whole.total_memory / 1e9:.1f} GB free")


def check_weights(trunk: str = "efficientnet_lite0", weights: str = "auto") -> list[Check]:
    """Whether a trunk's first weights are there and fit; nothing is downloaded."""
    from glas_wsol.networks.trunks import build_trunk

    if weights.startswith(("http://", "https://")):
        what = f"{trunk}: an address is not looked at; its digest is checked when a training fetches it"
        return [Check("weights", WARNING, what, "give the file to have it looked at")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = build_trunk(trunk, weights)
        except GlasWsolError as error:
            return faults_of("weights", error)
    if not found.weights_sha256:
        said = next(
            (str(one.message) for one in caught if trunk in str(one.message)), f"{trunk} starts from random ones"
        )
        what, _, fix = said.partition(". ")
        return [Check("weights", WARNING, what, fix)]
    licence = f"; licence: {found.licence}" if found.licence else ""
    return [Check("weights", OK, f"{trunk}: they fit; SHA-256 {found.weights_sha256}{licence}")]
