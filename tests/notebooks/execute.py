# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A notebook run from its first cell to its last in a kernel of its own, with other parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"


def execute(name: str, timeout: int = 900, **parameters: Any) -> nbformat.NotebookNode:
    """Run a notebook; a cell that fails raises.

    Args:
        name: of the file, without suffix.
        timeout: of a cell, s.
        **parameters: set after the cell that is tagged ``parameters``, and nothing else than that cell sets.

    Returns:
        The notebook with its outputs.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (place,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    own = {line.partition(" = ")[0] for line in notebook.cells[place].source.splitlines()}
    assert parameters.keys() <= own, f"{parameters.keys() - own} are no parameters"
    source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    # the kernel that an editor would start, in the notebook's own folder
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
    return client.execute()


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that the cells printed on standard output, and the Markdown they showed."""
    said = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stdout":
                said.append(output.text)
            said.append(output.get("data", {}).get("text/markdown", ""))
    return "".join(said)


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """Every picture shown: PNG, as base64."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
