# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Teachers, their seeds on disk, and rounds of self-training, on a tiny network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer

from glas_wsol.data.seeded import SeededCacheDataset
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.handlers import write_model
from glas_wsol.inferers import TrainingInferer, WholeTileInferer
from glas_wsol.networks import FeatureComponentNetwork, FixedMaskNetwork, RefinedNetwork
from glas_wsol.pseudo_labels.seed_files import read_record, write_record
from glas_wsol.pseudo_labels.seeds import IGNORE, PartialCrossEntropy, SeedBatch, agreement, pick_seeds
from glas_wsol.pseudo_labels.self_training import SelfTraining
from glas_wsol.pseudo_labels.teachers import first_seeds, log_odds
from glas_wsol.transforms import read_mask
from tests.conftest import tiny_network, tiny_trunk

SIZES = [(70, 101), (64, 96), (90, 66), (64, 96)]


def items() -> list[dict]:
    draw = np.random.default_rng(0)
    made = []
    for index, size in enumerate(SIZES):
        pixels = draw.random((3, *size)).astype(np.float32) * 0.3
        pixels[:, : size[0] // 2, 10:50] += 0.5 + 0.2 * (index % 2)
        made.append({"name": f"tile_{index}", "image": torch.tensor(pixels), "label": index % 2, "group": index})
    return made


def read(item: dict) -> dict:
    return {"image": item["image"]}


@pytest.fixture
def stage_one(tmp_path) -> Path:
    write_model(tiny_network(seed=4), tmp_path / "one", {"method": "minmax"})
    return tmp_path / "one" / "model.pt"


def network() -> RefinedNetwork:
    return RefinedNetwork(tiny_trunk(), decoder_width=8, seed=0)


def components() -> FeatureComponentNetwork:
    return FeatureComponentNetwork(tiny_trunk(), seed=0)


def seeds_of(found: list[dict]) -> list[np.ndarray]:
    return [read_mask(item["seeds"]) for item in found]


def make(stage_one: Path, tmp_path: Path, **changes) -> list[dict]:
    options = {"weights": {"components": 1.0, "stage_one": 1.0}, "share": 0.3}
    torch.manual_seed(5)  # the tiny trunk has no seed of its own
    return first_seeds(
        changes.pop("network", None) or network(),
        stage_one,
        changes.pop("components", None) or components(),
        changes.pop("items", None) or items(),
        read,
        changes.pop("inferer", None) or WholeTileInferer(),
        tmp_path / "seeds",
        **{**options, **changes},
    )


def test_teachers_scores_are_log_odds_in_image_sizes():
    one = tiny_network().train()
    scores = log_odds(one, items(), read, WholeTileInferer(0.5))
    assert [s.shape for s in scores] == SIZES
    assert all(s.dtype == np.float32 for s in scores)
    assert one.training, "as it was found"
    one.eval()
    with torch.no_grad():
        rest = WholeTileInferer(0.5)(items()[0]["image"].unsqueeze(0), one)[0, 0].double()
    np.testing.assert_allclose(scores[0], torch.log((1 - rest) / rest), rtol=1e-3, atol=1e-4)
    (ones, *_) = log_odds(FixedMaskNetwork("all_ones"), items(), read, WholeTileInferer())
    assert np.isfinite(ones).all()
    assert (ones > 10).all()


def test_teachers_first_stage_seeds_its_most_certain_pixels(stage_one, tmp_path):
    refined = network()
    found = make(stage_one, tmp_path, network=refined, weights={"stage_one": 1.0, "components": 0.0})
    trained = torch.load(stage_one, weights_only=True)
    assert all(torch.equal(trained[name], value) for name, value in refined.base.state_dict().items())
    scores = log_odds(refined.base, items(), read, WholeTileInferer())
    wanted = pick_seeds({"stage_one": scores}, 0.3)
    assert all(np.array_equal(a, b) for a, b in zip(seeds_of(found), wanted, strict=True))
    assert [item["name"] for item in found] == [item["name"] for item in items()]
    record = read_record(tmp_path / "seeds" / "round_1")
    assert "orientation" not in record, "nothing was fitted for a teacher of no weight"
    assert record["made_with"]["stage_one"] == json.loads(stage_one.with_suffix(".json").read_text())["sha256"]


def test_the_teachers_seeds_are_those_of_their_weighted_ranks(stage_one, tmp_path):
    refined, fitted = network(), components()
    weights = {"components": 2.0, "stage_one": 1.0, "stain": 0.5}
    found = make(stage_one, tmp_path, network=refined, components=fitted, weights=weights, scope="both")
    scores = {
        "components": log_odds(fitted, items(), read, WholeTileInferer()),
        "stage_one": log_odds(refined.base, items(), read, WholeTileInferer()),
        "stain": log_odds(FixedMaskNetwork("stain"), items(), read, WholeTileInferer()),
    }
    wanted = pick_seeds(scores, 0.3, "both", weights)
    assert all(np.array_equal(a, b) for a, b in zip(seeds_of(found), wanted, strict=True))
    record = read_record(tmp_path / "seeds" / "round_1")
    halves = [
        agreement(a > np.median(a), b > np.median(b))
        for a, b in zip(scores["components"], scores["stage_one"], strict=True)
    ]
    assert record["teachers_agree"] == pytest.approx(np.mean(halves))
    assert record["orientation"]["margin"] >= -2 * record["orientation"]["standard_error"]


def of_two_sources() -> list[dict]:
    """The second two images are of a laboratory that stains darker."""
    return [
        {**item, "image": item["image"] * (1 - 0.5 * (n > 1)), "source": "AABB"[n]} for n, item in enumerate(items())
    ]


def test_teachers_by_source_seed_each_source_by_its_own_ranks(stage_one, tmp_path):
    options = {"weights": {"stain": 0.4, "stage_one": 0.6}, "scope": "source"}
    mixed = [of_two_sources()[n] for n in (0, 2, 1, 3)]
    found = make(stage_one, tmp_path, items=mixed, **options)
    for source in "AB":
        mine = [item for item in found if item["source"] == source]
        alone = make(stage_one, tmp_path / source, items=[i for i in mixed if i["source"] == source], **options)
        assert all(np.array_equal(a, b) for a, b in zip(seeds_of(mine), seeds_of(alone), strict=True))
    over_all = make(stage_one, tmp_path / "all", items=mixed, **{**options, "scope": "dataset"})
    assert not all(np.array_equal(a, b) for a, b in zip(seeds_of(found), seeds_of(over_all), strict=True))


def test_teachers_existing_seeds_are_reused_unwritten(stage_one, tmp_path):
    first = make(stage_one, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "seeds").rglob("*.*")}
    again = make(stage_one, tmp_path)
    assert [item["seeds"] for item in again] == [item["seeds"] for item in first]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "seeds").rglob("*.*")} == files


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"share": 0.2}, "share was 0.3, is 0.2"),
        ({"scope": "image"}, "scope was 'dataset', is 'image'"),
        ({"weights": {"components": 1.0, "stage_one": 0.5}}, "teachers was"),
        ({"items": items()[:3]}, "images was"),
        ({"items": [{**item, "label": 1 - item["label"]} for item in items()]}, "images was"),
        ({"items": [{**item, "source": "A"} for item in items()]}, "images was"),
        ({"inferer": WholeTileInferer(0.5)}, "inferer was"),
        ({"component_inferer": WholeTileInferer(flips=True)}, "component_inferer was"),
        ({"components": FeatureComponentNetwork(tiny_trunk(), omega=9.0)}, "components was"),
    ],
)
def test_seeds_made_with_other_settings_are_refused_in_one_line(stage_one, tmp_path, changes, named):
    make(stage_one, tmp_path)
    with pytest.raises(OutputError, match=named) as caught:
        make(stage_one, tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_teachers_other_first_stage_refused_partial_round_redone(stage_one, tmp_path):
    make(stage_one, tmp_path)
    write_model(tiny_network(seed=5), stage_one.parent, {"method": "minmax"})
    with pytest.raises(OutputError, match="stage_one was"):
        make(stage_one, tmp_path)
    (tmp_path / "seeds" / "round_1" / "seeds.json").unlink()
    make(stage_one, tmp_path)
    assert read_record(tmp_path / "seeds" / "round_1") is not None
    (tmp_path / "seeds" / "round_1" / "seeds.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        make(stage_one, tmp_path)


@pytest.mark.parametrize(
    ("wishes", "what"),
    [
        ({"weights": {"oracle": 1.0}}, "no teacher named 'oracle'"),
        ({"weights": {"stain": 0.0}}, "no teacher has a positive weight|give one to any of"),
        ({"share": 0.7}, "share=0.7"),
        ({"scope": "all"}, "seed_scope='all'"),
    ],
)
def test_first_seeds_refuses_settings_that_are_not_valid(stage_one, tmp_path, wishes, what):
    with pytest.raises(ConfigError, match=what) as caught:
        make(stage_one, tmp_path, **{"weights": {"stain": 1.0}, **wishes})
    assert "\n" not in str(caught.value)


class Run:
    """Rounds of training on whole tiles."""

    def __init__(self, stage_one: Path, folder: Path, rounds: int, epochs: int = 2, **options) -> None:
        self.network = network()
        shown = options.pop("items", None)
        self.items = make(stage_one, folder, network=self.network, weights={"stage_one": 1.0}, items=shown)
        self.dataset = SeededCacheDataset(self.items, self.load)
        arguments = {"inferer": WholeTileInferer(), "directory": folder / "seeds", "epochs": epochs, "rounds": rounds}
        self.handler = SelfTraining(self.network, self.dataset, self.items, read, **arguments, **options)
        self.seen: list[set[int]] = []
        self.engine = SupervisedTrainer(
            device="cpu",
            max_epochs=rounds * epochs,
            train_data_loader=DataLoader(self.dataset, batch_size=1),
            network=self.network,
            optimizer=torch.optim.SGD(self.network.decoder.parameters(), lr=0.1),
            loss_function=PartialCrossEntropy(),
            inferer=TrainingInferer("mask_logits"),
            prepare_batch=SeedBatch(),
            train_handlers=[self.handler],
            decollate=False,
        )

    def load(self, item: dict) -> dict:
        window = (slice(0, 64), slice(0, 64))
        seeds = torch.tensor(read_mask(item["seeds"])[window].astype(np.uint8)).unsqueeze(0)
        return {"image": item["image"][:, :64, :64], "seeds": seeds}


def test_teachers_after_a_round_seed_its_most_certain_pixels(stage_one, tmp_path):
    run = Run(stage_one, tmp_path, rounds=2, tolerance=-1.0)
    first = seeds_of(run.items)
    run.engine.run()
    folders = [tmp_path / "seeds" / f"round_{n}" for n in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "seeds").iterdir()) == ["round_1", "round_2"]
    records = [read_record(folder) for folder in folders]
    masks = [[read_mask(folder / "masks" / f"{item['name']}.png") > 0 for item in run.items] for folder in folders]
    assert all(np.array_equal(a, b) for a, b in zip(first, seeds_of(run.items), strict=True))

    # What the seeds of the second round and the records say follows from the masks and seeds on disk.
    second = [read_mask(folders[1] / f"{item['name']}.png") for item in run.items]
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    for record, mask, seeds in zip(records, masks, (first, second), strict=True):
        pairs = [(m[s != IGNORE], s[s != IGNORE] > IGNORE) for m, s in zip(mask, seeds, strict=True)]
        kappa = agreement(*(np.concatenate(one) for one in zip(*pairs, strict=True)))
        assert record["student_agrees"] == pytest.approx(kappa)
    whole = [np.concatenate([m.ravel() for m in mask]) for mask in masks]
    assert records[0]["same_as_before"] is None
    assert records[1]["same_as_before"] == pytest.approx(agreement(*whole))
    assert records[1]["made_with"] == {
        **records[0]["made_with"],
        "teachers": {"student": 1.0},
        "refine_epochs": 2,
        "round": 2,
    }
    final = log_odds(run.network, run.items, read, WholeTileInferer())
    assert all(np.array_equal(m, s > 0) for m, s in zip(masks[1], final, strict=True))
    current = [np.asarray(run.dataset[i]["seeds"])[0] for i in range(len(SIZES))]
    assert all(np.array_equal(a, b[:64, :64]) for a, b in zip(current, second, strict=True)), "trained on"


def test_teachers_next_round_seeds_are_of_its_teacher(stage_one, tmp_path):
    run = Run(stage_one, tmp_path, rounds=2, epochs=1)
    run.engine.state.epoch, run.engine.state.metrics, run.engine.state.device = 1, {}, torch.device("cpu")
    run.handler._teach(run.engine)
    scores = log_odds(run.network, run.items, read, WholeTileInferer())
    wanted = pick_seeds({"student": scores}, 0.3)
    for item, one in zip(run.items, wanted, strict=True):
        assert np.array_equal(read_mask(tmp_path / "seeds" / "round_2" / f"{item['name']}.png"), one)
    assert read_record(tmp_path / "seeds" / "round_1")["loss"] is None, "not a number is none"


def test_teachers_next_round_seeds_each_source_by_its_own_ranks(stage_one, tmp_path):
    run = Run(stage_one, tmp_path, rounds=2, epochs=1, items=of_two_sources(), scope="source")
    run.engine.state.epoch, run.engine.state.metrics, run.engine.state.device = 1, {}, torch.device("cpu")
    run.handler._teach(run.engine)
    scores = log_odds(run.network, run.items, read, WholeTileInferer())
    wanted = [one for pair in (scores[:2], scores[2:]) for one in pick_seeds({"student": pair}, 0.3)]
    for item, one in zip(run.items, wanted, strict=True):
        assert np.array_equal(read_mask(tmp_path / "seeds" / "round_2" / f"{item['name']}.png"), one)


def test_it_ends_when_the_masks_no_longer_change_and_stays_ended(stage_one, tmp_path):
    run = Run(stage_one, tmp_path, rounds=5, epochs=1, tolerance=2.5)  # any two masks are the same to it
    run.engine.run()
    assert run.engine.state.epoch == 2, "two masks are needed to compare"
    assert sorted(path.name for path in (tmp_path / "seeds").iterdir()) == ["round_1", "round_2"]
    assert run.handler.state_dict() == {"reached": True}
    shutil.rmtree(tmp_path / "seeds")
    other = Run(stage_one, tmp_path, rounds=5, epochs=1)
    assert not other.handler.reached
    other.handler.load_state_dict(run.handler.state_dict())
    assert other.handler.reached
    shutil.rmtree(tmp_path / "seeds")
    stubborn = Run(stage_one, tmp_path, rounds=3, epochs=1, tolerance=-1.0)
    stubborn.engine.run()
    assert stubborn.engine.state.epoch == 3
    assert not stubborn.handler.reached


def test_teachers_lost_or_foreign_later_seeds_are_refused(stage_one, tmp_path):
    run = Run(stage_one, tmp_path, rounds=2, epochs=1, tolerance=-1.0)
    run.engine.run()
    folder = tmp_path / "seeds" / "round_2"
    record = read_record(folder)
    for change, what in (
        ({"seed_share": 0.1}, "seed_share was 0.1, is 0.3"),
        ({"stage_one": "ab"}, "stage_one was 'ab'"),
    ):
        write_record(folder, {**record, "made_with": {**record["made_with"], **change}})
        other = Run(stage_one, tmp_path, rounds=2, epochs=1)
        other.engine.state.epoch = 2
        with pytest.raises(OutputError, match=what):
            other.handler._take_up(other.engine)
    shutil.rmtree(folder)
    with pytest.raises(OutputError, match="seeds of round 2 are not here") as caught:
        other.handler._take_up(other.engine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"rounds": 0}, {"epochs": 0}])
def test_a_round_has_an_epoch_and_a_training_a_round(stage_one, tmp_path, options):
    with pytest.raises(ConfigError, match="at least one of each"):
        Run(stage_one, tmp_path, **{"rounds": 1, "epochs": 1, **options})
