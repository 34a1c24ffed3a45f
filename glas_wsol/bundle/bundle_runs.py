# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Builds the ``monai.bundle run`` commands behind the short commands ``train`` and ``evaluate``."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import monai.bundle
from fire.parser import DefaultParseValue

from glas_wsol.bundle.command_line import refuse_unknown
from glas_wsol.bundle.methods import find, find_methods
from glas_wsol.bundle.next_steps import read_start
from glas_wsol.bundle.overrides import load, merged
from glas_wsol.errors import ConfigError, GlasWsolError, OutputError, WeightsError
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.shipped_bundles import bundle_folder, bundle_of, is_shipped

__all__ = ["BundleRun", "plan_evaluation", "plan_learning", "plan_training"]

_RECIPE = ("configs/data/light.json", "configs/trunks/efficientnet_lite0.json")  # of train.json, for other methods
_ONLY_TRAINING = ("multi_gpu_train.json", "mlflow.json")  # overlays that an evaluation has no use for

_OF_CARD = ("trunk", "scale", "short_side", "seed", "passes", "fold", "fold_seed", "stain", "fill_holes", "drop_specks")


@dataclass(frozen=True)
class BundleRun:
    """A run of a bundle, ready to be made.

    Attributes:
        files: config files, merged from left to right.
    """

    files: Sequence[Path]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _words(self) -> list[str]:
        files = [str(file) for file in self.files]
        given = {"config_file": files[0] if len(files) == 1 else files, **self.settings}
        return ["run", *(word for name, value in given.items() for word in (f"--{name}", _literal(value)))]

    @property
    def command(self) -> str:
        """The same run as one would type it."""
        return " ".join(map(_quoted, ["python", "-m", "monai.bundle", *self._words]))

    def make(self) -> None:
        """Make the run, in this process; its GlasWsolErrors come without what MONAI wraps around them."""
        before = sys.argv
        sys.argv = [str(Path("monai", "bundle", "__main__.py")), *self._words]
        try:
            with warnings.catch_warnings():
                if all(map(is_shipped, self.files)):  # MONAI warns that a config may run code
                    warnings.filterwarnings("ignore", message="parsing config_file")
                monai.bundle.run(config_file=[str(file) for file in self.files], **self.settings)
        except Exception as error:
            own = GlasWsolError.behind(error)
            if own is None or "Traceback" in own.what:  # a loader's worker sends its traceback as text
                raise
            raise own from None
        finally:
            sys.argv = before


def _literal(value: Any) -> str:
    """A value as MONAI's command line takes it: a path that it would read as a number or a list in quotes."""
    return repr(value) if isinstance(value, str) and DefaultParseValue(value) != value else str(value)


