# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The lock pins what the package needs, each file by its digest, and nothing of the place it was made in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def pinned() -> list[tuple[Requirement, list[str]]]:
    blocks = re.split(r"\n(?=[A-Za-z])", LOCK)
    return [
        (Requirement(block.split("\\")[0].strip()), re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
        for block in blocks
        if not block.startswith("#")
    ]


def required() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_package_is_pinned_with_digests():
    assert len(pinned()) > 40
    for package, digests in pinned():
        (only,) = package.specifier
        assert only.operator == "==", package
        assert digests, package
    assert "://" not in LOCK, "no place to download from"
    assert "index" not in re.sub(r"#.*", "", LOCK)


@pytest.mark.parametrize("wanted", required(), ids=str)
def test_what_is_required_is_in_the_lock(wanted):
    found = [package for package, _ in pinned() if package.name == wanted.name]
    if wanted.name == "torch":
        assert found == [], "torch comes from the index of one's choice"
        (first,) = set(re.findall(r"torch==([0-9.]+[0-9])", LOCK))
        assert wanted.specifier.contains(first)
        assert f"torch=={first}\n" in (ROOT / "Makefile").read_text(encoding="utf-8"), "torch first and exactly"
        return
    assert found, "run the command of SECURITY.md again"
    for package in found:
        (only,) = package.specifier
        assert wanted.specifier.contains(only.version), package
