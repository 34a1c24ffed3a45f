# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``doctor``: check before a run whether it can work here; one line for each check."""

from __future__ import annotations

import argparse
import json

from glas_wsol.errors import as_typed

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    text = "check Python, packages, torch and weights; a bundle, data, an output folder; status 1 on a fault"
    parser = commands.add_parser("doctor", help=text)
    add = parser.add_argument
    add("--device", help="as the setting; left out: CUDA where there is one")
    add("--trunk", default="efficientnet_lite0", help="as the setting (default: efficientnet_lite0)")
    add("--weights", default="auto", help="as the setting: a file, package, none or auto (default)")
    add("--bundle", metavar="DIR", help="bundle's folder: its configs, what it needs, its model")
    add("--data", metavar="DATA", help="labelled data: GlaS or CUB folder, folder of class folders, or CSV table")
    add("--fold", default="paper", help="of the data, as the setting (default: paper)")
    add("--seed", type=int, default=0, help="of drawn folds (default: 0)")
    add("--images", metavar="IMAGES", help="images to localize: a file, a folder or a CSV with a column image")
    add("--recursive", action="store_true", help="look for images in the folders below too")
    add("--no-pixels", action="store_true", help="do not read the images, which takes its time")
    add("--output", metavar="DIR", help="output folder: whether it can be written, and has room")
    add("--json", action="store_true", help="print one JSON object, for other programs")
    parser.set_defaults(command=_doctor, typed={"dataset_dir": "--data", "output_dir": "--output"})


def _doctor(arguments: argparse.Namespace) -> None:
    from glas_wsol import doctor
    from glas_wsol.doctor.check import FAULT, OK, WARNING

    pixels = not arguments.no_pixels
    looks = [
        doctor.check_python,
        doctor.check_packages,
        lambda: doctor.check_torch(arguments.device),
        lambda: doctor.check_weights(arguments.trunk, arguments.weights),
    ]
    if arguments.bundle is not None:
        looks.append(lambda: doctor.check_bundle(arguments.bundle))
    if arguments.data is not None:
        looks.append(lambda: doctor.check_data(arguments.data, arguments.fold, arguments.seed, pixels, progress=True))
    if arguments.images is not None:
        looks.append(lambda: doctor.check_images(arguments.images, arguments.recursive, pixels, progress=True))
    if arguments.output is not None:
        looks.append(lambda: doctor.check_output(arguments.output))
    found: list[doctor.Check] = []
    for look in looks:
        checks = look()
        found += checks
        if not arguments.json:
            print(*(as_typed(str(one)) for one in checks), sep="\n", flush=True)
    counts = {status: sum(one.status == status for one in found) for status in (OK, WARNING, FAULT)}
    if arguments.json:
        print(json.dumps({"counts": counts, "checks": [one.entry() for one in found]}, indent=1, ensure_ascii=False))
    else:
        print(f"faults: {counts[FAULT]}, warnings: {counts[WARNING]}")
    if counts[FAULT]:
        raise SystemExit(1)
