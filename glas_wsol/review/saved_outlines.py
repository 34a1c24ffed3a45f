# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Keep corrected outlines below the results: one GeoJSON file an image, each saved against the version it came from."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.review.outline_edits import read_geometry
from glas_wsol.transforms.reading.outlines import OUTLINE_SUFFIX, check_outlines
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.json_files import read_json
from glas_wsol.writers.geojson import annotation

__all__ = ["FOLDER", "STATES", "OtherVersionError", "OutlineStore", "Saved"]

FOLDER = "corrections"
"""Below the results: what ``learn --corrections`` takes."""

STATES = {"accepted": "", "in work": "in_work", "rejected": "rejected"}
"""A folder below :data:`FOLDER` for each: ``learn`` reads the accepted ones alone."""

_LARGEST = 500_000_000  # bytes
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "glas_wsol/review/saved_outlines")


class OtherVersionError(Exception):
    """Another window, or another program, has saved this case since it was opened."""


@dataclass(frozen=True)
class Saved:
    """Outlines of an image.

    Attributes:
        collection: the GeoJSON.
        state: of :data:`STATES`, or ``"draft"`` where nothing is saved.
        version: changes with every save.
    """

    collection: Mapping[str, Any]
    state: str
    version: str


@dataclass
class OutlineStore:
    """The outlines that a person corrected.

    Args:
        results: folder of the run.
        who: saves.
    """

    results: Path
    who: str
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        root = self.results.resolve()
        for below in STATES.values():
            folder = self.results / FOLDER / below
            if folder.resolve() != root / FOLDER / below:
                raise OutputError("this is a link to another place", folder, "put a folder there")

    def path(self, name: str, state: str) -> Path:
        """Where the outlines of an image are in a state."""
        return self.results / FOLDER / STATES[state] / f"{name}{OUTLINE_SUFFIX}"

    def states(self) -> dict[str, str]:
        """The state of every image that has one, by its name."""
        found: dict[str, str] = {}
        for state in reversed(STATES):
            folder = self.results / FOLDER / STATES[state]
            paths = folder.glob(f"*{OUTLINE_SUFFIX}") if folder.is_dir() else ()
            found |= {path.name.removesuffix(OUTLINE_SUFFIX): state for path in paths if path.is_file()}
        return found

    def read(self, name: str, draft: Mapping[str, Any]) -> Saved:
        """What is saved of an image, or its draft.

        Raises:
            OutputError: if the file is damaged.
        """
        for state in STATES:
            path = self.path(name, state)
            if path.is_symlink():
                raise OutputError("this is a link to another place", path, "put the file itself there")
            if path.is_file():
                try:
                    collection = read_json(path, _LARGEST)
                    _ = [(one["geometry"], one["properties"]) for one in collection["features"]]
                except (OSError, ValueError, KeyError, TypeError) as error:
                    fix = "correct it in QuPath, or move it away to begin with the model's draft"
                    raise OutputError("these outlines cannot be read", path, fix) from error
                return Saved(collection, state, hashlib.sha256(path.read_bytes()).hexdigest()[:32])
        text = json.dumps(draft, sort_keys=True).encode()
        return Saved(draft, "draft", "draft-" + hashlib.sha256(text).hexdigest()[:26])

    def save(
        self,
        name: str,
        outlines: Sequence[Any],
        state: str,
        version: str,
        draft: Mapping[str, Any],
        size: tuple[int, int],
        classification: Mapping[str, Any],
    ) -> Saved:
        """Save outlines; those that were not changed keep all that was said of them.

        Args:
            outlines: each with ``id`` and ``geometry``.
            state: of :data:`STATES`; accepted outlines must be valid.
            version: that these were made from.
            draft: of the model.
            size: width and height of the image.
            classification: of outlines that are new.

        Raises:
            OtherVersionError: if another version is saved.
            ConfigError: if an outline is not one.
            ImageFileError: if accepted outlines cross themselves or lie outside the image.
            OutputError: if they cannot be written.
        """
        if state not in STATES:
            raise ConfigError(f"there is no state {state[:20]!r}", fix="load the page again")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._lock:
            before = self.read(name, draft)
            if before.version != version:
                raise OtherVersionError(name)
            known = {str(one.get("id")): one for one in before.collection["features"]}
            features = [self._feature(one, known, name, classification, now) for one in outlines]
            said = {**(before.collection.get("metadata") or {}), "Corrected by": self.who, "Corrected": now}
            collection = {"type": "FeatureCollection", "metadata": {**said, "State": state}, "features": features}
            path = self.path(name, state)
            if state == "accepted":
                check_outlines(collection, path, size[1], size[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "w", newline="\n") as file:
                json.dump(collection, file, ensure_ascii=False, allow_nan=False)
            for other in STATES:
                if other != state:
                    self.path(name, other).unlink(missing_ok=True)
            return self.read(name, draft)

    def _feature(
        self, one: Any, known: Mapping[str, Any], name: str, classification: Mapping[str, Any], now: str
    ) -> dict[str, Any]:
        if not isinstance(one, Mapping):
            raise ConfigError("an outline is not valid", fix="load the page again")
        shape, said = read_geometry(one.get("geometry")), str(one.get("id"))
        try:
            identifier = uuid.UUID(said)
        except ValueError:
            identifier = uuid.uuid5(_NAMESPACE, f"{name} {said}")
        earlier = known.get(said, known.get(str(identifier)))
        geometry = {key: one["geometry"][key] for key in ("type", "coordinates")}
        if earlier is not None and earlier["geometry"] == geometry:
            return dict(earlier)
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        kept = classification if earlier is None else earlier["properties"].get("classification", classification)
        made = annotation(identifier, f"{name}: corrected", polygons, kept, {"Area px": round(float(shape.area), 2)})
        made["properties"]["metadata"] = {"Corrected by": self.who, "Corrected": now}
        return made
