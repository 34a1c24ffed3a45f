# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``predict``: run a trained model on one's own images, through the package's own ``inference.json``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glas_wsol.commands import add_with_settings

if TYPE_CHECKING:
    from glas_wsol.bundle.inference_run import Results

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _predict,
        "predict",
        "localize your own images and slides with a trained model",
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
    text = "images, slides, folders of them, CSV tables with a column image, or 'samples': tiles of the package"
    add("images", nargs="+", metavar="IMAGES", help=text)
    text = "output folder of a training, model.pt with its model.json, or exported bundle; several are an ensemble"
    add("--model", nargs="+", default=["glas"], metavar="MODEL", help=text + " (default: the model in the bundle)")
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
    text = "processes, each at a slide or at a part of the tiles (default: 1; with --dask ADDRESS all workers)"
    add("--jobs", type=int, metavar="N", help=text)
    text = "on dask workers: a scheduler's address, a YAML file of dask-jobqueue, or 'local' (docs/cluster.md)"
    add("--dask", metavar="WHERE", help=text)
    add(
        "--shard",
        metavar="I/N",
        help="only the Ith of N parts, for array jobs; the same command without it ends the run",
    )
    add("--cell", type=int, metavar="PX", help="side of a slide's cells (default: 2048; less needs less memory)")
    add("--no-overlays", dest="overlays", action="store_false", default=None, help="draw no overlays")
    add("--undecidable", action="store_true", default=None, help="outline the undecidable region in GeoJSON too")
    add("--anew", dest="resume", action="store_false", default=None, help="process finished images again")


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    no_settings = ("images", "model", "output", "bundle", "report", "jobs", "dask", "shard")
    found = {name: value for name, value in vars(given).items() if name not in no_settings and value is not None}
    if len(found.get("mpp", ())) == 1:
        (found["mpp"],) = found["mpp"]
    return found


def _predict(given: argparse.Namespace, more: dict[str, str]) -> None:
    from contextlib import ExitStack
    from dataclasses import replace

    from fire.parser import DefaultParseValue

    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.inference_run import Results, plan_inference
    from glas_wsol.cohorts.slide_run import failed_table, plan_slides, run_slides, start_failures, summary
    from glas_wsol.cohorts.tile_batches import TileRun, end_tiles, run_tiles, take_in
    from glas_wsol.data import images_datalist
    from glas_wsol.data.slide_list import split_slides
    from glas_wsol.errors import ConfigError, IncompleteError, count
    from glas_wsol.report import write_report
    from glas_wsol.utils.shipped_bundles import sample_table
    from glas_wsol.workers.dask_workers import dask_cluster

    install_excepthook()
    settings = _settings(given) | {name: DefaultParseValue(text) for name, text in more.items()}
    recursive, output, shard = bool(settings.get("recursive", False)), Path(given.output), _shard(given.shard)
    if given.jobs is not None and given.jobs < 1:
        raise ConfigError(f"{given.jobs} jobs", "--jobs", "give 1 or more")
    if given.dask and shard:
        raise ConfigError("--shard is for array jobs, which need no dask", "--dask", "give one of them")
    jobs = 1 if given.dask else given.jobs or 1  # processes of this machine
    images = [str(sample_table()) if one == "samples" and not Path(one).exists() else one for one in given.images]
    slides, tiles = split_slides(images, recursive, given.output)
    only = {name: settings.pop(name) for name in ("cell", "halo") if name in settings and slides}
    only |= {"bundle": given.bundle} if given.bundle else {}
    plan = plan_slides(slides, given.model, output, settings | only, jobs, shard) if slides else None
    found, results = Results(0, 0), []
    gpu = given.dask is not None and str(settings.get("device")).startswith("cuda")  # on the workers, none here
    # refused before the tiles, and other processes, are begun
    model = replace(plan, load={**plan.load, **({"device": "cpu"} if gpu else {})}).loaded() if plan else None
    with ExitStack() as stack:
        cluster = stack.enter_context(dask_cluster(given.dask, given.jobs, gpu, output)) if given.dask else None
        if tiles or not slides:
            place = output if shard is None else TileRun.folder(output, *shard)
            run = plan_inference(images, given.model, place, given.bundle, settings, tiles or None)
            several = shard or jobs > 1 or cluster
            items = images_datalist(run.settings["dataset_dir"], recursive, output) if several else []
            batches = TileRun(tuple(items), tuple(given.model), output, given.bundle, settings)
            if shard:
                found = batches.make(place, batches.part(*shard))
            else:
                print(f"this is: {run.command}", flush=True)
                if several:
                    run_tiles(batches, len(cluster.workers()) if cluster else jobs, cluster)
                take_in(output)
                found = end_tiles(run, cluster)
        else:
            start_failures(failed_table(output, shard))
        if plan:
            results = run_slides(plan, model, executor=cluster)
    if shard:
        print(f"part {shard[0]} of {shard[1]} is done; the same command without --shard ends the run")
    if given.report and not shard and (found.done or any(one.failure is None for one in results)):
        page = write_report(given.output, progress=True)
        print(f"open {page}")
    if tiles or not slides:
        _say_tiles(found, given.output)
    if slides:
        print(summary(results, Path(given.output)))
    total = found.done + found.failures + len(results)
    failures = found.failures + sum(one.failure is not None for one in results)
    if failures:
        what = f"{failures} of {count(total, 'image')} failed, the others are done"
        fix = "repair these images, or leave them out, and run again"
        raise IncompleteError(what, found.failed or failed_table(output, shard), fix)


def _shard(text: str | None) -> tuple[int, int] | None:
    from glas_wsol.errors import ConfigError

    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"{text!r} is no part of a cohort", "--shard", "give which part and of how many, as 3/20")
    return int(number), int(count)


def _say_tiles(found: Results, output: str) -> None:
    from glas_wsol.errors import count
    from glas_wsol.results.how_to_read import UNLIKE

    total, blank = found.done + found.failures, found.done - found.evidence
    unlike = f"{found.unlike} are {UNLIKE}" if found.unlike is not None else f"whether any are {UNLIKE} is not known"
    done = f"{found.done} of {count(total, 'image is', 'images are')} done"
    print(f"{done} ({blank} show no evidence; {unlike}), in {output}")
    for said, number in found.pixel_sizes.items():
        print(f"{number} of {count(found.done, 'image')}: {said}")
