# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Documents name only what exists, are finished, and know nothing of the machine they were written on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = (".md", ".py", ".json", ".toml", ".txt", ".cff", ".conf", ".sh")
# `[text](target)`, images too; not a scheme, not a place in the same document
LINK = re.compile(r"\]\(\s*<?(?!\w+:|#)([^)\s>#]+)")
CONFIG = re.compile(r"[\w./-]*configs/[\w./-]+\.json")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def documents() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in tracked()
        if path.suffix == ".md" and path.is_file()
    }


def test_every_relative_link_leads_somewhere():
    links = [(name, unquote(link)) for name, text in documents().items() for link in LINK.findall(text)]
    assert len(links) > 3, "the pattern must find the links there are"
    assert [(name, link) for name, link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_every_config_named_exists():
    named = [(name, config) for name, text in documents().items() for config in CONFIG.findall(text)]
    assert len(named) > 5, "the pattern must find the paths there are"
    missing = []
    for name, config in named:
        # An exported bundle is its own root, wherever it lies; NAME stands for any name.
        homes = [ROOT, (ROOT / name).parent, ROOT / "bundles", *(ROOT / "bundles").iterdir()]
        pattern = config.removeprefix("/path/to/").removeprefix("./").replace("NAME", "*")
        if not any(list(home.glob(pattern)) for home in homes):
            missing.append((name, config))
    assert missing == []


def test_no_placeholder_is_left():
    assert [name for name, text in documents().items() if "RESULTS_" in text] == []


def test_nothing_names_the_machine_it_was_written_on():
    words = ["/work" + "/", "/root" + "/", "http://" + "localhost"]
    found = []
    for path in tracked():
        if path.is_file() and (path.suffix in SUFFIXES or path.name in ("Makefile", ".gitignore", "run")):
            text = path.read_text(encoding="utf-8")
            found += [(path.relative_to(ROOT).as_posix(), word) for word in words if word in text]
    assert found == []


def test_the_map_of_the_code_has_every_module():
    text = documents()["CONTRIBUTING.md"]
    named = set(
        re.findall(r"`(?:glas_wsol/)?(\w+)(?:\.py|/)`", text[text.index("## Map") : text.index("## How to add")])
    )
    modules = {path.stem for path in (ROOT / "glas_wsol").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - {"__init__", "__pycache__"} - named == set()


@pytest.mark.slow
def test_site_builds_strictly_without_external_files(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(pages) > 20
    loads = re.compile(r"<(?:script|img|iframe)[^>]+src=.?(?:https?:)?//|<link(?! rel=.canonical)[^>]+href=.?https?:")
    assert [path for path, text in pages.items() if loads.search(text)] == []
    assert 'id="glas_wsol.save"' in pages[tmp_path / "api" / "glas_wsol" / "index.html"]


def test_every_subpackage_has_a_page_of_its_own():
    rooms = {path.parent.name for path in (ROOT / "glas_wsol").glob("*/__init__.py")}
    pages = {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
    assert rooms - pages <= {"commands", "audit"}, "commands are described in docs/commands.md"
    assert pages - rooms == {"glas_wsol"}
