# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``predict``: run a trained model on one's own images, through the package's own ``inference.json``."""

from __future__ import annotations

import argparse
from typing import Any

from glas_wsol.commands import add_with_settings

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _predict,
        "predict",
        "localize your own images with a trained model",
        usage="IMAGES... --output DIR [--model MODEL]",
        config="inference.json (docs/settings.md)",
        example="--stain null --seed 1",
        typed={"dataset_dir": "IMAGES", "output_dir": "--output"},
        instead={
            "checkpoint": "use --model",
            "dataset_dir": "name the images first: predict IMAGES",
            "output_dir": "use --output",
            "bundle_root": "use --bundle",
            "config_file": "use --bundle",
        },
    )
    add("images", nargs="+", metavar="IMAGES", help="images, folders of them, or CSV tables with a column image")
    text = "output folder of a training, model.pt with its model.json, or exported bundle; several are an ensemble"
    add("--model", nargs="+", required=True, metavar="MODEL", help=text)
    add("--output", required=True, metavar="DIR", help="receives the results; run it again to go on where it stopped")
    text = "glas, cub, or the folder of the bundle that the model belongs to (default: found by its classes)"
    add("--bundle", metavar="BUNDLE", help=text)
    add("--formats", nargs="+", metavar="FORMAT", help="png, geojson, dicom, nifti, tiff, ... (default: png)")
    add("--report", action="store_true", help="write report.html at the end")
    add("--device", help="cpu, cuda, cuda:1 (default: CUDA where there is one)")
    text = "average over mirror images: 4 forwards an image, with 'horizontal' 2"
    add("--flips", nargs="?", const=True, choices=["horizontal"], help=text)
    add("--rotations", action="store_true", default=None, help="average over quarter turns: 4 forwards an image")
    add("--scales", nargs="+", type=float, metavar="X", help="average over these resolutions")
    text = "micrometres of a pixel, or of its width and its height (default: as table or file says)"
    add("--mpp", nargs="+", type=float, metavar="UM", help=text)
    add("--recursive", action="store_true", default=None, help="look for images in the folders below too")
    add("--no-overlays", dest="overlays", action="store_false", default=None, help="draw no overlays")
    add("--undecidable", action="store_true", default=None, help="outline the undecidable region in GeoJSON too")
    add("--anew", dest="resume", action="store_false", default=None, help="process finished images again")


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    no_settings = ("images", "model", "output", "bundle", "report")
    found = {name: value for name, value in vars(given).items() if name not in no_settings and value is not None}
    if len(found.get("mpp", ())) == 1:
        (found["mpp"],) = found["mpp"]
    return found


def _predict(given: argparse.Namespace, more: dict[str, str]) -> None:
    from fire.parser import DefaultParseValue

    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.inference_run import infer, plan_inference
    from glas_wsol.errors import IncompleteError, count
    from glas_wsol.report import write_report
    from glas_wsol.results.how_to_read import UNLIKE

    install_excepthook()
    settings = _settings(given) | {name: DefaultParseValue(text) for name, text in more.items()}
    run = plan_inference(given.images, given.model, given.output, given.bundle, settings)
    print(f"this is: {run.command}", flush=True)
    found = infer(run)
    if given.report and found.done:
        page = write_report(given.output, progress=True)
        print(f"open {page}")
    total, blank = found.done + found.failures, found.done - found.evidence
    unlike = f"{found.unlike} are {UNLIKE}" if found.unlike is not None else f"whether any are {UNLIKE} is not known"
    done = f"{found.done} of {count(total, 'image is', 'images are')} done"
    print(f"{done} ({blank} show no evidence; {unlike}), in {given.output}")
    for said, number in found.pixel_sizes.items():
        print(f"{number} of {count(found.done, 'image')}: {said}")
    if found.failed is not None:
        what = f"{found.failures} of {count(total, 'image')} failed, the others are done"
        raise IncompleteError(what, found.failed, "mend these images, or leave them out, and run again")
