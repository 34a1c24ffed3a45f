# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Reads and checks the data and initial weights of a study once, and identifies them by digest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from glas_wsol.bundle.overrides import behind, merged
from glas_wsol.data.phantom.folder import MANIFEST as PHANTOM
from glas_wsol.data.splits import Datalist
from glas_wsol.errors import ConfigError
from glas_wsol.networks.trunks import build_trunk
from glas_wsol.utils.configs import parsed

__all__ = ["Images"]


class Images:
    """What the configs of a study's methods read.

    Args:
        output: the study's folder; a phantom is written into it, one for all runs.
        dataset_dir: the user's; None: the config's.
        make_phantom: whether a phantom may be written. If not, nothing is known of one that is not there.
    """

    def __init__(
        self, output: Path, dataset_dir: str | None, folds: Sequence[str], split: str, make_phantom: bool
    ) -> None:
        self.output, self.folds, self.split, self.make_phantom = output, folds, split, make_phantom
        self.given = {} if dataset_dir is None else {"dataset_dir": dataset_dir}
        self._read: dict[str, Any] = {}

    def folder(self, files: Sequence[Path], overrides: Mapping[str, str]) -> Path:
        """Where a method's data are.

        Raises:
            ConfigError: if nothing is there.
            OutputError: if another phantom is in the study's folder already.
        """
        # The bundle keeps its phantom in its output folder: given the study's, it makes one for all runs.
        parser = merged(files, overrides, output_dir=str(self.output), **self.given)
        there = (self.output / "phantom" / PHANTOM).is_file()
        if parsed(parser, "dataset_dir") == "phantom" and not there and not self.make_phantom:
            return self.output / "phantom"
        return Path(self._once(parser, "datalist#dataset_dir")()).expanduser().absolute()

    def digests(self, files: Sequence[Path], overrides: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Digests of names and labels, by fold, then by ``train``, ``valid`` and ``evaluated``.

        Returns:
            Empty digests of a phantom that is yet to be made.

        Raises:
            ConfigError: if two folds are the same, as where the data have their own validation split.
            DatalistError: if the data are faulty.
            SplitError: if the data cannot give a fold or the split.
        """
        folder = self.folder(files, overrides)
        found: dict[str, dict[str, str]] = {}
        for fold in self.folds:
            found[fold] = {}
            if not folder.exists():
                continue
            datalist: Datalist = self._once(merged(files, overrides, dataset_dir=str(folder), fold=fold), "datalist")
            digests = {"train": datalist.digest("train"), "valid": datalist.digest("valid")}
            same = [other for other in found if all(found[other].get(k) == v for k, v in digests.items())]
            if same:
                what = f"folds {same[0]} and {fold} have the same images: the data have their own validation split"
                raise ConfigError(what, folder, "give one fold")
            found[fold] = {**digests, "evaluated": datalist.digest(self.split)}
        return found

    def weights(self, parser: ConfigParser) -> str | None:
        """SHA-256 of a trunk's first weights, which must fit; empty for random weights, None without a trunk."""
        trunk, weights = parsed(parser, "trunk"), parsed(parser, "weights")
        if trunk == "none":
            return None
        key = f"trunk {trunk} of {weights}"
        if key not in self._read:
            self._read[key] = build_trunk(trunk, weights).weights_sha256
        return self._read[key]

    def _once(self, parser: ConfigParser, identifier: str) -> Any:
        key = json.dumps(behind(parser, identifier), sort_keys=True, default=str)
        if key not in self._read:
            self._read[key] = parsed(parser, identifier)
        return self._read[key]
