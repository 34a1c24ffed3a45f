# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""No pixel is shifted or transposed on the way from a file through the bundle's inference to a mask's file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from glas_wsol.transforms import read_mask, read_rgb
from tests.bundles.conftest import BUNDLES, config, workflow


class BrightRedPixels(nn.Module):
    """Calls every pixel decidable whose red is above one half: its answer can be read off the input."""

    def forward(self, image: Tensor) -> Tensor:
        decidable = (image[:, :1] > 0.5).to(image)
        return torch.cat([1 - decidable, 0.75 * decidable, 0.25 * decidable], dim=1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
@pytest.mark.parametrize("size", [(37, 91), (64, 32), (130, 47)])
def test_the_mask_written_is_the_input_thresholded(tmp_path, suffix, size):
    height, width = size
    red = np.zeros(size, np.uint8)
    red[: height // 3, : width // 5] = 255  # a corner, a row, a column and a lone pixel: no symmetry
    red[height - 2, :] = 255
    red[:, width - 3] = 200
    red[height // 2, width // 2] = 129
    image = np.stack([red, 255 - red, np.full(size, 40, np.uint8)], axis=2)
    Image.fromarray(image).save(tmp_path / f"tile.{suffix}")
    assert np.array_equal(read_rgb(tmp_path / f"tile.{suffix}"), image)
    inference = workflow(
        "inference",
        [config(BUNDLES[0], "inference")],
        dataset_dir=str(tmp_path / f"tile.{suffix}"),
        output_dir=str(tmp_path / "out"),
        network_def={"_target_": "tests.bundles.test_pixels.BrightRedPixels"},
        stain="",  # these colours are no tissue's
        run=["$@evaluator.run()"],
        device="cpu",
    )
    inference.run()
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "tile.png") > 0, red > 127)
    found = inference.evaluator.state.output[0]["localization"]
    assert found.decidable.shape == size
    assert found.class_name == "benign"
    assert found.probability == pytest.approx(0.75)
