# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Lists what a trained model can be exported to, and finds the model or bundle that is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from glas_wsol.bundle.bioimageio import export_bioimageio
from glas_wsol.bundle.export import export_bundle
from glas_wsol.bundle.export_file import FILE_TARGETS, ExportedModel, export_file
from glas_wsol.errors import ConfigError
from glas_wsol.loading import ModelSource
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.utils.shipped_bundles import bundle_folder, bundle_of

__all__ = ["TARGETS", "export"]

Sources = Sequence[str | Path]


def export(
    sources: str | Path | Sources, output: str | Path, to: str = "bundle", model: str | Path | None = None
) -> Path:
    """Export a model or a bundle.

    Args:
        sources: ``glas``, ``cub`` or a bundle's folder; or a model: ``model.pt``, or the output folder of a training.
            Several models are an ensemble.
        output: the file or folder to be made; of a bundle the folder that receives it.
        to: one of :data:`TARGETS`. Defaults to ``"bundle"``.
        model: the trained ``model.pt`` of a bundle that has none.

    Returns:
        What was made.

    Raises:
        ConfigError: if there is no such target or model, or it cannot be exported to that.
        NumericalError: if what was made does not give what the model gives.
        OutputError: if the place cannot be written, or holds something else.
        WeightsError: if there is no such model.
    """
    if to not in TARGETS:
        raise ConfigError(f"no target named {to!r}", "--to", f"choose one of {', '.join(TARGETS)}")
    return TARGETS[to]([sources] if isinstance(sources, (str, Path)) else list(sources), output, model)


def _to_bundle(sources: Sources, output: str | Path, model: str | Path | None) -> Path:
    if len(sources) > 1:
        fix = "name one model, or export to a file: --to torchscript"
        raise ConfigError("a bundle holds one model, not an ensemble", sources[1], fix)
    bundle = _bundle(sources[0])
    if bundle is None and model is None and Path(sources[0]).exists():
        model = ModelSource(Path(sources[0])).checkpoint
        bundle = bundle_of(model_card(str(model)).get("classes"))
    return export_bundle(bundle or bundle_folder(sources[0]), output, model)


def _to_model(
    make: Callable[[ExportedModel, str | Path], Path], sources: Sources, output: str | Path, model: str | Path | None
) -> Path:
    if model is not None and (len(sources) > 1 or _bundle(sources[0]) is None):
        raise ConfigError("a model is named twice", "--model", "name the model first, and leave --model out")
    named = [_bundle(one) or one for one in sources] if model is None else [model]
    return make(ExportedModel(named), output)


def _bundle(source: str | Path) -> Path | None:
    try:
        return bundle_folder(source)
    except ConfigError:
        return None


TARGETS: dict[str, Callable[[Sources, str | Path, str | Path | None], Path]] = {
    "bundle": _to_bundle,
    **{name: partial(_to_model, partial(export_file, to=name)) for name in FILE_TARGETS},
    "bioimageio": partial(_to_model, export_bioimageio),
}
"""What makes each target of ``--to``, from sources, output and model."""
