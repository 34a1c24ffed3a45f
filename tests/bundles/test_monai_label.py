# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""An exported bundle does what MONAI Label 0.8.5 asks of a bundle, step by step as its BundleInferTask does it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.data import MetaTensor, decollate_batch
from monai.transforms import Compose, LoadImaged, Resize
from PIL import Image

import glas_wsol
from glas_wsol.bundle.export import export_bundle
from glas_wsol.bundle.monai_label import LabelMapd
from glas_wsol.data import load_datalist
from glas_wsol.errors import ConfigError
from glas_wsol.results.localization import Localization
from glas_wsol.transforms import read_rgb
from tests.bundles.conftest import ROOT, Run


class Task:
    """The steps that MONAI Label takes, from its description and source; nothing of this project's own is called."""

    def __init__(self, path: Path) -> None:
        self.config = ConfigParser()
        self.config.read_config(str(path / "configs" / "inference.json"))
        self.config.config.update({"bundle_root": str(path), "use_click": False})
        self.model = path / "models" / "model.pt"
        self.network = self.config.get_parsed_content("network_def", instantiate=True)
        about = json.loads((path / "configs" / "metadata.json").read_text())["network_data_format"]
        self.image, described = next(iter(about["inputs"].items()))
        self.pred, predicted = next(iter(about["outputs"].items()))
        self.dimension = len(described["spatial_shape"])
        self.labels = {
            name.lower(): int(k) for k, name in predicted["channel_def"].items() if name.lower() != "background"
        }

    def __call__(self, file: Path, device: str = "cpu") -> tuple[np.ndarray, dict[str, Any]]:
        """The picture that its writer would write, rows first, and what its client is told."""
        self.config.config.update({"device": device})
        if self.config.ref_resolver.items.get("device"):
            self.config.ref_resolver.items["device"] = ConfigItem(config=device, id="device")
        data: dict[str, Any] = {"image": str(file), "image_path": str(file), "device": device, "model": "any"}
        for transform in self._transforms("preprocessing", "pre_transforms"):
            if isinstance(transform, LoadImaged):
                transform._loader.image_only = False
            data = transform(data)
        inferer = self.config.get_parsed_content("inferer", instantiate=True)
        network = copy.deepcopy(self.network).to(device)
        state = torch.load(self.model, map_location=device)
        network.load_state_dict(state.get("model", state), strict=False)
        network.eval()
        with torch.no_grad():
            outputs = inferer(data[self.image][None].to(device), network)
            data[self.pred] = decollate_batch(outputs)[0] if isinstance(outputs, dict) else outputs[0]
        for transform in self._transforms("postprocessing", "post_transforms"):
            data = transform(data)
        return self._written(self._restored(data)), data.get("result", {})

    def _transforms(self, *keys: str) -> list[Any]:
        found: Any = []
        for key in keys:  # the last of them that is there
            if self.config.get(key):
                made = self.config.get_parsed_content(key, instantiate=True)
                found = list(made.transforms) if isinstance(made, Compose) else made
        return list(found)

    def _restored(self, data: dict[str, Any]) -> Any:
        """To the size of the image as it was read; the first axis is taken for channels."""
        result = data[self.pred]
        current = tuple(result.shape[1:])
        shape = tuple(int(n) for n in data[self.image].meta["spatial_shape"])[-len(current) :]
        if current != shape:
            result = Resize(spatial_size=shape, mode="nearest")(result)
        return result if result.ndim <= 3 or result.shape[0] != 1 else result[0]

    @staticmethod
    def _written(result: Any) -> np.ndarray:
        array = result.array if isinstance(result, MetaTensor) else np.asarray(result)
        return array.transpose().copy()


@pytest.fixture
def bundle(trained: Run, tmp_path: Path) -> Path:
    return export_bundle(ROOT / "bundles" / trained.bundle, tmp_path / "app" / "model", trained.model)


def test_monai_label_returns_mask_with_class_and_parameters(trained, bundle, tmp_path):
    item = load_datalist(trained.output / "phantom", fold="stratified-0").select("test")[0]
    Image.fromarray(read_rgb(item["image"])[:71, :93]).save(tmp_path / "tile.png")
    task = Task(bundle)
    written, told = task(tmp_path / "tile.png")
    expected = glas_wsol.load(bundle, device="cpu")(tmp_path / "tile.png")
    assert expected.evidence
    assert 0 < expected.decidable_fraction < 1
    assert written.shape == (71, 93)
    assert written.dtype == np.uint8
    # the network is not folded here, so a value on the threshold may fall to either side
    near = np.abs(expected.decidable - expected.threshold) < 1e-4
    assert np.array_equal((written > 0) | near, expected.mask | near)
    assert set(np.unique(written)) == {0, 1 + expected.label}
    assert task.labels[expected.class_name.lower()] == 1 + expected.label
    assert task.dimension == 2
    assert told["class"] == expected.class_name
    assert told["probabilities"] == pytest.approx(expected.named | told["probabilities"], abs=1e-4)
    assert json.loads(json.dumps(told))["evidence"] is True


def test_a_blank_image_has_no_label(bundle, tmp_path):
    Image.new("RGB", (71, 64), (240, 239, 241)).save(tmp_path / "blank.png")
    written, told = Task(bundle)(tmp_path / "blank.png")
    assert written.shape == (64, 71)
    assert not written.any()
    assert (told["class"], told["evidence"]) == ("no evidence", False)


def found(**changes: Any) -> Localization:
    decidable = np.zeros((3, 5), np.float32)
    decidable[0, 1:3] = 0.9
    values = {"classes": ("a", "b"), "probabilities": (0.2, 0.8), "decidable": decidable, "evidence": True, **changes}
    return Localization(name="n", path="", **values)


def test_a_map_has_x_first_and_the_label_of_the_class():
    image = MetaTensor(torch.rand(3, 3, 5), meta={"spatial_shape": (3, 5), "filename_or_obj": "n.png"})
    data = {"localization": found(), "image": image, "pred": torch.rand(3, 3, 5), "result": {"kept": 1}}
    item = LabelMapd()(data)
    assert item["pred"].tolist() == [[0, 0, 0], [2, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert torch.equal(item["image"].as_tensor(), image.as_tensor().transpose(1, 2))
    assert item["image"].meta["spatial_shape"].tolist() == [5, 3]
    assert item["image"].meta["filename_or_obj"] == "n.png"
    assert (item["result"]["kept"], item["result"]["class"]) == (1, "b")
    assert tuple(image.meta["spatial_shape"]) == (3, 5), "what was given is left as it was"
    assert LabelMapd()({**data, "localization": found(probabilities=())})["pred"].max() == 1
    with pytest.raises(ConfigError, match="several classes"):
        LabelMapd()({**data, "localization": found(multi_label=True)})
