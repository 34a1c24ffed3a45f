# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Localize a whole slide: tissue, cells through MONAI's ``PatchInferer``, one mask, its parts and their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import PatchInferer
from torch import Tensor
from tqdm import tqdm

from glas_wsol.errors import ConfigError, NumericalError
from glas_wsol.results.localization import THRESHOLD
from glas_wsol.results.provenance import Provenance
from glas_wsol.results.slide_localization import SlideLocalization, SlidePart
from glas_wsol.results.tissue_presence import NO_TISSUE
from glas_wsol.slides.cell_network import CellNetwork, window_side
from glas_wsol.slides.cell_store import CellStore
from glas_wsol.slides.cells import CellMerger, CellSplitter, Grid
from glas_wsol.slides.slide_file import SlideFile
from glas_wsol.slides.strips import clean_mask, draw_mask_rows, find_parts, strips_of
from glas_wsol.slides.tissue_mask import find_tissue

__all__ = ["CORE", "HALO", "SlideModel", "localize_slide"]

CORE = 2048
"""Side of a cell, px of the model; it is brought to a multiple of a window's side."""

HALO = 320
"""px of the model beyond a cell, from which on R+ differs by less than 1e-3 from that of the whole."""


@dataclass(frozen=True)
class SlideModel:
    """A trained model as it is run on slides.

    Attributes:
        network: in evaluation mode, on its device; its mask is local.
        classes: class names in label order.
        mpp: micrometres of a pixel that it works at.
        stain: of the tissue it was trained on; empty or None where any.
        hole_area: px at the model's pixel size; smaller holes of the mask are filled.
        speck_area: smaller parts of it are removed.
        threshold: of R+, for the mask.
        made_with: what results depend on besides, JSON values: an interrupted slide is resumed only if it is the same.
        provenance: for the results.

    Raises:
        ConfigError: if the network's mask is not local, or its pixel size is not known.
    """

    network: Any
    classes: tuple[str, ...]
    mpp: float | None
    stain: str | None = None
    hole_area: float = 0
    speck_area: float = 0
    threshold: float = THRESHOLD
    made_with: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        CellNetwork.check(self.network)
        if self.mpp is None:
            what = "this model does not say the micrometres of its pixels, and slides cannot be brought to them"
            raise ConfigError(what, "model.json", "train it again on tiles whose pixel size is known, or give --mpp UM")


def localize_slide(
    model: SlideModel,
    path: str | Path,
    work: str | Path,
    *,
    name: str = "",
    mpp: float | Sequence[float] | None = None,
    core: int = CORE,
    halo: int = HALO,
    progress: bool = False,
) -> SlideLocalization:
    """Localize a slide; a run that was killed goes on with the cells that are left.

    Args:
        path: of a format that OpenSlide reads.
        work: folder of this slide alone; receives the arrays that the result refers to.
        name: of the result. Defaults to the file's name without suffix.
        mpp: micrometres per pixel at level 0. None (default): as the slide says.
        core: side of a cell, px; memory grows with its square.
        halo: px beyond it.
        progress: whether to show a bar.

    Raises:
        ConfigError: if OpenSlide is not installed, or ``mpp`` is not valid.
        ImageFileError: if the slide cannot be read, or does not say the size of its pixels.
        NumericalError: if the network's output is not finite.
    """
    slide = SlideFile(path, mpp)
    try:
        return _localize(model, slide, Path(work), name or Path(path).stem, core, halo, progress)
    finally:
        slide.close()


