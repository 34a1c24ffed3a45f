# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The allow-lists: which components a config may name, and which names an expression may use.

A prefix alone proves nothing: ``torch.os.system`` begins like torch. So a name must begin like one of the list, and
what it leads to must have been made in a module of the list, too.
"""

from __future__ import annotations

import inspect
import pydoc
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

from monai.bundle import ComponentLocator

__all__ = ["ATTRIBUTES_REFUSED", "BUILTINS", "IMPORTS", "name_fault", "target_fault", "text_fault"]

_MONAI = (
    *("data", "engines", "handlers", "inferers", "losses", "metrics", "networks", "optimizers", "transforms"),
    "visualize",
)
_TARGETS = (
    "glas_wsol",
    *(f"monai.{name}" for name in _MONAI),
    *("torch.nn", "torch.optim", "torch.utils.data", "ignite.engine", "ignite.handlers", "ignite.metrics"),
)
"""Modules whose classes and functions, and those of modules below them, a config may call."""

_REFUSED = (
    *("monai.data.PersistentDataset", "monai.data.CacheNTransDataset", "monai.data.LMDBDataset"),  # unpickle a cache
    *("monai.data.GDSDataset", "monai.data.dataset.PersistentDataset", "monai.data.dataset.CacheNTransDataset"),
    *("monai.data.dataset.LMDBDataset", "monai.data.dataset.GDSDataset"),
    "torch.utils.data.datapipes",
    *(f"glas_wsol.{name}" for name in ("__main__", "audit", "commands", "data.archives", "export", "study", "tables")),
)
"""What is refused although it is below one of them."""

_NUMPY = {"float16", "float32", "float64", "uint8", "uint16", "int8", "int16", "int32", "int64", "bool_", "array"}
_NUMPY |= {"nan", "inf", "pi", "e", "zeros", "ones", "arange", "linspace", "asarray", "sqrt", "log", "exp", "eye"}
_TORCH = {"float", "float16", "bfloat16", "float32", "float64", "double", "half", "uint8", "int32", "int64", "long"}
_TORCH |= {"bool", "device", "channels_last", "contiguous_format", "preserve_format", "tensor", "zeros", "ones", "eye"}
_TORCH |= {"arange", "linspace", "cuda.is_available", "cuda.device_count", "softmax", "sigmoid", "argmax", "exp", "log"}
_NAMES = frozenset(
    {f"{short}.{name}" for short in ("np", "numpy") for name in _NUMPY}
    | {f"torch.{name}" for name in _TORCH}
    | {"monai.utils.set_determinism", "monai.utils.path_to_sqlite_uri"}
)
"""Names that an expression may use beside those below the modules of the list."""

IMPORTS = frozenset({"sys", "torch", "numpy", "monai", "ignite", "glas_wsol"})
"""What a config's ``imports`` may have; ``sys`` only for the search path."""

BUILTINS = frozenset(
    {"abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "len", "list", "max", "min", "range", "round"}
    | {"set", "sorted", "str", "sum", "tuple", "zip", "getattr"}
)
"""Python's own functions that an expression may call; ``getattr`` only with a name spelt out."""

ATTRIBUTES_REFUSED = frozenset(
    (set(sys.stdlib_module_names) - {"copy", "select", "types", "operator", "profile", "trace", "code", "token"})
    # ways from a frame, a function or a generator to its surroundings
    | {"f_globals", "f_locals", "f_builtins", "f_back", "gi_frame", "gi_code", "cr_frame", "ag_frame", "tb_frame"}
    | {"func_globals", "mro", "format_map"}
    # what processes, files and loaders call their doors
    | {"system", "popen", "Popen", "run_cmd", "call", "check_call", "check_output", "spawnv", "execv", "execve", "fork"}
    | {"kill", "unlink", "rmdir", "rmtree", "remove_tree", "write_text", "write_bytes", "chmod", "symlink_to"}
    | {"hardlink_to", "hub", "loads", "load_library", "extractall", "load_module", "exec_module", "import_module"}
    | {"modules", "meta_path", "path_hooks", "settrace", "setprofile"}
)
"""Attributes that no expression needs, of whatever object."""


def _below(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _allowed(name: str) -> bool:
    return _below(name, _TARGETS) and not _below(name, _REFUSED)


@lru_cache(maxsize=1)
def _locator() -> ComponentLocator:
    import monai.engines
    import monai.handlers  # noqa: F401 - bare names are looked for among what is loaded

    return ComponentLocator()


@lru_cache(maxsize=4096)
def target_fault(target: str) -> str:
    """Why a config must not call this; empty if it may.

    Args:
        target: value of ``_target_``: a dotted name, or the bare name of one of MONAI's own.
    """
    if not all(part.isidentifier() for part in target.split(".")):
        return "is not the name of a component"
    if "." not in target:
        found = _locator().get_component_module_name(target)
        modules = [found] if isinstance(found, str) else list(found or [])
        if not modules:
            return "is none of MONAI's components"
        faults = [fault for module in modules if (fault := target_fault(f"{module}.{target}"))]
        return faults[0] if faults else ""
    found, fault = _found(target, "components")
    if fault:
        return fault
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return "is no class or function"
    return _home_fault(found)


def _found(name: str, known: str) -> tuple[Any, str]:
    """What a public name that begins like one of the list leads to, and why it leads nowhere."""
    if any(part.startswith("_") for part in name.split(".")):
        return None, "is a private name"
    if not _allowed(name):
        return None, f"is outside the list of known {known}"
    try:
        found = pydoc.locate(name)
    except Exception as error:  # whatever an import raises
        return None, f"cannot be imported ({type(error).__name__})"
    return found, "" if found is not None else "does not exist"


def _home_fault(found: Any) -> str:
    home = getattr(found, "__module__", None) or ""
    return "" if _allowed(home) else f"belongs to {home or 'nowhere known'}"


@lru_cache(maxsize=4096)
def name_fault(name: str) -> str:
    """Why an expression must not use this; empty if it may.

    Args:
        name: dotted, beginning with one of MONAI's global names: ``torch``, ``np``, ``numpy``, ``monai``, or an import.
    """
    if name in _NAMES:
        return ""
    found, fault = _found(name, "names")
    if fault:
        return fault
    if isinstance(found, ModuleType):
        return "is a whole module"
    return _home_fault(found) if inspect.isclass(found) or inspect.isroutine(found) else ""


def text_fault(text: str) -> str:
    """Why a plain text must not be in a config; empty if it may.

    Some components import what a text names, a reader's class for one.

    Args:
        text: a value that is no expression.
    """
    root, dot, rest = text.partition(".")
    dotted = dot and root.isidentifier() and all(part.isidentifier() for part in rest.split("."))
    if dotted and (root in sys.stdlib_module_names or root in ("posix", "nt")):
        return "names something of Python's own library"
    return ""
