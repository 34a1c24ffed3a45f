# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``study``: train and evaluate methods for several seeds and folds."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from glas_wsol.commands import add_with_settings

__all__ = ["INSTEAD", "register"]

INSTEAD = {
    "output_dir": "give the study's folder",
    "ckpt_dir": "give the study's folder",
    "checkpoint": "leave it out: every run evaluates its own model",
    "dataset_dir": "use --dataset_dir",
    "seed": "use --seeds",
    "fold": "use --folds",
    "split": "use --split",
    "method": "use --methods",
    "resume": "leave it out: a study always resumes",
    "rows": "use --methods",
    "config_file": "use --bundle, --overlays and --methods",
}


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _study,
        "study",
        "train and evaluate methods of the tables, for several seeds and folds; run it again to go on",
        usage="OUT",
        config="the bundle, for every run",
        example="--epochs 20 --batch_size 4",
        typed={"output_dir": "OUT"},
        instead=INSTEAD,
    )
    add("output", metavar="OUT", type=Path, help="the study's folder; a run is in OUT/METHOD/FOLD_seed_SEED")
    add("--bundle", default="glas", metavar="BUNDLE", help="glas (default), cub, or a bundle's folder")
    add("--overlays", nargs="*", default=[], metavar="FILE", help="recipe and trunk; none: the bundle's own")
    add(
        "--methods", nargs="+", default=["all"], metavar="METHOD", help="all, names in configs/methods, or own overlays"
    )
    add("--seeds", nargs="+", type=_seed, default=[0], metavar="SEED", help="one training each (default: 0)")
    fold = "paper, patient-0 to -4, stratified-0 to -4; patient or stratified: all five (default: the config's own)"
    add("--folds", nargs="+", default=[], metavar="FOLD", help=fold)
    add("--split", default="valid", choices=["train", "valid", "test"], help="what is evaluated (default: valid)")
    add("--dataset_dir", help="the data (default: the bundle's own, the phantom)")
    add("--jobs", type=int, metavar="N", help="runs at a time (default: 1; with --dask ADDRESS all its workers)")
    text = "on dask workers: a scheduler's address, a YAML file of dask-jobqueue, or 'local' (docs/cluster.md)"
    add("--dask", metavar="WHERE", help=text)
    add("--replace", action="store_true", help="repeat runs that were made with other settings")
    add("--dry-run", action="store_true", help="print all runs and their commands, and write nothing")


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def _study(given: Any, overrides: dict[str, str]) -> None:
    from glas_wsol.errors import ConfigError
    from glas_wsol.experiments.study import Request, run_study
    from glas_wsol.experiments.study.dask_children import DaskChildren
    from glas_wsol.utils.shipped_bundles import bundle_folder
    from glas_wsol.workers.dask_workers import dask_cluster

    how = {name: vars(given).pop(name) for name in ("replace", "dry_run")}
    jobs, where = vars(given).pop("jobs"), vars(given).pop("dask")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"{jobs} jobs", "--jobs", "give 1 or more")
    gpu = str(overrides.get("device")).startswith("cuda")
    request = Request(**{**vars(given), "bundle": bundle_folder(given.bundle)}, overrides=overrides)
    try:
        with _terminated_as_interrupted(), ExitStack() as stack:
            if where and not how["dry_run"]:
                cluster = stack.enter_context(dask_cluster(where, jobs, gpu, Path(request.output).expanduser()))
                how["children"] = lambda variables, inherited: DaskChildren(cluster)
                jobs = jobs or len(cluster.workers())
            run_study(request, jobs=jobs or 1, **how)
    except KeyboardInterrupt:
        print("interrupted: run the same command again; trainings go on after their last whole epoch", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A polite request to end (a batch system's, a closed terminal's) ends the children too, as Ctrl-C does."""

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
