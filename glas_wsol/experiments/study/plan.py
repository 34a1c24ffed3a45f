# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Plans all runs of a study: folders, commands and settings, checked before the first run starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from glas_wsol.bundle.command_line import refuse_unknown_ids
from glas_wsol.bundle.methods import MethodOverlay, find, find_methods
from glas_wsol.bundle.overrides import flatten, load, merged
from glas_wsol.data.splits import FOLDS, parse_fold
from glas_wsol.errors import ConfigError
from glas_wsol.experiments.study.image_sets import Images
from glas_wsol.utils.configs import parsed
from glas_wsol.utils.settings import Fingerprint, as_json
from glas_wsol.version import __version__

__all__ = ["Request", "Run", "plan"]

_NO_MATTER = ("output_dir", "dataset_dir", "bundle_root", "num_workers")  # where and how fast, not what
_UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Request:
    """What a study is to run.

    Attributes:
        overlays: config files between the bundle's own and the method's.
        methods: names, ``all``, or paths of overlays.
        folds: as the bundle's setting, or ``stratified`` or ``patient`` for all five of a kind; none: as the config
            says.
        dataset_dir: the data; None: the config's, which is the phantom.
        overrides: further settings of the bundle, by id, as typed.
    """

    output: str | Path
    bundle: str | Path = "bundles/glas_minmax_entropy"
    overlays: Sequence[str | Path] = ()
    methods: Sequence[str] = ("all",)
    seeds: Sequence[int] = (0,)
    folds: Sequence[str] = ()
    split: str = "valid"
    dataset_dir: str | None = None
    overrides: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        method: name of its overlay.
        commands: to be run one after the other.
        training: all that the model depends on, flat, JSON values.
        evaluation: all other settings that the results depend on.
        needs: name of the run whose model is evaluated; None where it is this run's own.
    """

    method: str
    fold: str
    seed: int
    folder: Path
    commands: tuple[tuple[str, ...], ...]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    needs: str | None = None

    @property
    def name(self) -> str:
        """Its folder, below the study's."""
        return f"{self.method}/{self.fold}_seed_{self.seed}"


def plan(request: Request, make_phantom: bool = True) -> list[Run]:
    """All runs in the order in which they are best made: every method of the first seed and fold, then of the next.

    A method that trains nothing (its trunk is ``none``) is run with seed 0 only, whatever seeds are given.

    Args:
        make_phantom: whether the synthetic data may be written, where they are wanted and not there. If not, what
            depends on them stays unchecked.

    Raises:
        ConfigError: if a file, method, setting or fold does not exist, or an override would undo what makes a method.
        DatalistError: if the data are faulty.
        OutputError: if the phantom's place holds something else.
        SplitError: if the data cannot give a fold or a split.
        WeightsError: if the trunk's weights do not fit.
    """
    bundle = find(request.bundle)
    evaluate = _config_of(bundle, "evaluate")
    base = [
        _config_of(bundle, "train"),
        _config_of(bundle, "paper"),
        *(find(overlay, bundle) for overlay in request.overlays),
    ]
    for file in base:
        load(file)  # a faulty file is named before anything is read together
    overrides = dict(request.overrides or {})
    folds = _folds_of(request.folds or [merged(base, overrides)["fold"]])
    output = Path(request.output).expanduser().absolute()
    images = Images(output, request.dataset_dir, folds, request.split, make_phantom)
    sources = []
    for method in find_methods(request.methods, bundle):
        _refuse_undoing(method, overrides)
        files = (*base, method.overlay)
        merged(files, {})  # or a faulty overlay would be taken for a faulty override
        refuse_unknown_ids(["bundle/__main__.py", "run", *_arguments(files, overrides)])
        parsed(merged(files, overrides), "settings").check()
        weights = images.weights(merged(files, overrides))
        folder, digests = images.folder(files, overrides), images.digests(files, overrides)
        sources.append(_Source(method, files, evaluate, overrides, request.split, folder, digests, weights))
    runs: dict[str, Run] = {}
    for seed in dict.fromkeys(request.seeds):
        for fold in folds:
            for source in sources:
                run = source.run(output, fold, seed if source.weights is not None else _UNTRAINED_SEED, runs)
                runs.setdefault(run.name, run)
    return list(runs.values())


