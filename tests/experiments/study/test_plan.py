# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from glas_wsol.bundle.overrides import flatten, parse_overrides
from glas_wsol.commands.study import INSTEAD
from glas_wsol.errors import ConfigError, OutputError, SplitError
from glas_wsol.experiments.study import plan
from glas_wsol.networks.trunks import build_trunk
from glas_wsol.utils.settings import Fingerprint
from tests.experiments.study.conftest import OVERLAYS, ROOT, option

UNTRAINED = ["all_ones", "centre_gaussian", "stain"]
METHODS = [*UNTRAINED, "cam_avg", "cam_max", "cam_lse", "grad_cam", "grad_cam_pp", "wildcat", "deep_mil",
           "components", "minmax_0", "minmax_4", "refined_0", "refined_4", "unet"]  # fmt: skip


def test_the_commands_are_the_documented_ones(request_of, tissue):
    request = request_of(seeds=[3], overrides={"epochs": "7"}, split="test")
    (run,) = plan(request)
    folder = request.output / "cam_max" / "stratified-0_seed_3"
    bundle = ROOT / "bundles" / "glas_minmax_entropy" / "configs"
    files = [*(bundle / f"{name}.json" for name in ("train", "paper")), *(ROOT / name for name in OVERLAYS)]
    files.append(ROOT / "configs" / "methods" / "cam_max.json")
    start = (sys.executable, "-m", "monai.bundle", "run", "--config_file")
    given = ("--weights=none", "--epochs=7", "--dataset_dir", str(tissue), "--output_dir", str(folder))
    given += ("--seed", "3", "--fold", "stratified-0")
    train, evaluate = run.commands
    assert train == (*start, json.dumps([str(file) for file in files]), *given)
    files.append(bundle / "evaluate.json")
    assert evaluate == (*start, json.dumps([str(file) for file in files]), *given, "--split", "test")
    assert run.folder == folder


def test_every_row_in_the_order_of_the_tables_seed_by_seed(request_of):
    runs = plan(request_of(methods=["all"], seeds=[2, 0], folds=["stratified-2", "stratified-1"]))
    assert [run.method for run in runs[: len(METHODS)]] == METHODS
    trained = METHODS[len(UNTRAINED) :]
    assert [run.method for run in runs if run.fold == "stratified-2" and run.seed == 2] == trained
    later = runs[2 * len(METHODS) :]
    assert [run.method for run in later] == trained * 2, "methods without a training are not repeated for another seed"
    assert {run.seed for run in later} == {0}
    assert [run.name for run in runs if run.method == "stain"] == [
        "stain/stratified-2_seed_0",
        "stain/stratified-1_seed_0",
    ]


def test_a_refined_method_switches_the_second_stage_on_again(request_of, tmp_path):
    (run,) = plan(request_of(methods=["refined_4"], seeds=[1]))
    train, evaluate = (json.loads(command[5]) for command in run.commands)
    names = [file.rpartition("/")[2] for file in train]
    assert names == ["train.json", "paper.json", *(name.rpartition("/")[2] for name in OVERLAYS), "refined_4.json"]
    assert [file.rpartition("/")[2] for file in evaluate] == [*names, "evaluate.json"]
    assert (run.training["method"], run.training["stage"], run.training["passes"]) == ("minmax", "_refined", 4)
    assert run.training["run"][3] == "$@second_stage.run()"
    own = tmp_path / "mine.json"
    own.write_text(json.dumps({"method": "minmax", "stage": "_thrice", "passes": 1}))
    with pytest.raises(ConfigError, match=r"stage='_thrice' \[settings\]: give _refined"):
        plan(request_of(methods=[str(own)], seeds=[1]))
    own.write_text(json.dumps({"method": "minmax", "stage": "_refined", "passes": 4}))
    with pytest.raises(ConfigError, match="has the name of the method refined_4"):
        plan(request_of(methods=[str(own)], seeds=[1]))