def _quoted(word: str) -> str:
    """A word as one would type it: a list of names in double quotes."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def plan_training(
    dataset_dir: str,
    output: str,
    bundle: str = "glas",
    method: str | None = None,
    recipe: str = "recommended",
    overlays: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> BundleRun:
    """A training: the bundle's ``train.json``, and what makes it another recipe and method.

    Args:
        dataset_dir: the data, or the word ``phantom``.
        bundle: name or folder.
        method: of the tables; None is the recipe's own.
        recipe: ``"recommended"`` or ``"paper"``.
        overlays: config files merged after the recipe, before the method's.
        settings: further ids with their values, as typed.

    Raises:
        ConfigError: if one of them does not exist.
    """
    if dataset_dir == "phantom" and Path(dataset_dir).exists():
        what = "phantom is the word for synthetic data, and a file or folder of that name is here"
        raise ConfigError(what, Path(dataset_dir).absolute(), "give ./phantom for the folder, or rename it")
    folder = bundle_folder(bundle).absolute()
    configs = folder / "configs"
    files = [configs / "train.json"]
    if method is not None or recipe == "paper":
        files += [configs / "paper.json", *(find(one, folder) for one in _RECIPE if recipe == "recommended")]
    files += [find(one, folder) for one in overlays]
    if method is not None:
        chosen = next(
            one
            for one in find_methods([method], folder, "--method")
            if method in (one.name, str(one.overlay), one.overlay.name)
        )
        if chosen.explains:
            what = f"{method} explains the network of {chosen.explains} and has no training of its own"
            raise ConfigError(
                what, "--method", f"give --method {chosen.explains}, or compare them with the command study"
            )
        files.append(chosen.overlay)
    return _checked(files, {"bundle_root": str(folder), "dataset_dir": dataset_dir, "output_dir": output}, settings)


def plan_evaluation(
    output: str,
    split: str = "valid",
    dataset_dir: str | None = None,
    bundle: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> BundleRun:
    """The evaluation of a training: its own configs and settings, then the bundle's ``evaluate.json``.

    Args:
        output: folder of the training, which receives the results.
        dataset_dir: the data; None: those of the training.
        bundle: name or folder; None: that of the training.
        settings: further ids with their values, as typed.

    Raises:
        ConfigError: if a setting does not exist, or it is not known how the training was started.
        WeightsError: if no model is there.
    """
    folder = Path(output)
    record = read_start(folder)
    given = record.get("settings", {})
    checkpoint = Path(str(given.get("ckpt_dir", folder / "models"))) / "model.pt"
    if not checkpoint.is_file():
        raise WeightsError("no trained model", checkpoint, "train first: python -m glas_wsol train DATA --output OUT")
    if record and bundle is None:
        files = [Path(file) for file in record["config_files"] if Path(file).name not in _ONLY_TRAINING]
    else:
        card = model_card(str(checkpoint))
        chosen = bundle_of(card.get("classes")) if bundle is None else bundle_folder(bundle)
        if chosen is None or (dataset_dir is None and "dataset_dir" not in given):
            raise ConfigError("how this training was started is not known", folder, "give --data DATA and --bundle DIR")
        files = [chosen.absolute() / "configs" / "train.json"]
        given = {"bundle_root": str(chosen.absolute())} | {k: card[k] for k in _OF_CARD if k in card} | given
    if dataset_dir is not None:
        given["dataset_dir"] = dataset_dir
    own = {name: "$None" if value is None else value for name, value in given.items()}  # MONAI leaves out a None
    files.append(files[0].parent / "evaluate.json")
    return _checked(files, {**own, "output_dir": output, "split": split}, settings)


def plan_learning(
    dataset_dir: str,
    model: str | Path,
    corrections: str,
    output: str,
    settings: Mapping[str, str] | None = None,
) -> BundleRun:
    """Learning from corrections: ``train.json`` with ``correct.json`` on it, by the settings of the first model.

    The first model is copied into the folder of the run, which then stands alone.

    Args:
        dataset_dir: the data that the first model was trained on.
        model: its weights' file, with ``model.json`` beside it.
        corrections: folder of the corrected masks.
        output: folder of the run.
        settings: further ids with their values, as typed.

    Raises:
        ConfigError: if a setting does not exist, or the model cannot be learnt from.
        OutputError: if another first model is in the folder.
        WeightsError: if nothing says what the model is.
    """
    card, path = model_card(str(model)), Path(model)
    folder = bundle_of(card.get("classes"))
    if folder is None or "network" not in card or path.suffix != ".pt":
        raise WeightsError(
            "nothing says what this model is", path, "name a model.pt that train wrote, with its model.json"
        )
    if card.get("method") == "corrected":
        fix = "name the model that it was learnt from, with all corrections in one folder"
        raise ConfigError("this model has learnt from corrections already", path, fix)
    configs = folder.absolute() / "configs"
    own = {name: card[name] for name in _OF_CARD if name in card and name != "passes"}
    own = {name: "$None" if value is None else value for name, value in own.items()}  # MONAI leaves out a None
    own |= {"bundle_root": str(folder.absolute()), "dataset_dir": dataset_dir, "output_dir": output}
    run = _checked((configs / "train.json", configs / "correct.json"), {**own, "corrections": corrections}, settings)
    _keep(path, Path(output) / "first_model" / "model.pt")
    return run


def _keep(model: Path, kept: Path) -> None:
    """Copy a model and its description, unless they are there."""
    if kept.is_file():
        if sha256_of(kept) != sha256_of(model):
            raise OutputError("another first model is here", kept, "choose another output_dir, or name that model")
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".json", ".pt"):  # the weights last: where they are, the copy is whole
            with atomic_write(kept.with_suffix(suffix)) as file:
                file.write(model.with_suffix(suffix).read_bytes())
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", kept, "choose another folder") from error


def _checked(files: Sequence[Path], own: Mapping[str, Any], typed: Mapping[str, str] | None) -> BundleRun:
    for file in files:
        load(file)
    more = {name: DefaultParseValue(text) for name, text in (typed or {}).items()}
    refuse_unknown(merged(files, {}), more, "command line")
    return BundleRun(tuple(files), {**own, **more})
