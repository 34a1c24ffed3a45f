# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The configs as texts: shared ids, what the two bundles differ in, overlays, nothing dangerous."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from glas_wsol.bundle.command_line import unknown_ids
from glas_wsol.bundle.overrides import merged
from glas_wsol.networks import TRUNKS
from glas_wsol.utils.json_files import format_config
from tests.bundles.conftest import BUNDLES, ROOT, SMALL, config, paper

OTHERS = {  # ids that no setting is: places, references, lists of what is done
    *("_desc_", "imports", "bundle_root", "output_dir", "classes"),
    *("training_mpp", "final_network", "spatial_keys", "initialize", "run", "finalize"),
}
FLAT = {
    *("dataset_dir", "output_dir", "trunk", "weights", "device", "seed", "epochs", "batch_size", "crop_size"),
    *("passes", "split", "num_workers", "amp"),
}
CONFIGS = sorted([*ROOT.glob("bundles/*/configs/*.json"), *ROOT.glob("configs/*/*.json")])
OVERLAYS = sorted(ROOT.glob("configs/*/*.json"))


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{prefix}#{key}" if prefix else key)
    elif isinstance(value, list) and value:
        for key, below in enumerate(value):
            yield from leaves(below, f"{prefix}#{key}")
    else:
        yield prefix, value


def read(bundle: str, name: str) -> dict[str, Any]:
    return json.loads(Path(config(bundle, name)).read_text())


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_flat_ids_exist_in_both_bundles(bundle):
    assert set(read(bundle, "train")) >= FLAT


def differing(name: str) -> set[str]:
    glas, cub5 = (dict(leaves(read(bundle, name))) for bundle in BUNDLES)
    return {key for key in glas.keys() | cub5.keys() if glas.get(key) != cub5.get(key)} - {"_desc_"}


PHANTOM = {f"phantom#{key}" for key in ("train", "test", "size#0", "size#1", "scale", "confounded")}


def test_the_bundles_differ_in_the_data_and_its_recipe_only():
    augmentation = {
        "reflect_fraction",
        "vertical_flip",
        "color_jitter",
        "rotation",
        "scale",
        "refined_network#network#class_from",
    }
    optimizer = {"optimizer#params", "lr_scheduler#max_lr#0", "lr_scheduler#max_lr#1"}
    masks = {"mask_threshold", "fill_holes", "drop_specks"}
    views = {f"second_stage#component_inferer#{key}" for key in ("flips", "rotations")}
    teachers = {"teachers#components", "teachers#stain", "seed_share", "seed_share#0", "seed_share#1", *views}
    data = {"subject", "short_side", "stain", "datalist#dataset_dir#kind", *PHANTOM}
    assert differing("train") <= augmentation | masks | optimizer | teachers | data
    assert differing("paper") <= {"dropout", "short_side"}
    classes = {f"card#classes#{place}" for place in range(5)}
    card = {"card#short_side", "card#stain", *classes}
    assert differing("inference") <= card | PHANTOM | {"recursive", "source#kind", "source#below"}
    for name in ("evaluate", "multi_gpu_train", "multi_gpu_evaluate", "mlflow"):
        assert read(BUNDLES[0], name) == read(BUNDLES[1], name)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_train_json_is_short_and_names_no_place_in_a_list(bundle):
    text = Path(config(bundle, "train")).read_text()
    assert text.count("\n") < 450
    assert not re.findall(r"@[\w#]*#\d", text)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_flat_setting_is_in_the_table_of_settings(bundle):
    train = read(bundle, "train")
    table = {name: value for name, value in train["settings"].items() if name != "_target_"}
    assert table == {name: f"@{name}" for name in table}
    flat = {name for name, value in train.items() if name not in OTHERS and not isinstance(value, dict)}
    assert flat | {"teachers", "phantom"} == table.keys()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_paper_json_is_the_papers_recipe(bundle):
    train = merged([Path(one) for one in paper(bundle)], {}).config
    assert [train[k] for k in ("trunk", "crop_size", "epochs", "batch_size", "passes")] == ["resnet101", 480, 400, 8, 4]
    assert train["pixel_mean"] == train["pixel_std"] == [0.5] * 3
    assert train["dropout"] == {"glas_minmax_entropy": 0.75, "cub5_minmax_entropy": 0.85}[bundle]
    optimizer = {k: v for k, v in train["optimizer"].items() if k != "params"}
    assert optimizer == {
        "_target_": "torch.optim.SGD",
        "lr": 1e-3,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-5,
        "fused": "@fused",
    }
    schedule = eval(train["lr_scheduler"]["lr_lambda"].removeprefix("$"))  # noqa: S307 - our own config
    assert [schedule(e) * 1e-3 for e in (0, 39, 40, 80, 399)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-7])