def test_plan_explaining_method_follows_and_is_only_evaluated(request_of):
    request = request_of(methods=["grad_cam_pp"], seeds=[5])
    source, run = plan(request)
    assert (source.name, run.needs) == ("cam_avg/stratified-0_seed_5", source.name)
    (evaluate,) = run.commands
    assert option(evaluate, "checkpoint") == str(request.output / source.name / "models" / "model.pt")
    assert option(evaluate, "output_dir") == str(run.folder)
    assert len(source.commands) == 2
    assert "--checkpoint" not in source.commands[1]
    changed = plan(request_of(methods=["grad_cam_pp"], seeds=[5], overrides={"loss#label_smoothing": "0.1"}))[1]
    assert changed.training["training of cam_avg"] != run.training["training of cam_avg"]


def test_the_settings_are_those_that_monai_makes_of_the_command(request_of):
    overrides = {"epochs": "7", "optimizer#weight_decay": "1e-3", "pixel_mean": "[0.1, 0.2, 0.3]"}
    (run,) = plan(request_of(seeds=[3], overrides=overrides))
    files = json.loads(run.commands[0][5])
    typed = {"epochs": 7, "optimizer#weight_decay": 1e-3, "pixel_mean": [0.1, 0.2, 0.3], "weights": "none"}
    workflow = ConfigWorkflow(config_file=files, seed=3, fold="stratified-0", **typed, workflow_type="train")
    expected = dict(flatten({k: v for k, v in workflow.parser.get().items() if k != "_meta_"}))
    for place in ("output_dir", "dataset_dir", "bundle_root", "num_workers", "split"):
        del expected[place]
    assert {key: value for key, value in run.training.items() if key in expected} == expected
    assert set(run.training) - set(expected) == {"glas_wsol", "weights' digest", "images of train", "images of valid"}
    assert run.training["epochs"] == 7
    assert run.training["train#dataset#copy_cache"] is False


@pytest.mark.parametrize("text", ["None", "null"])
def test_overrides_without_a_value_reach_the_setting(text):
    assert parse_overrides(["--stain", text, f"--mpp={text}"], {}) == {"stain": "$None", "mpp": "$None"}


def test_plan_changes_without_effect_keep_the_settings(request_of, tissue, tmp_path):
    (run,) = plan(request_of(seeds=[0]))
    moved = shutil.copytree(tissue, tmp_path / "moved")
    light = json.loads((ROOT / OVERLAYS[0]).read_text())
    light["_desc_"] = "said otherwise"
    (tmp_path / "light.json").write_text(json.dumps(light))
    other = {"output": tmp_path / "elsewhere", "dataset_dir": str(moved), "overrides": {"num_workers": "1"}}
    (same,) = plan(request_of(seeds=[0], overlays=[tmp_path / "light.json", OVERLAYS[1]], **other))
    assert (same.training, same.evaluation) == (run.training, run.evaluation)
    assert same.commands != run.commands


def test_what_changes_the_results_changes_the_settings(request_of, tissue, tmp_path):
    (run,) = plan(request_of(seeds=[0]))

    def differing(**changes):
        (other,) = plan(request_of(**{"seeds": [0], **changes}))
        keys = run.training.keys() | other.training.keys()
        training = {k for k in keys if run.training.get(k) != other.training.get(k)}
        return training, {k for k in run.evaluation if run.evaluation[k] != other.evaluation.get(k)}

    assert differing(overrides={"epochs": "3"}) == ({"epochs"}, set())
    assert differing(overrides={"val_interval": "2"}) == ({"val_interval"}, set())
    assert differing(seeds=[1]) == ({"seed"}, set())
    assert differing(folds=["stratified-1"])[0] == {"fold", "images of train", "images of valid"}
    assert differing(split="test") == (set(), {"split", "images evaluated"})
    relabelled = shutil.copytree(tissue, tmp_path / "relabelled")
    table = relabelled / "Grade.csv"
    rows = table.read_text().splitlines()
    assert rows[1].startswith("train_1,")
    rows[1] = rows[1].replace(" malignant", " benign")
    table.write_text("\n".join(rows) + "\n")
    assert differing(dataset_dir=str(relabelled))[0] >= {"images of train"}


