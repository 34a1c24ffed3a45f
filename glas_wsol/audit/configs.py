# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Config files, and folders of them: every place that could run what is not on the lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ReferenceResolver

from glas_wsol.audit.expressions import expression_faults, reference_fault, references
from glas_wsol.audit.rules import target_fault, text_fault
from glas_wsol.errors import ConfigError
from glas_wsol.version import PACKAGE

__all__ = ["Finding", "audit", "audit_config", "audit_content", "plain_data_faults"]

SUFFIXES = (".json", ".yaml", ".yml")
_CODE = (".py", ".pyc", ".pyd", ".so", ".pth", ".dll", ".dylib", ".pyx", ".ipynb")
_LARGEST, _MOST = 10_000_000, 200_000  # bytes of a file, values in it
_LOCATING = ("reader", "writer")  # arguments of MONAI's components that import what they name


@dataclass(frozen=True)
class Finding:
    """A place in a config that could run something unknown.

    Attributes:
        file: where it is.
        where: the id of the setting, ``a#b``; empty where it is the whole file.
        what: what is there, and why it is named.
    """

    file: str
    where: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.where}" if self.where else self.file
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{place}: {self.what}")


def audit(paths: Sequence[str | Path]) -> list[Finding]:
    """Look through configs without running anything of them.

    Args:
        paths: config files, and folders: of those every config below, and every file of code that is not this package's
            own (an exported bundle carries a copy).

    Raises:
        ConfigError: if there is no such file or folder, or no config in a folder.
    """
    found: list[Finding] = []
    for path in map(Path, paths):
        if not path.exists():
            raise ConfigError("no such config", path, "name a .json or .yaml file, or a bundle's folder")
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
            files = [file for file in files if file.parent.name != "models"]  # what a model is, not a config
            if not files:
                raise ConfigError("no config in this folder", path, "name a .json or .yaml file, or a bundle's folder")
            found += [finding for file in files for finding in audit_config(file)]
            found += _code(path)
        else:
            found += audit_config(path)
    return found


def audit_config(path: str | Path) -> list[Finding]:
    """What a config file could run that is not known to be harmless.

    Args:
        path: JSON or YAML.
    """
    path = Path(path)

    def whole(what: str) -> list[Finding]:
        return [Finding(str(path), "", what)]

    if path.suffix.lower() not in SUFFIXES:
        return whole("is neither JSON nor YAML")
    try:
        if path.stat().st_size > _LARGEST:
            return whole("is too large for a config")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        return whole(f"cannot be read as a config ({' '.join(str(error).split())[:100] or type(error).__name__})")
    return audit_content(content, str(path))


def audit_content(content: Any, file: str) -> list[Finding]:
    """What a config could run that is not known to be harmless.

    Args:
        content: as read from a file: mappings, lists, texts, numbers.
        file: for the findings.
    """
    found: list[Finding] = []
    seen = 0
    try:
        for identifier, what in _Walk().value(content, ""):
            seen += 1
            if what:
                found.append(Finding(file, identifier.replace("::", "#"), what))
            if seen > _MOST:
                found.append(Finding(file, "", "has too many values for a config"))
                break
    except RecursionError:
        found.append(Finding(file, "", "is nested too deeply for a config"))
    return found


class _Walk:
    """Yields every place with what is wrong there, or nothing."""

    def value(self, value: Any, identifier: str) -> Iterator[tuple[str, str]]:
        yield identifier, ""
        if isinstance(value, Mapping):
            for key, part in value.items():
                below = ReferenceResolver.normalize_id(str(key)).lstrip("+")
                below = f"{identifier}::{below}" if identifier else below
                yield from self.entry(below, part)
        elif isinstance(value, (list, tuple)):
            for number, part in enumerate(value):
                yield from self.value(part, f"{identifier}::{number}" if identifier else str(number))
        elif isinstance(value, str):
            for what in self.text(value, identifier):
                yield identifier, what

    def entry(self, identifier: str, value: Any) -> Iterator[tuple[str, str]]:
        # a key may be a path: "network_def#_target_"
        last = identifier.rpartition("::")[2]
        if last == "_target_":
            yield identifier, _target(value)
            return
        if last == "_mode_" and value not in ("default", "callable"):
            yield identifier, f"{_short(value)} is no mode but default or callable"
            return
        if last == "_debug_":
            yield identifier, "starts the debugger"
            return
        if last in _LOCATING and isinstance(value, str) and ("." in value or value[:1] in ("$", "@", "%")):
            yield identifier, _target(value)
            return
        yield from self.value(value, identifier)

    def text(self, text: str, identifier: str) -> Iterator[str]:
        absolute = ConfigParser.resolve_relative_ids(identifier, text)
        if absolute.startswith("$"):
            in_imports = identifier.startswith("imports::") and identifier.count("::") == 1
            for fault in expression_faults(absolute[1:], in_imports):
                yield f"{_short(text)} {fault}"
        elif absolute.startswith("%"):
            path, target = ConfigParser.split_path_id(absolute[1:])
            fault = "takes its content from another file" if path else reference_fault(target)
            if fault:
                yield f"{_short(text)} {fault}"
        elif absolute.startswith("@") and references(absolute) == [ReferenceResolver.normalize_id(absolute)[1:]]:
            fault = reference_fault(ReferenceResolver.normalize_id(absolute)[1:])
            if fault:
                yield f"{_short(text)} {fault}"
        elif fault := text_fault(text):
            yield f"{_short(text)} {fault}"


def _target(value: Any) -> str:
    if not isinstance(value, str) or value[:1] in ("$", "@", "%"):
        return f"{_short(value)} is not the name of a component, but stands for one"
    fault = target_fault(value)
    return f"{_short(value)} {fault}" if fault else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _code(folder: Path) -> Iterator[Finding]:
    """Files of code in a bundle that are not this package's own."""
    own = PACKAGE
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _CODE or not path.is_file():
            continue
        parts = path.relative_to(folder).parts
        twin = own.joinpath(*parts[1:]) if parts[0] == "glas_wsol" else None
        if twin is None or not twin.is_file() or twin.read_bytes() != path.read_bytes():
            yield Finding(str(path), "", "is code that this package does not know, and a run may import it")


def plain_data_faults(value: Any, identifier: str = "") -> list[str]:
    """What of some values would be more than data once it is written into a config.

    Args:
        value: mappings, lists, texts, numbers.
        identifier: of the value, for the clauses.

    Returns:
        A short clause each.
    """
    if isinstance(value, Mapping):
        faults = [f"{identifier}: the key {_short(key)}" for key in value if _active(key)]
        return faults + [f for key, part in value.items() for f in plain_data_faults(part, f"{identifier}#{key}")]
    if isinstance(value, (list, tuple)):
        return [
            fault for number, part in enumerate(value) for fault in plain_data_faults(part, f"{identifier}#{number}")
        ]
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return [f"{identifier}: {_short(value)}"]
    return []


def _active(key: Any) -> bool:
    text = str(key)
    return "#" in text or "::" in text or (text.startswith("_") and text.endswith("_"))