@pytest.mark.parametrize("bundle", BUNDLES)
def test_train_json_with_light_overlays_is_the_paper_recipe(bundle):
    light = {BUNDLES[0]: "data/light", BUNDLES[1]: "data/light_photographs"}[bundle]
    overlays = (light, "trunks/efficientnet_lite0", "methods/refined_0")
    parts = [Path(config(bundle, name)) for name in ("train", "paper")]
    parts += [ROOT / "configs" / f"{name}.json" for name in overlays]
    train, restored = (merged(files, {}).config for files in (parts[:1], parts))
    ours = {name for name in train if train[name] != restored[name]}
    assert ours - {"_desc_", "short_side"} == set()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.stem)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_overlays_override_ids_that_exist(overlay, bundle):
    parser = ConfigParser()
    parser.read_config(paper(bundle))
    assert unknown_ids(parser, [key for key in json.loads(overlay.read_text()) if key != "_desc_"]) == []


def test_there_is_an_overlay_for_every_trunk():
    overlays = {json.loads(path.read_text())["trunk"] for path in ROOT.glob("configs/trunks/*.json")}
    assert overlays == set(TRUNKS) - {SMALL["trunk"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: "-".join(p.parts[-3:]))
def test_configs_have_no_unused_part_and_one_format(path):
    text = path.read_text()
    assert text == format_config(json.loads(text))
    targets = [value for key, value in leaves(json.loads(text)) if key.endswith("_target_")]
    allowed = ("glas_wsol.", "torch.nn.", "torch.optim.", "ignite.metrics.")
    assert all(t.startswith(allowed) or "." not in t for t in targets)
    imports = [value for _, value in leaves(json.loads(text)) if isinstance(value, str) and "import" in value.split()]
    assert [i for i in imports if i.startswith("$import")] == [
        i for i in imports if i in ("$import sys", "$import torch")
    ]
    assert "http" not in text or path.name == "metadata.json"


def documented() -> dict[str, tuple[str, str]]:
    """The default columns of docs/settings.md, by flat id: of GlaS and of CUB5."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    text = text[text.index("## Flat settings of train.json") : text.index("## The alarm")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    found = {}
    for names, _, glas, cub5, *_ in rows:
        for name in re.findall(r"`(\w+)`", names):
            found[name] = (glas, glas if cub5 == "the same" else cub5)
    return found


def said(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("place", range(2), ids=BUNDLES)
def test_docs_say_the_defaults_of_the_configs(place):
    train = read(BUNDLES[place], "train")
    papers = merged([Path(one) for one in paper(BUNDLES[place])], {}).config
    table = documented()
    assert train["settings"].keys() - {"_target_"} <= table.keys()
    for name in train["settings"].keys() - {"_target_", "teachers", "phantom", "stage", "scales", "selection_rule"}:
        ours, theirs = train[name], papers[name]
        if any(str(value).startswith("$") for value in (ours, theirs)):
            continue
        expected = [said(json.loads(one)) for one in dict.fromkeys(map(json.dumps, (ours, theirs)))]
        written = table[name][place].replace("0.5 each", "[0.5, 0.5, 0.5]")
        assert [float(x) if x[0].isdigit() else x for x in written.split(" / ")] == [
            float(x) if x[0].isdigit() else x for x in expected
        ], name
