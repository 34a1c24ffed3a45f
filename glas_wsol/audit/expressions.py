# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Expressions of a config, read as Python reads them, and never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from monai.bundle import ReferenceResolver

from glas_wsol.audit.rules import ATTRIBUTES_REFUSED, BUILTINS, IMPORTS, name_fault

__all__ = ["expression_faults", "imported", "reference_fault", "references"]

_REFERENCES = "__local_refs"  # what MONAI calls the table of what is resolved
_GLOBALS = frozenset({"monai", "torch", "np", "numpy"})
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword),
    *(ast.Starred, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    *(ast.IfExp, ast.Lambda, ast.arguments, ast.arg, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.comprehension, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.JoinedStr),
    ast.FormattedValue,
)


def imported(text: str) -> ast.Import | ast.ImportFrom | None:
    """The import statement that MONAI takes an expression for, or None.

    Args:
        text: the expression without its ``$``.
    """
    try:
        first = next(ast.iter_child_nodes(ast.parse(text)), None)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return first if isinstance(first, (ast.Import, ast.ImportFrom)) else None


def references(text: str) -> list[str]:
    """The ids that a text refers to, with ``::`` between their parts.

    Args:
        text: an expression, or ``@id``.
    """
    found = ReferenceResolver.id_matcher.findall(ReferenceResolver.normalize_id(text))
    return [item.removeprefix(ReferenceResolver.ref) for item in found]


def reference_fault(identifier: str) -> str:
    """Why a reference is not allowed; empty if it is.

    Args:
        identifier: absolute, with ``::`` between its parts.
    """
    if identifier.split("::")[0] in ("", "imports"):
        return "refers to whole modules" if identifier else "refers to the whole config"
    return ""


def expression_faults(text: str, in_imports: bool = False) -> list[str]:
    """What of an expression is not known to be harmless.

    Args:
        text: the expression without its ``$``, with absolute references.
        in_imports: whether it is an entry of the config's ``imports``, where alone modules may be imported.

    Returns:
        A short clause each.
    """
    statement = imported(text)
    if statement is not None:
        return _import_faults(statement, in_imports)
    # exactly what MONAI makes of it before it is evaluated
    code = ReferenceResolver.normalize_id(text)
    for item in sorted(set(ReferenceResolver.id_matcher.findall(code)), key=len, reverse=True):
        code = code.replace(item, f"{_REFERENCES}['{item.removeprefix(ReferenceResolver.ref)}']")
    try:
        tree = ast.parse(code.lstrip(" \t"), mode="eval")
        return list(dict.fromkeys(_Judge().faults(tree.body, frozenset())))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [f"is no expression ({type(error).__name__})"]


def _import_faults(statement: ast.Import | ast.ImportFrom, in_imports: bool) -> list[str]:
    if not in_imports:
        return ["imports outside of the list of imports"]
    if isinstance(statement, ast.ImportFrom):
        names = [f"{statement.module or '.'}.{alias.name}" for alias in statement.names]
        faults = {name: name_fault(name) if not statement.level else "is relative" for name in names}
        return [f"imports {name}, which {fault}" for name, fault in faults.items() if fault]
    strange = [alias.name for alias in statement.names if alias.name not in IMPORTS]
    renamed = [alias.asname for alias in statement.names if alias.asname and alias.asname != alias.name]
    return [f"imports {name}" for name in strange] + [f"renames an import to {name}" for name in renamed]


class _Judge:
    """Walks an expression; ``known`` are the names that a lambda or a comprehension around it has made."""

    def faults(self, node: ast.AST, known: frozenset[str]) -> Iterator[str]:
        if not isinstance(node, _NODES):
            yield f"has a {type(node).__name__}"
            return
        if isinstance(node, ast.Call) and _is_search_path(node):
            return
        if isinstance(node, (ast.Attribute, ast.Name)):
            chain = _chain(node)
            if chain and chain[0] not in known and chain[0] in _GLOBALS | IMPORTS:
                yield from self._global(chain)
                return
        if isinstance(node, ast.Name):
            yield from self._name(node.id, known)
        elif isinstance(node, ast.Attribute):
            yield from _attribute(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "__" in node.value:
            yield f"has the text {node.value!r}"
        elif isinstance(node, ast.Call):
            yield from _call(node)
            if isinstance(node.func, ast.Name) and node.func.id == "getattr":
                yield from self._each(node.args, known)
                return
        elif isinstance(node, ast.Subscript) and _is_reference(node):
            fault = reference_fault(node.slice.value)  # type: ignore[attr-defined]
            if fault:
                yield fault
            return
        elif isinstance(node, ast.Lambda):
            known |= {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            targets = [name for one in node.generators for name in ast.walk(one.target)]
            known |= {name.id for name in targets if isinstance(name, ast.Name)}
        yield from self._each(ast.iter_child_nodes(node), known)

    def _each(self, nodes: Iterator[ast.AST] | list, known: frozenset[str]) -> Iterator[str]:
        for node in nodes:
            yield from self.faults(node, known)

    def _name(self, name: str, known: frozenset[str]) -> Iterator[str]:
        if name.startswith("_"):
            yield f"uses {name}"
        elif name == "getattr":
            yield "uses getattr for a name that is not spelt out"
        elif name not in known and name not in BUILTINS:
            yield f"uses {name}"

    def _global(self, chain: list[str]) -> Iterator[str]:
        """A name that begins with a module: as far as the first thing that may be used, then attributes."""
        for length in range(len(chain), 1, -1):
            if not name_fault(".".join(chain[:length])):
                for attribute in chain[length:]:
                    yield from _attribute(attribute)
                return
        name = ".".join(chain)
        yield f"uses {name}, which {name_fault(name)}"


def _chain(node: ast.AST) -> list[str]:
    """``["a", "b", "c"]`` of ``a.b.c``; empty of anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _attribute(name: str) -> Iterator[str]:
    if name.startswith("_") or name in ATTRIBUTES_REFUSED:
        yield f"uses the attribute {name}"


def _call(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id == "getattr":
        name = node.args[1] if len(node.args) in (2, 3) and not node.keywords else None
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield from _attribute(name.value)
        else:
            yield "uses getattr for a name that is not spelt out"
    if isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        yield "uses the attribute format"  # a format can reach into objects


def _is_reference(node: ast.Subscript) -> bool:
    whole = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
    return whole and isinstance(node.value, ast.Name) and node.value.id == _REFERENCES


def _is_search_path(node: ast.Call) -> bool:
    """``sys.path.append(@bundle_root)`` or ``sys.path.insert(0, @bundle_root)``."""
    root = f"{_REFERENCES}['bundle_root']"
    return ast.unparse(node) in (f"sys.path.append({root})", f"sys.path.insert(0, {root})")