def _localize(
    model: SlideModel, slide: SlideFile, work: Path, name: str, core: int, halo: int, progress: bool
) -> SlideLocalization:
    assert model.mpp is not None
    view, tissue = slide.at_mpp(model.mpp), find_tissue(slide, model.stain)
    width, height = view.size
    side = window_side(model.network)
    unit = side or 32
    grid = Grid((height, width), unit * max(1, round(core / unit)), halo)
    cells = [
        cell
        for cell in grid.cells()
        if tissue.touches(
            (cell.top / height, min(cell.bottom / height, 1)), (cell.left / width, min(cell.right / width, 1))
        )
    ]
    network = CellNetwork(model.network, grid, side)
    settings = {**model.made_with, "grid": [*grid.size, grid.core, grid.halo], "mpp": list(view.mpp), "window": side}
    store = CellStore(work, grid, settings)
    left = [cell for cell in cells if (cell.row, cell.column) not in store.finished]
    with tqdm(total=len(cells), initial=len(cells) - len(left), unit="cell", desc=name, disable=not progress) as bar:
        _run(network, CellSplitter(grid, left, view.read), store, slide.path, bar.update)
    mask_file, decidable_file = work / "mask.npy", work / "decidable.npy"
    class_map = network.class_map(store.finished, len(model.classes)) if side else None
    where = tissue.near if model.stain else None
    parts, areas = _finish(model, store if cells else None, grid, (mask_file, decidable_file), where, class_map, side)
    return SlideLocalization(
        name=name,
        path=str(slide.path),
        classes=model.classes,
        mask_file=mask_file,
        decidable_file=decidable_file,
        size=grid.size,
        step=view.step,
        mpp=view.mpp,
        parts=tuple(parts),
        class_map=class_map,
        window=side,
        class_areas=areas,
        thumbnail=tissue.thumbnail,
        tissue=tissue.area,
        cells=len(cells),
        all_cells=sum(1 for _ in grid.cells()),
        level=view.level,
        slide_size=slide.size,
        slide_mpp=slide.mpp,
        mpp_from=slide.mpp_from,
        corner=slide.corner,
        evidence=bool(cells),
        reason="" if cells else NO_TISSUE,
        threshold=model.threshold,
        provenance=model.provenance,
    )


def _run(network: CellNetwork, splitter: CellSplitter, store: CellStore, path: Path, done: Callable[[], Any]) -> None:
    if not splitter.cells:
        return

    def predict(patch: Tensor) -> Tensor:
        cell = splitter.current
        assert cell is not None
        scores, store.note = network(patch, cell)
        if not bool(torch.isfinite(scores).all()):
            raise NumericalError("the network's output is not a finite number", path, "train again at a lower rate")
        done()
        return scores

    inferer = PatchInferer(splitter=splitter, merger_cls=CellMerger, cells=splitter, store=store)
    inferer(torch.empty(0), predict)


def _finish(
    model: SlideModel,
    store: CellStore | None,
    grid: Grid,
    files: tuple[Path, Path],
    where: np.ndarray | None,
    class_map: np.ndarray | None,
    side: int,
) -> tuple[list[SlidePart], tuple[int, ...]]:
    """Write mask and soft map from the scores; the mask's parts, and its area by class.

    No glass is in the mask: the network, which was trained on tissue, takes it for a gland's lumen.
    """
    height, width = grid.size
    for file, kind in zip(files, (bool, np.uint8), strict=True):
        np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=grid.size).flush()
    areas = np.zeros(len(model.classes), np.int64)
    if store is None:
        return [], tuple(areas.tolist())
    for rows in strips_of(height, width):
        soft = draw_mask_rows(np.load(store.scores_file, mmap_mode="r"), rows, grid.padded, width)
        hard = soft >= model.threshold
        if where is not None:
            down, across = (
                ((np.arange(*ends) + 0.5) * n / whole).astype(np.int64)
                for ends, n, whole in zip(((rows.start, rows.stop), (width,)), where.shape, grid.size, strict=True)
            )
            hard &= where[down][:, across]
        for file, values in zip(files, (hard, np.rint(soft * 255).astype(np.uint8)), strict=True):
            np.load(file, mmap_mode="r+")[rows] = values
    clean_mask(files[0], model.hole_area, model.speck_area)
    if class_map is not None:
        label = np.where(np.isfinite(class_map[..., 0]), np.nan_to_num(class_map).argmax(axis=2), len(areas))
        columns = np.repeat(np.arange(label.shape[1]), side)[:width]
        for rows in strips_of(height, width):
            mask = np.load(files[0], mmap_mode="r")[rows]
            at, across = np.nonzero(mask)
            said = label[(at + rows.start) // side, columns[across]]
            areas += np.bincount(said, minlength=len(areas) + 1)[: len(areas)]
    return find_parts(*files, class_map, side), tuple(areas.tolist())
