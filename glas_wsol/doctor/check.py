# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Defines the result of one check, as a value and as a line of text."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from glas_wsol.errors import DatalistError, GlasWsolError

__all__ = ["FAULT", "OK", "WARNING", "Check", "faults_of"]

OK, WARNING, FAULT = "ok", "warning", "fault"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: of what was looked at, such as ``"torch"``.
        status: ``"ok"``, ``"warning"`` (a run goes, perhaps not as meant) or ``"fault"`` (it does not).
        what: what is there, and what that means.
        fix: what to do; empty where there is nothing to do.
    """

    name: str
    status: str
    what: str
    fix: str = ""

    def entry(self) -> dict[str, str]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.what}: {self.fix}" if self.fix else self.what
        # a file's name may hold anything
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        return f"{self.status:<8}{self.name:<10}{line}"


def faults_of(name: str, error: GlasWsolError) -> list[Check]:
    """A failure as checks; of a datalist every fault is one."""
    if isinstance(error, DatalistError):
        return [Check(name, FAULT, f"{fault} [{error.where}]", error.fix) for fault in error.faults]
    place = f" [{error.where}]" if error.where else ""
    return [Check(name, FAULT, f"{error.what}{place}", error.fix)]
