# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The documentation's site: documents outside of ``docs/`` become pages, links lead to pages or into the repository."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = "https://github.com/glas-wsol/glas_wsol/blob/main/"
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "configs/README.md": "overlays.md",
    "bundles/glas_minmax_entropy/docs/README.md": "bundles/glas.md",
    "bundles/cub5_minmax_entropy/docs/README.md": "bundles/cub5.md",
}
"""Documents that are pages of the site, by where they lie in the repository."""

_LINK = re.compile(r"(\]\(\s*<?)(?!\w+:|#)([^)\s>#]+)")
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod|exc):<code>~?([\w.]+?)(\w+)</code>")


def on_files(files: Files, config: Any) -> Files:
    """Add the documents outside of ``docs/``."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=Path(path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turn each relative link, as the repository has it, into that of the site."""
    here = page.file.src_uri
    lies = {new: old for old, new in PAGES.items()}.get(here, f"docs/{here}")

    def lead(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(lies), link[2]))
        inside = PAGES.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(inside) is None:
            return link[1] + REPOSITORY + path if Path(path).exists() else link[0]  # a dead link: mkdocs says so
        return link[1] + posixpath.relpath(inside, posixpath.dirname(here) or ".")

    return _LINK.sub(lead, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show the docstrings' Sphinx roles as links."""
    return _ROLE.sub(r'<autoref identifier="\1\2" optional><code>\2</code></autoref>', html)
