# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``predict``: run a trained model on one's own images, through the package's own ``inference.json``."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["register"]

_HELP = "localize your own images with a trained model"
_INSTEAD = {
    "checkpoint": "use --model",
    "dataset_dir": "name the images first: predict IMAGES",
    "output_dir": "use --output",
    "bundle_root": "use --bundle",
    "config_file": "use --bundle",
}


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command.

    Args:
        commands: of the program's parser.
    """
    # a separate parser: settings of the config may be among the arguments
    predict = commands.add_parser("predict", help=_HELP, prefix_chars="\0", add_help=False)
    predict.add_argument("arguments", nargs=argparse.REMAINDER)
    typed = {"dataset_dir": "IMAGES", "output_dir": "--output"}
    predict.set_defaults(command=lambda arguments: _predict(arguments.arguments, predict.prog), typed=typed)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_HELP.capitalize() + ".",
        usage="%(prog)s IMAGES... --model MODEL --output DIR [options] [--id value ...]",
        epilog="Any other --id value is a setting of inference.json (docs/settings.md), such as: --stain null --seed 1",
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="images, folders of them, or CSV tables with a column image")
    text = "model.pt with its model.json, output folder of a training, or exported bundle; several are an ensemble"
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
    return parser


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    names = (
        "formats",
        "device",
        "flips",
        "rotations",
        "scales",
        "mpp",
        "recursive",
        "overlays",
        "undecidable",
        "resume",
    )
    found = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if len(found.get("mpp", ())) == 1:
        (found["mpp"],) = found["mpp"]
    return found


def _predict(arguments: list[str], prog: str) -> None:
    from glas_wsol.bundle.overrides import parse_overrides, split_overrides

    parser = _parser(prog)
    own, rest = split_overrides(parser, arguments)
    given = parser.parse_args(own)
    more = parse_overrides(rest, _INSTEAD)
    from fire.parser import DefaultParseValue

    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.inference_run import infer, plan_inference
    from glas_wsol.errors import IncompleteError
    from glas_wsol.report import write_report

    install_excepthook()
    settings = _settings(given) | {name: DefaultParseValue(text) for name, text in more.items()}
    run = plan_inference(given.images, given.model, given.output, given.bundle, settings)
    print(f"this is: {run.command}", flush=True)
    found = infer(run)
    if given.report and found.done:
        page = write_report(run.output, progress=True)
        print(f"open {page}")
    total, blank = found.done + found.failures, found.done - found.evidence
    print(f"{found.done} of {total} images are done ({blank} show no evidence), in {run.output}")
    for said, count in found.pixel_sizes.items():
        print(f"{count} of {found.done} images: {said}")
    if found.failed is not None:
        what = f"{found.failures} of {total} images failed, the others are done"
        raise IncompleteError(what, found.failed, "mend these images, or leave them out, and run again")
