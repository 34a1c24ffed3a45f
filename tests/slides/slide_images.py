# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Small slides for the tests: pyramids on disk, and a network whose mask is local."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import torch

from glas_wsol.networks.frozen_norm import freeze, measure_statistics
from glas_wsol.networks.refined import RefinedNetwork
from tests.conftest import tiny_trunk


def write_slide_file(path: Path, image: np.ndarray, mpp: float | None, levels: int = 2, factor: int = 2) -> Path:
    """A pyramid of tiles; levels are means over blocks, the rest of the last row and column cut off, as scanners do."""
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            every = factor**level
            height, width = (side // every * every for side in image.shape[:2])
            blocks = image[:height, :width].reshape(height // every, every, width // every, every, 3)
            options = {} if mpp is None else {"resolution": (1e4 / mpp / every,) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(
                blocks.mean(axis=(1, 3)).round().astype(np.uint8),
                tile=(128, 128),
                photometric="rgb",
                compression="zlib",
                metadata=None,
                subfiletype=1 if level else 0,
                **options,
            )
    return path


def tissue_image(height: int, width: int, seed: int = 0, glass: int = 0) -> np.ndarray:
    """Pink and purple blobs like tissue's colours, with glass on the left; ``[height, width, 3]`` uint8."""
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.random((1, 1, height // 24 + 2, width // 24 + 2)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0, 0].clamp(0, 1).numpy()
    colours = np.array([[235, 160, 200], [110, 50, 140]], np.float64)
    image = colours[0] + smooth[..., None] * (colours[1] - colours[0]) + draw.normal(0, 6, (height, width, 3))
    image[:, :glass] = 243
    return image.round().clip(0, 255).astype(np.uint8)


def local_network(seed: int = 0) -> RefinedNetwork:
    """A network of two stages on the tiny trunk, its statistics frozen, whose mask has many parts and holes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RefinedNetwork(tiny_trunk(), weights="none", decoder_width=8, seed=seed).eval()
        tiles = [torch.from_numpy(tissue_image(320, 416, n).transpose(2, 0, 1) / 255).float()[None] for n in range(3)]
        freeze(network, measure_statistics(network, tiles))
        with torch.no_grad():
            logits = torch.cat([network.mask_logits(network.normalise(tile)).flatten() for tile in tiles])
            score, scale = network.decoder.score, 3 / logits.std()
            score.bias.copy_(scale * (score.bias - logits.median()))
            score.weight *= scale
    return network
