# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Run inference that one bad image does not stop: its failure takes the image's place in the stream of items."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from monai.data import Dataset, list_data_collate
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.utils.enums import CommonKeys as Keys

from glas_wsol.data.splits import BOX
from glas_wsol.errors import GlasWsolError, ImageFileError, NumericalError, exception_chain
from glas_wsol.transforms.reading.spacing import mpp_of
from glas_wsol.utils.digests import sha256_of

__all__ = [
    "FAILURES",
    "PATH",
    "RUNS",
    "SHA256",
    "Failure",
    "TileEvaluator",
    "TolerantDataset",
    "TolerantEvaluator",
    "collate_survivors",
    "failure_of",
]

FAILURES = "failures"
"""Key of a batch: the :class:`Failure` of every image that could not be read."""

RUNS = "runs"
"""Key of a batch: the items that were read, in lists of neighbours of one size."""

PATH = "path"
"""Key of an item: the image's file, as listed."""

SHA256 = "sha256"
"""Key of an item: digest of the file's bytes, taken before it was decoded."""

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


@dataclass(frozen=True)
class Failure:
    """Why there is no result of an image.

    Attributes:
        stage: ``"read"``, ``"localize"``, or ``"write"``: a format needs what the image's file does not have.
    """

    image: str
    name: str
    stage: str
    what: str
    fix: str


def failure_of(error: BaseException, item: Mapping[str, Any], stage: str) -> Failure | None:
    """The failure of one image that an exception stands for; None where the whole run is at fault.

    Of the image are an unreadable file, an output that is not a number, and a lack of memory. Settings, weights and a
    place that cannot be written are of the run, and so is any unexpected exception.

    Args:
        error: as raised; the causes that MONAI wrapped are looked at.
        item: has ``image`` and ``name``.
    """
    # The innermost of our own errors is the most specific; MONAI's wrappers repeat its text.
    for cause in reversed(exception_chain(error)):
        said: tuple[str, str] | None = None
        if isinstance(cause, (ImageFileError, NumericalError)):
            said = cause.what, cause.fix
        elif isinstance(cause, GlasWsolError):
            return None
        elif isinstance(cause, MemoryError) or (
            isinstance(cause, RuntimeError) and any(words in str(cause) for words in _NO_MEMORY)
        ):
            said = "not enough memory for this image", "cut it into tiles, or lower 'scale' or 'short_side'"
        if said is not None:
            return Failure(str(item["image"]), str(item["name"]), stage, *(" ".join(text.split()) for text in said))
    return None


class TolerantDataset(Dataset):
    """MONAI's ``Dataset`` in which an image that cannot be read is an item too, its :class:`Failure`.

    A readable item has its file and the digest of its bytes besides, under ``path`` and ``sha256``. An image that was
    finished earlier is None.

    Args:
        data: items with ``image`` and ``name``.
        transform: as in MONAI's ``Dataset``.
        source: what the items were listed from. Where it is the one image itself, its failure is raised: there are no
            others to go on with. Defaults to an empty string.
        skip: names of images that are not to be done again; read when each item is.
    """

    def __init__(self, data: Sequence, transform: Any = None, source: str = "", skip: Container[str] = ()) -> None:
        super().__init__(data, transform)
        self.skip = skip
        only = str(data[0]["image"]) if len(data) == 1 else ""
        self.tolerant = not (source and only and Path(source).expanduser().absolute() == Path(only).absolute())

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        if item["name"] in self.skip:
            return None
        try:
            added = {PATH: str(item["image"]), SHA256: _digest(str(item["image"]))}
            return {**cast("Any", super()._transform(index)), **added}
        except Exception as error:
            failure = failure_of(error, item, "read") if self.tolerant else None
            if failure is None:
                raise
            return failure


def _digest(image: str) -> str:
    try:
        image.encode()  # tables of results are UTF-8
    except UnicodeError as error:
        where = image.encode("utf-8", "backslashreplace").decode()
        raise ImageFileError("the name of the file is not UTF-8", where, "rename it") from error
    try:
        return sha256_of(image) if Path(image).is_file() else ""  # a pipe would never end
    except (OSError, ValueError):
        return ""  # reading it says what is wrong


def collate_survivors(items: Sequence[Any]) -> dict[str, Any]:
    """Collate what was read; failures are listed apart, what was skipped is left out.

    Returns:
        ``runs``: the items that were read, in their order, in lists of neighbours of one size, images and pixels;
        and ``failures``.
    """
    read = [item for item in items if isinstance(item, Mapping)]
    runs = [list(run) for _, run in groupby(read, key=lambda item: (item[Keys.IMAGE].shape, mpp_of(item[Keys.IMAGE])))]
    return {RUNS: runs, FAILURES: [item for item in items if isinstance(item, Failure)]}


class TileEvaluator(SupervisedEvaluator):
    """MONAI's evaluator, whose results have image, label and official box as they were read.

    Post-processing and metrics work on the CPU; nothing is copied to the device and back.
    """

    def __init__(self, *args: Any, non_blocking: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, non_blocking=non_blocking, **kwargs)
        # the last handler before the post-processing
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, _with_what_was_read)


def _with_what_was_read(engine: Any) -> None:
    read = engine.state.batch
    engine.state.output |= {key: read[key] for key in (Keys.IMAGE, Keys.LABEL, BOX) if key in read}


class TolerantEvaluator(TileEvaluator):
    """MONAI's evaluator for the batches of :func:`collate_survivors`.

    Images of one size that follow each other in a batch go through the network together. After every iteration
    ``state.failures`` holds its failures, and ``state.output`` the results of the others, in their order: an empty
    list if there are none.

    Args:
        tolerant: whether an image whose prediction fails is a failure, too; images that failed together are each tried
            alone. Else it is raised. Defaults to True.
    """

    def __init__(self, *args: Any, tolerant: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tolerant = tolerant

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        engine.state.failures = list(batchdata[FAILURES])
        found = [self._predicted(engine, items) for items in batchdata[RUNS]]
        engine.state.batch = [item for items, _ in found for item in items]
        engine.state.output = [result for _, results in found for result in results]
        return engine.state.output

    def _predicted(self, engine: SupervisedEvaluator, items: list[Mapping[str, Any]]) -> tuple[Any, Any]:
        """Items, and as many results."""
        try:
            engine.state.batch = list_data_collate(items)
            super()._iteration(engine, engine.state.batch)
            return engine.state.batch, engine.state.output
        except Exception as error:
            item = {"image": items[0][PATH], "name": items[0]["name"]}
            failure = failure_of(error, item, "localize") if self.tolerant else None
            if failure is None:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(items) == 1:
            engine.state.failures.append(failure)
            return [], []
        alone = [self._predicted(engine, [item]) for item in items]
        return [item for one, _ in alone for item in one], [result for _, one in alone for result in one]
