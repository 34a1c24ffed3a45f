# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Exports a trained model as a package of the BioImage Model Zoo (model description 0.5), which QuPath reads."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from glas_wsol.bundle.export_file import FILE_TARGETS, TOLERANCE, ExportedModel, exported_bytes, write_export
from glas_wsol.data.phantom.bird_drawing import SPECIES, draw_bird
from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.errors import ConfigError, NumericalError, OutputError
from glas_wsol.inferers.whole_tile_network import WholeTileNetwork
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.shipped_bundles import bundle_of
from glas_wsol.writers.drawing import draw_mask

__all__ = ["export_bioimageio"]

FORMAT = "0.5.4"
"""Version of the model description: the newest that readers of 2025 know, and all newer ones read it."""

_RDF, _WEIGHTS = "rdf.yaml", "weights.pt"
_SIZE = (259, 390)  # of the sample, px: no multiple of the stride
_LEAST = 64  # px a side


def export_bioimageio(model: ExportedModel, output: str | Path) -> Path:
    """Write the package: ``rdf.yaml``, TorchScript, test tensors, cover, documentation, licences.

    One output, as QuPath takes it: ``[B, 1 + c, H, W]``, channel 0 undecidable, channel k of class k. The test output
    is the model's own. The picture is synthetic.

    Args:
        model: to be written.
        output: a folder, or a file that ends in ``.zip``. An earlier export is replaced.

    Returns:
        The folder or file.

    Raises:
        ConfigError: if the network cannot be exported.
        NumericalError: if the export does not give what the model gives.
        OutputError: if the place cannot be written, or holds something else.
    """
    output = Path(output)
    if output.exists() and not _is_export(output):
        raise OutputError("this is no export of a model", output, "choose another name")
    files = _files(model)
    if output.suffix == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return write_export(output, buffer.getvalue())
    part = output.parent / f".{uuid.uuid4().hex}.part"
    try:
        part.mkdir(parents=True)
        for name, content in files.items():
            (part / name).write_bytes(content)
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", output, "choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return output


def _is_export(place: Path) -> bool:
    if place.is_dir():
        return (place / _RDF).is_file() or not any(place.iterdir())
    return zipfile.is_zipfile(place) and _RDF in zipfile.ZipFile(place).namelist()