@dataclass(frozen=True)
class _Source:
    """All that the runs of one method have in common."""

    method: MethodOverlay
    files: tuple[Path, ...]
    evaluate: Path
    overrides: Mapping[str, str]
    split: str
    dataset: Path
    images: Mapping[str, Mapping[str, str]]
    weights: str | None  # None: nothing is trained

    def run(self, output: Path, fold: str, seed: int, runs: Mapping[str, Run]) -> Run:
        """One run; ``runs`` has the one it explains already."""
        name = f"{fold}_seed_{seed}"
        folder = output / self.method.name / name
        source = runs[f"{self.method.explains}/{name}"] if self.method.explains else None
        training = _settings(merged(self.files, self.overrides, seed=seed, fold=fold))
        both = (*self.files, self.evaluate)
        evaluation = _differing(training, _settings(merged(both, self.overrides, seed=seed, fold=fold)))
        digests = self.images[fold]
        training |= {"glas_wsol": __version__, "weights' digest": self.weights}
        training |= {f"images of {split}": digests.get(split) for split in ("train", "valid")}
        evaluation |= {"split": self.split, "images evaluated": digests.get("evaluated")}
        training.pop("split", None)  # no matter which images are evaluated later

        given = {"dataset_dir": self.dataset, "output_dir": folder, "seed": seed, "fold": fold}
        train = _command(self.files, given, self.overrides)
        given["split"] = self.split
        if source:
            training[f"training of {source.method}"] = Fingerprint(source.training).digest()
            given["checkpoint"] = source.folder / "models" / "model.pt"
        evaluate = _command(both, given, self.overrides)
        commands = (evaluate,) if source else (train, evaluate)
        needs = source.name if source else None
        return Run(self.method.name, fold, seed, folder, commands, as_json(training), as_json(evaluation), needs)


def _config_of(bundle: Path, name: str) -> Path:
    file = bundle / "configs" / f"{name}.json"
    if not file.is_file():
        raise ConfigError(f"no configs/{name}.json in this bundle", bundle, "point --bundle at a bundle's folder")
    return file


def _folds_of(names: Sequence[str]) -> list[str]:
    whole = {kind: [f"{kind}-{index}" for index in range(FOLDS)] for kind in ("patient", "stratified")}
    folds = [fold for name in names for fold in whole.get(name, [name])]
    for fold in folds:
        parse_fold(fold)
    return list(dict.fromkeys(folds))


def _refuse_undoing(method: MethodOverlay, overrides: Mapping[str, str]) -> None:
    """An override wins over every file: one that a method's overlay sets would make it another method."""
    own = load(method.overlay)
    for name in overrides:
        if any(key == name or key.startswith(f"{name}#") for key in own):
            what = f"--{name} would undo what the method {method.name} sets"
            fix = "leave it out, or set it in a file for --overlays, where this method's own value wins"
            raise ConfigError(what, method.overlay, fix)


def _settings(parser: ConfigParser) -> dict[str, Any]:
    config = {key: value for key, value in parser.get().items() if key not in (*_NO_MATTER, ConfigParser.meta_key)}
    return dict(flatten(config))


def _differing(training: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    missing = object()
    changed = {key: value for key, value in evaluation.items() if training.get(key, missing) != value}
    return {f"evaluate.json: {key}": changed.get(key) for key in {**changed, **dict.fromkeys(training)}
            if key in changed or key not in evaluation}  # fmt: skip


def _arguments(files: Sequence[Path], overrides: Mapping[str, str]) -> list[str]:
    listed = json.dumps([str(file) for file in files], ensure_ascii=False)
    return ["--config_file", listed, *(f"--{k}={v}" for k, v in overrides.items())]


def _command(files: Sequence[Path], given: Mapping[str, Any], overrides: Mapping[str, str]) -> tuple[str, ...]:
    values = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    return (sys.executable, "-m", "monai.bundle", "run", *_arguments(files, overrides), *values)
