# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Parses the command line of ``python -m monai.bundle run`` and refuses unknown config files and settings."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ConfigParser

from glas_wsol.data.files import is_file
from glas_wsol.errors import ConfigError
from glas_wsol.utils.configs import RENAMED, refuse_renamed

__all__ = ["SHIPPED_TARGET", "TRAINED", "refuse_unknown", "refuse_unknown_ids", "typed_run", "unknown_ids"]

TRAINED = "training_network_def"
"""In an exported bundle's ``train.json`` the network that a training makes; ``network_def`` is the shipped model."""

SHIPPED_TARGET = "glas_wsol.networks.build_network"


def refuse_unknown_ids(argv: Sequence[str]) -> None:
    """Refuse an override that MONAI would accept in silence and nothing would read.

    Args:
        argv: a command line, as in ``sys.argv``; any but ``python -m monai.bundle run ...`` passes.

    Raises:
        ConfigError: naming the nearest id that exists; or on a switch of MONAI's that cannot work here.
    """
    files, settings = typed_run(argv)
    if not files:
        return
    parser = ConfigParser()
    parser.read_config(files)
    options = dict(_options(argv[2:]))
    if options.get("tracking") == "mlflow" and "train" in parser:
        what = "MONAI's own settings for MLflow read the loss from items that no training here makes"
        raise ConfigError(what, "--tracking mlflow", "give --tracking and the bundle's configs/mlflow.json")
    for file in _tracking_files(options):
        parser.update({**ConfigParser.load_config_file(file).get("configs", {}), **parser.get()})
    refuse_unknown(parser, settings, "command line")
    typed = next((name for name in settings if name.split("#")[0].split("::")[0] == "network_def"), None)
    if TRAINED in parser and (typed or parser["network_def"].get("_target_") != SHIPPED_TARGET):
        what = "network_def is the model that this bundle ships, and no training takes it"
        raise ConfigError(what, typed or "network_def", f"set {TRAINED} instead")
    for name, value in settings.items():
        # MONAI leaves out a None and takes a null for a text: the setting would stay what it was
        if value in (None, "None", "null") and (name, value) != ("stain", "null"):
            fix = "name a folder or table" if name == "dataset_dir" else f"write --{name} '$None' for no value"
            raise ConfigError(f"--{name} {value} is not valid", "command line", fix)


def typed_run(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The config files and the settings of a command line; none of any but ``python -m monai.bundle run ...``."""
    if len(argv) < 2 or Path(argv[0]).parent.name != "bundle" or argv[1] not in ("run", "run_workflow"):
        return [], {}
    options: dict[str, Any] = dict(_options(argv[2:]))
    if "args_file" in options:
        options = {**ConfigParser.load_config_files(_literal(options["args_file"])), **options}
    files = _literal(options.get("config_file"))
    if isinstance(files, str):
        files = [files] if Path(files).is_file() else files.split(",")
    own = set(inspect.signature(monai.bundle.run).parameters)
    return list(files or ()), {name: value for name, value in options.items() if name not in own}


def refuse_unknown(parser: ConfigParser, ids: Iterable[str], where: object) -> None:
    """Refuse settings that a config does not have: a ConfigError names the nearest id that exists."""
    for identifier in unknown_ids(parser, list(ids)):
        refuse_renamed(identifier.removeprefix("+").replace("::", "#"), where)
        known = sorted(_ids(parser.get()))
        near = difflib.get_close_matches(identifier, known, n=1, cutoff=0.5)
        near = near or [name for name in known if "#" not in name]
        raise ConfigError(f"no setting named {identifier!r}", where, f"did you mean {' or '.join(near)}")


def _tracking_files(options: Mapping[str, Any]) -> list[str]:
    """The file that MONAI's switch ``tracking`` names; none where it names settings or is not given."""
    named = options.get("tracking")
    return [named] if isinstance(named, str) and is_file(Path(named)) else []


def unknown_ids(parser: ConfigParser, ids: Sequence[str]) -> list[str]:
    """Which ids, ``a#b`` or ``a::b``, neither exist in a config nor name a further argument of a component in it."""
    unknown = []
    for given in ids:
        identifier = given.removeprefix("+").replace("::", "#")
        parent, _, name = identifier.rpartition("#")
        try:
            component = parser.get(parent) if parent else None
            known = identifier in parser or (isinstance(component, Mapping) and _may_take(component, name))
        except (KeyError, ValueError, IndexError, TypeError):  # a path through something that has no such parts
            known = False
        if not known:
            unknown.append(given)
    return unknown


def _may_take(component: Mapping[str, Any], name: str) -> bool:
    """Whether a component may have an argument; none of the package's has one by a former name."""
    own = str(component.get("_target_")).startswith("glas_wsol.")
    return "_target_" in component and not (own and name in RENAMED)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for position, argument in enumerate(arguments):
        if re.match(r"--?[A-Za-z+_]", argument):  # Fire takes one dash too; a negative number is none
            name, equals, value = argument.lstrip("-").partition("=")
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            yield name.replace("-", "_"), value if equals else following


def _literal(text: Any) -> Any:
    return ast.literal_eval(text) if isinstance(text, str) and text.startswith(("[", "(")) else text


def _ids(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _ids(value, f"{prefix}{key}#")
