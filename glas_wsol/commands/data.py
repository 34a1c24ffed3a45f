# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``data`` and ``images``: check a data set and print its splits; list the images of one split."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""

    def reads_data(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        text = "GlaS or CUB folder, folder of class folders, or CSV table"
        command.add_argument("dataset", metavar="DATA", help=text)
        command.add_argument("--fold", default="paper", help="as the bundle's setting of that name")
        command.add_argument("--seed", type=int, default=0)
        return command

    data = reads_data("data", "check a data set and print its splits")
    data.set_defaults(command=_data, typed={"dataset_dir": "DATA"})
    images = reads_data("images", "list the images of one split in a CSV, for inference")
    images.add_argument("--split", default="test", choices=["train", "valid", "test"])
    images.add_argument("--output", required=True, help="CSV to write")
    images.set_defaults(command=_images, typed={"dataset_dir": "DATA", "output_dir": "--output"})


def _data(arguments: argparse.Namespace) -> None:
    from glas_wsol.data import load_datalist

    print(load_datalist(arguments.dataset, fold=arguments.fold, seed=arguments.seed, log=False).summary())


def _images(arguments: argparse.Namespace) -> None:
    from glas_wsol.data import load_datalist
    from glas_wsol.errors import count
    from glas_wsol.utils.csv_files import write_csv

    items = load_datalist(arguments.dataset, fold=arguments.fold, seed=arguments.seed).select(arguments.split)
    rows = [{"image": str(Path(item["image"]).resolve())} for item in items]
    write_csv(Path(arguments.output), rows, columns=("image",))
    print(f"{count(len(items), 'image')} of split {arguments.split!r} listed in {arguments.output}")
