# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Merges config files and command-line settings as MONAI and Fire merge them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from yaml import YAMLError

from glas_wsol.errors import ConfigError

__all__ = ["behind", "flatten", "load", "merged", "parse_overrides", "split_overrides"]

_NO_SETTINGS = ("args_file", "final_id", "init_id", "logging_file", "meta_file", "run_id", "tracking", "workflow_type")
_WORDS = {"true": "True", "false": "False", "null": "$None", "None": "$None"}  # as JSON and the documents spell them


def split_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and the settings among them: what its parser does not know, and all after ``--``."""
    own, rest = list(arguments), []
    if "--" in own:
        cut = own.index("--")
        own, rest = own[:cut], own[cut + 1 :]
    position = 0
    while position < len(own):
        name = own[position].partition("=")[0]
        if not re.match(r"--?[A-Za-z_]", name) or name in parser._option_string_actions:
            position += 1
            continue
        width = 1 if "=" in own[position] else 2
        rest += own[position : position + width]
        del own[position : position + width]
    return own, rest


def parse_overrides(arguments: Sequence[str], instead: Mapping[str, str]) -> dict[str, str]:
    """Settings of the config, as text; ``true``, ``false`` and ``null`` become what MONAI's command line takes.

    Args:
        arguments: ``--id value`` or ``--id=value``, any number of times.
        instead: ids that may not be given so, and what to do instead.

    Raises:
        ConfigError: if they are of another form, or are given otherwise.

    Returns:
        The texts by id; ``None`` and ``null`` as the expression that MONAI reads as no value.
    """
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not re.match(r"--?[A-Za-z_]", name):
            raise ConfigError(f"{name!r} is no setting", "command line", "give --id value")
        if not equals:
            if not rest or re.match(r"--?[A-Za-z_]", rest[0]):
                raise ConfigError(f"{name} has no value", "command line", f"give {name} VALUE")
            value = rest.pop(0)
        identifier = name.lstrip("-").replace("-", "_").replace("::", "#")
        if identifier in instead:
            raise ConfigError(f"--{identifier} is not given here", "command line", instead[identifier])
        if identifier in _NO_SETTINGS:
            raise ConfigError(f"--{identifier} is no setting of the bundle", "command line", "leave it out")
        overrides[identifier] = _WORDS.get(value, value)
    return overrides


def load(file: Path) -> dict[str, Any]:
    """One config file, unmerged; a ConfigError if it cannot be read."""
    try:
        config = ConfigParser.load_config_file(str(file))
    except (OSError, ValueError, RecursionError, YAMLError) as error:
        raise ConfigError(f"the config cannot be read ({error})", file, "correct this file") from error
    if not isinstance(config, dict):
        raise ConfigError("the config holds no settings", file, "correct this file")
    return config


def merged(files: Sequence[Path], overrides: Mapping[str, str], **settings: Any) -> ConfigParser:
    """The files from left to right, then the overrides, then what the study sets.

    Raises:
        ConfigError: if a file sets something below a setting that is not there.
    """
    parser = ConfigParser()
    try:
        parser.read_config([str(file) for file in files])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        where = ", ".join(file.name for file in files)
        raise ConfigError(f"these configs do not fit together ({error})", where, "correct them") from error
    values = {name: DefaultParseValue(text) for name, text in overrides.items()}
    # MONAI leaves out a None of the command line
    parser.update({name: value for name, value in values.items() if value is not None} | settings)
    return parser


def behind(parser: ConfigParser, identifier: str) -> dict[str, Any]:
    """All settings that an id depends on, by id. Equal dictionaries make equal components."""
    found: dict[str, Any] = {}
    queue = [identifier]
    while queue:
        name = queue.pop()
        if name not in found:
            found[name] = parser[name]
            queue += ReferenceResolver.find_refs_in_config(parser[name], name)
    return found


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a config by their ids; lists of plain values are leaves, descriptions (``_desc_``) are left out."""
    parts: Iterator[tuple[Any, Any]] | None = None
    if isinstance(config, Mapping) and config:
        parts = ((key, value) for key, value in config.items() if key != "_desc_")
    elif isinstance(config, list) and any(isinstance(value, (Mapping, list)) for value in config):
        parts = iter(enumerate(config))
    if parts is None:
        yield prefix, config
        return
    for key, value in parts:
        yield from flatten(value, f"{prefix}#{key}" if prefix else str(key))