def _files(model: ExportedModel) -> dict[str, bytes]:
    """The package's files by name."""
    bundle = bundle_of(list(model.localizer.classes))
    if bundle is None:
        raise ConfigError("no bundle came with this package", "export", "install it whole")
    metadata = read_json(bundle / "configs" / "metadata.json")
    pixels = _sample(bundle)
    weights, tensors = _weights(model, pixels)
    decidable = 1 - tensors["test_output.npy"][0, 0]
    files = {
        _WEIGHTS: weights,
        **{name: _npy(array) for name, array in tensors.items()},
        "cover.png": _cover(pixels, decidable, model.description["threshold"]),
        "README.md": _documentation(model, metadata).encode(),
        "LICENSE": (bundle / "LICENSE").read_bytes(),
        "data_license.txt": (bundle / "docs" / "data_license.txt").read_bytes(),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    rdf = _description(model, metadata, digests)
    return {_RDF: yaml.safe_dump(rdf, sort_keys=False, allow_unicode=True, width=120).encode(), **files}


def _sample(bundle: Path) -> np.ndarray:
    """``[H, W, 3]`` uint8: what the bundle's phantom draws."""
    rng = np.random.default_rng(0)
    if read_json(bundle / "configs" / "inference.json")["source"]["kind"] == "birds":
        return draw_bird(rng, next(iter(SPECIES.values())), _SIZE)[0]
    return tissue_tile(rng, True, _SIZE)[0]


def _weights(model: ExportedModel, pixels: np.ndarray) -> tuple[bytes, dict[str, np.ndarray]]:
    """TorchScript of bytes to the prediction, and the test tensors: the sample and the model's own prediction of it."""
    own = model.tiles
    tiles = WholeTileNetwork(own.network, model.factor, model.short_side, own.divisor, white=255).eval()
    content = exported_bytes(tiles, model, "torchscript")
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        wanted = model.localizer.inferer.inferer(image.float() / 255, own.network)
        found = FILE_TARGETS["torchscript"].read(content)(image)
    difference = float((found - wanted).abs().max())
    if not difference <= TOLERANCE:
        what = f"the TorchScript differs from the model by {difference:.2g}"
        raise NumericalError(what, model.name, "export the bundle instead: --to bundle")
    return content, {"test_input.npy": image.numpy(), "test_output.npy": wanted.numpy()}


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _cover(pixels: np.ndarray, decidable: np.ndarray, threshold: float) -> bytes:
    """PNG, twice as wide as high: the sample, and the sample with its mask."""
    side = min(pixels.shape[:2])
    drawn = draw_mask(pixels, decidable, decidable > threshold)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([pixels[:side, :side], drawn[:side, :side]], axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def _description(model: ExportedModel, metadata: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": digests[name]}

    def axes(channels: list[str], sizes: Mapping[str, Any]) -> list[dict[str, Any]]:
        unit = {} if model.mpp is None else {"unit": "micrometer", "scale": model.mpp}
        space = [{"type": "space", "id": one, "size": sizes[one], **unit} for one in "yx"]
        return [{"type": "batch"}, {"type": "channel", "id": "channel", "channel_names": channels}, *space]

    sizes = {one: {"min": _LEAST, "step": 1} for one in "yx"}
    same = {one: {"tensor_id": "image", "axis_id": one, "offset": 0} for one in "yx"}
    return {
        "type": "model",
        "format_version": FORMAT,
        "name": re.sub(r"[^A-Za-z0-9_+\-() ]", "", metadata["name"]),
        "description": metadata["description"],
        "authors": [{"name": metadata["authors"]}],
        "license": "Apache-2.0",
        "documentation": "README.md",
        "covers": ["cover.png"],
        "attachments": [file("data_license.txt"), file("LICENSE")],
        "tags": ["weakly-supervised", "localization", "segmentation", "classification", "2d", "pytorch", "torchscript"],
        "cite": [
            {"text": one, "doi": f"10.48550/arXiv.{number[1]}"}
            for one in metadata["references"]
            if (number := re.search(r"arXiv:(\d{4}\.\d{4,5})", one))
        ],
        "version": metadata["version"],
        "inputs": [
            {
                "id": "image",
                "description": "RGB, bytes; normalisation and resizing are in the model",
                "axes": axes(["red", "green", "blue"], sizes),
                "data": {"type": "uint8"},
                "test_tensor": file("test_input.npy"),
            }
        ],
        "outputs": [
            {
                "id": "prediction",
                "description": "probabilities that sum to 1 at every pixel: undecidable, then decidable and of a class",
                "axes": axes(_channels(model.localizer.classes), same),
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": file("test_output.npy"),
            }
        ],
        "weights": {"torchscript": {**file(_WEIGHTS), "pytorch_version": torch.__version__.partition("+")[0]}},
        "config": {"glas_wsol": json.loads(json.dumps(model.description))},
    }


def _channels(classes: tuple[str, ...]) -> list[str]:
    """Names that the model description allows: of letters, digits and ``_``, each once."""
    names = ["undecidable"]
    for number, one in enumerate(classes, start=1):
        name = re.sub(r"\W+", "_", one).strip("_").lower()
        name = name if name.isidentifier() else f"class_{name}" if name else f"class_{number}"
        names.append(f"{name}_{number}" if name in names else name)
    return names


def _documentation(model: ExportedModel, metadata: Mapping[str, Any]) -> str:
    said, found = model.description, model.localizer.postprocessing
    classes = "\n".join(f"{number}. {name}" for number, name in enumerate(said["classes"], start=1))
    size = "not recorded: that of the images that it was trained on"
    if model.mpp is not None:
        size = f"{model.mpp:g} micrometres per pixel"
    alarm = "not judged" if found.provenance.alarm is None else str(found.provenance.alarm)
    return f"""# {metadata["name"]}

{metadata["task"]}. It was {found.provenance.trained_on}. **{said["intended_use"]}**

Input: RGB images of bytes, of any height and width from {_LEAST} px; normalisation and resizing are in the model.
Pixel size: {size}.

Output: `[batch, channel, y, x]`, which sums to 1 at every pixel. Channel 0 is undecidable: no evidence for a class.
The others are "decidable, and of this class":

{classes}

The mask is where channel 0 is below {1 - said["threshold"]:g}. The class is that of the channel with the greatest sum.
Not done here: filling holes of the mask below {found.hole_area:g} px, removing specks below {found.speck_area:g} px,
and looking whether an image shows anything to decide on.

The class, and in models of one stage the mask too, depend on the whole image that the model is given: tiles that a
program cuts are each judged for themselves.

## Validation

`test_output.npy` is what the model itself gives for `test_input.npy`, a synthetic picture. How good the masks are must
be measured on images with outlines, of the laboratory where the model is to be used. Training run: {alarm}.

## Licence

Code: Apache License, Version 2.0 (LICENSE). The weights are bound by the terms of the data that they were trained on
as well: data_license.txt.
"""