def test_weights_are_known_by_their_content(request_of, tmp_path):
    weights = tmp_path / "weights.pth"

    def digest(seed: int) -> tuple[str, str]:
        torch.manual_seed(seed)
        torch.save(build_imagenet_resnet18().state_dict(), weights)
        (run,) = plan(request_of(seeds=[0], overrides={"weights": str(weights)}))
        return run.training["weights"], run.training["weights' digest"]

    (name, first), (same_name, second) = digest(0), digest(1)
    assert name == same_name == str(weights)
    assert first != second
    assert len(first) == 64
    assert build_trunk("resnet18", str(weights)).weights_sha256 == second


def build_imagenet_resnet18():
    from glas_wsol.networks.trunks import TRUNKS

    return TRUNKS["resnet18"].build()


def test_settings_after_the_dashes():
    given = ["--epochs", "20", "--optimizer#lr=-1e-3", "--train::trainer#untrusted", "a=b", "--crop-size", "-64"]
    expected = {"epochs": "20", "optimizer#lr": "-1e-3", "train#trainer#untrusted": "a=b", "crop_size": "-64"}
    assert parse_overrides(given, {}) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["epochs", "20"], "'epochs' is no setting"),
        (["--epochs"], "--epochs has no value"),
        (["--epochs", "--amp", "true"], "--epochs has no value"),
        (["--seed", "3"], "use --seeds"),
        (["--output_dir=x"], "the study's folder"),
        (["--run_id", "x"], "no setting"),
    ],
)
def test_settings_that_cannot_be_given(arguments, words):
    with pytest.raises(ConfigError, match=words):
        parse_overrides(arguments, INSTEAD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["cam_agv"]}, "did you mean cam_avg"),
        ({"methods": ["mine.json"]}, "no such file"),
        ({"overlays": ["configs/data/lihgt.json"]}, "no such file"),
        ({"folds": ["patient-5"]}, "no fold 'patient-5'"),
        ({"overrides": {"epochz": "3"}}, "did you mean epochs"),
        ({"overrides": {"method": "cam_avg"}}, "would undo what the method cam_max sets"),
        ({"overrides": {"train": "3"}}, "would undo"),
        ({"overrides": {"trunk": "resnet19"}}, "no trunk named 'resnet19'"),
        ({"dataset_dir": "/no/such/folder"}, "no such data set"),
        ({"bundle": ROOT / "configs"}, "no configs/evaluate.json"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(request_of, changes, words):
    request = request_of(**changes)
    with pytest.raises(ConfigError, match=words):
        plan(request)
    assert not request.output.exists()


def test_an_overlay_of_the_user_s_is_a_row(request_of, tmp_path, monkeypatch):
    (tmp_path / "wider.json").write_text(json.dumps({"method": "minmax", "passes": 2}))
    monkeypatch.chdir(tmp_path)
    runs = plan(request_of(methods=["wider.json", "cam_max", "configs/methods/cam_lse.json"], seeds=[0]))
    assert [run.method for run in runs] == ["cam_max", "cam_lse", "wider"]
    assert str(tmp_path / "wider.json") in runs[2].commands[0][5]
    assert runs[2].training["passes"] == 2


def test_overlays_that_make_no_row(request_of, tmp_path):
    (tmp_path / "cam_max.json").write_text('{"method": "mine"}')
    with pytest.raises(ConfigError, match="two methods are called 'cam_max'"):
        plan(request_of(methods=["cam_max", str(tmp_path / "cam_max.json")]))
    (tmp_path / "broken.json").write_text('{"passes": ')
    with pytest.raises(ConfigError, match=r"cannot be read .*broken\.json"):
        plan(request_of(methods=[str(tmp_path / "broken.json")]))
    (tmp_path / "lost.json").write_text('{"method": "lost", "no#such#block": 3}')
    with pytest.raises(ConfigError, match=r"do not fit together .*lost\.json"):
        plan(request_of(methods=[str(tmp_path / "lost.json")]))


def test_folds_and_splits_that_the_data_do_not_have(request_of, tmp_path):
    split = tmp_path / "split"
    for name in ("train/benign/1", "train/malignant/2", "valid/benign/3", "valid/malignant/4"):
        (split / name).parent.mkdir(parents=True)
        Image.new("RGB", (70, 64)).save(split / f"{name}.png")
    assert len(plan(request_of(dataset_dir=str(split), seeds=[0]))) == 1
    with pytest.raises(ConfigError, match="folds stratified-0 and stratified-1 have the same images"):
        plan(request_of(dataset_dir=str(split), folds=["stratified"]))
    with pytest.raises(SplitError, match="no 'test' split"):
        plan(request_of(dataset_dir=str(split), split="test"))


def test_all_five_folds_of_a_kind(request_of):
    runs = plan(request_of(folds=["stratified", "stratified-2"], seeds=[0]))
    assert [run.fold for run in runs] == [f"stratified-{k}" for k in range(5)]
    assert len({run.training["images of valid"] for run in runs}) == 5


def test_one_phantom_for_all_runs_made_only_when_it_is_allowed(request_of):
    small = {"phantom#train": "12", "phantom#test": "0", "phantom#size": "[64, 72]", "phantom#scale": "0.15"}
    request = request_of(methods=["cam_max", "stain"], dataset_dir=None, overrides=small)
    before = plan(request, make_phantom=False)
    assert not request.output.exists()
    after = plan(request)
    tiles = sorted((request.output / "phantom").glob("train_*.bmp"))
    assert len(tiles) == 24, "an image and its glands"
    assert {option(c, "dataset_dir") for run in after for c in run.commands} == {str(request.output / "phantom")}
    assert [run.commands for run in before] == [run.commands for run in after]
    assert before[0].training["images of train"] is None
    written = tiles[0].stat().st_mtime_ns
    assert plan(request) == after == plan(request, make_phantom=False)
    assert tiles[0].stat().st_mtime_ns == written
    with pytest.raises(OutputError, match=r"another phantom \(different: scale\)"):
        plan(request_of(dataset_dir=None, overrides=small | {"phantom#scale": "0.2"}))


def test_from_any_folder(request_of, tmp_path, monkeypatch):
    here = plan(request_of(bundle="bundles/glas_minmax_entropy", output=tmp_path / "b"))
    monkeypatch.chdir(tmp_path)
    assert plan(request_of(bundle="bundles/glas_minmax_entropy", output=tmp_path / "b")) == here
    assert plan(request_of(output="b"))[0].folder == here[0].folder


def test_a_digest_knows_no_order():
    one, same, other = Fingerprint(a=1, b=[2]), Fingerprint(b=[2], a=1), Fingerprint(a=1, b=[3])
    assert one.digest() == same.digest() != other.digest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"passes": 2}, "does not name its method"),
        ({"method": "cam_avg", "passes": None}, "has the name of the method cam_avg"),
        ({"method": "minmax", "passes": 4}, "has the name of the method minmax_4"),
    ],
)
def test_plan_own_method_with_a_known_name_is_refused(content, said, request_of, tmp_path):
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=said):
        plan(request_of(methods=[str(overlay)]))


def test_without_folds_the_fold_is_the_configs_own(request_of, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"fold": "stratified-3"}))
    overlays = [*OVERLAYS, str(own)]
    assert {run.fold for run in plan(request_of(folds=[], overlays=overlays, methods=["stain"]))} == {"stratified-3"}
