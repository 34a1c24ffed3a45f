# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What happens before a run: mistyped overrides, checkpoints, data sets and output folders, errors in one line."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose
from safetensors.torch import save_file

from glas_wsol.bundle import Settings, preflight, resolve_dataset, startup
from glas_wsol.bundle.command_line import refuse_unknown_ids, unknown_ids
from glas_wsol.errors import ConfigError, ImageFileError, OutputError, WeightsError, as_typed
from glas_wsol.networks.checkpoint import load_checkpoint, model_card
from glas_wsol.utils.digests import sha256_of
from tests.conftest import tiny_network

RUN = ["/site-packages/monai/bundle/__main__.py", "run"]
CONFIG = {
    "epochs": 3,
    "dropout": 0.5,
    "output_dir": "out",
    "classes": ["a", "b"],
    "phantom": {"seed": 0, "train": 5},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "params": "$[]"},
    "train": {
        "handlers": [{"_target_": "glas_wsol.handlers.StopOnNonFiniteLoss"}, {"every": 2}],
        "trainer": {"_target_": "Trainer", "max_epochs": "@epochs"},
    },
}


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture
def as_it_was(monkeypatch):
    """Puts back what a preflight changes in the process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with warnings.catch_warnings():
        yield monkeypatch


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "9"],
        ["--epochs=9"],
        ["--optimizer#lr", "0.1"],
        ["--optimizer::lr=0.1"],
        ["--optimizer#momentum", "0.9"],  # a further argument of a component
        ["--optimizer::momentum=0.9"],
        ["--train#handlers#0#every", "5"],
        ["--train#trainer#amp=True"],
        ["--train#handlers#1#every", "5"],
        ["--classes#1", "c"],
        ["--phantom#train", "7"],
        ["--phantom", "{'anything': 1}"],
        ["--output-dir", "elsewhere"],  # the command line takes dashes for underscores
        ["--output_dir", "--"],
        ["--epochs", "-1"],  # a number, not an option of one dash
        ["--optimizer#lr", "-.5", "--dropout=-1e-3"],
        ["-epochs", "9"],
        ["--logging_file", "log.conf", "--tracking", "none", "--run_id", "run", "--meta_file", "m.json"],
        [],
    ],
)
def test_overrides_of_what_exists_pass(config, options):
    refuse_unknown_ids([*RUN, "--config_file", config, *options])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("epoch", "'epoch' [command line]: did you mean epochs"),
        ("dropuot", "did you mean dropout"),
        ("optimiser", "did you mean optimizer"),
        ("optimiser#lr", "did you mean optimizer#lr"),
        ("train::trianer::max_epochs", "did you mean train#trainer#max_epochs"),
        ("phantom#trian", "did you mean phantom#train"),  # not a component: nothing would read it
        ("epochs#lr", "no setting named 'epochs#lr'"),
        ("classes#2", "no setting named 'classes#2'"),
        ("train#handlers#7#every", "no setting named 'train#handlers#7#every'"),
        ("+dropuot", "did you mean dropout"),
    ],
)
@pytest.mark.parametrize("style", ["space", "equals"])
def test_a_typo_is_refused_with_the_nearest_name(config, option, said, style):
    typed = [f"--{option}", "1"] if style == "space" else [f"--{option}=1"]
    with pytest.raises(ConfigError) as caught:
        refuse_unknown_ids([*RUN, "--config_file", config, *typed])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "fix"),
    [
        ("classes_per_image", "give multi_label: true for several classes, false for one"),
        ("seeds_over", "give seed_scope: source, dataset, image or both"),
        ("network_def#classes_per_image", "give network_def#multi_label"),
        ("validate::inferer::opinions", "give validate#inferer#class_scores"),
        ("read_training", "give read"),
        ("refine#network_def#opinion", "give refined_network#network#class_from"),
        ("refine#handlers#6#tolerance", "give second_stage#tolerance"),
        ("refine#optimizer#weight_decay", "give second_stage#weight_decay"),
        ("refine#components#omega", "give second_stage#components#omega"),
        ("refine#dataset#copy_cache", "leave it out"),
    ],
)
def test_former_ids_are_refused_with_the_present_ones(option, fix):
    train = str(Path(__file__).parents[2] / "bundles" / "glas_minmax_entropy" / "configs" / "train.json")
    with pytest.raises(ConfigError) as caught:
        refuse_unknown_ids([*RUN, "--config_file", train, f"--{option}", "1"])
    parts = option.replace("::", "#")
    assert f"{parts!r} has another name now" in str(caught.value)
    assert fix in str(caught.value)


def test_former_names_are_arguments_of_other_components(tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": 9}}), encoding="utf-8")
    refuse_unknown_ids([*RUN, "--config_file", str(file), "--inferer#overlap", "0.5"])


@pytest.mark.parametrize("typed", [["-epochz", "9"], ["-epochz=9"], ["--epochs", "-1", "-epochz", "-1"]])
def test_a_typo_after_one_dash_is_refused_too(config, typed):
    with pytest.raises(ConfigError, match=r"'epochz' \[command line\]: did you mean epochs"):
        refuse_unknown_ids([*RUN, "--config_file", config, *typed])


@pytest.mark.parametrize("command", ["run", "run_workflow"])
def test_both_commands_that_run_a_config_are_looked_at(config, command):
    refuse_unknown_ids([RUN[0], command, "--config_file", config, "--epochs", "9"])
    with pytest.raises(ConfigError, match="did you mean epochs"):
        refuse_unknown_ids([RUN[0], command, "--config_file", config, "--epochz", "9"])


def test_with_nothing_near_the_flat_names_are_listed(config):
    with pytest.raises(ConfigError) as caught:
        refuse_unknown_ids([*RUN, "--config_file", config, "--xyzzy", "1"])
    assert all(name in str(caught.value) for name in CONFIG)
    assert "#" not in str(caught.value)


@pytest.mark.parametrize("form", ["--config_file={}", "--config-file={}"])
def test_startup_config_file_with_equals_sign_is_accepted(config, form):
    refuse_unknown_ids([*RUN, form.format(config), "--epochs", "2"])
    with pytest.raises(ConfigError, match="did you mean epochs"):
        refuse_unknown_ids([*RUN, form.format(config), "--epochz", "2"])
    with pytest.raises(ConfigError, match="did you mean epochs"):
        refuse_unknown_ids([*RUN, "training", "--epochz=2", *form.format(config).split("=")])


def test_an_id_of_any_of_several_config_files_is_known(config, tmp_path):
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"crop_size": 240, "train#trainer#max_epochs": 1}))
    files = str([config, str(overlay)])
    refuse_unknown_ids([*RUN, "--config_file", files, "--crop_size", "9", "--epochs", "1"])
    with pytest.raises(ConfigError, match="did you mean crop_size"):
        refuse_unknown_ids([*RUN, "--config_file", files, "--crop-sizes", "9"])


def test_what_a_tracking_file_sets_is_known_too(config, tmp_path):
    tracking = tmp_path / "tracking.json"
    tracking.write_text(json.dumps({"handlers_id": {}, "configs": {"experiment_name": "mine", "epochs": 1}}))
    typed = [*RUN, "--config_file", config, "--tracking", str(tracking)]
    refuse_unknown_ids([*typed, "--experiment_name", "other"])
    refuse_unknown_ids([*RUN, "--config_file", config, "--tracking", str({"configs": "x" * 5000})])
    with pytest.raises(ConfigError, match="did you mean experiment_name"):
        refuse_unknown_ids([*typed, "--experiment-nam", "other"])


def test_startup_monai_mlflow_settings_are_refused_with_ours(config, tmp_path):
    with pytest.raises(ConfigError, match=r"no training here makes.*configs/mlflow\.json") as caught:
        refuse_unknown_ids([*RUN, "--config_file", config, "--tracking", "mlflow"])
    assert "\n" not in str(caught.value)
    (tmp_path / "inference.json").write_text(json.dumps({"evaluator": 1}))
    refuse_unknown_ids([*RUN, "--config_file", str(tmp_path / "inference.json"), "--tracking", "mlflow"])


def test_ids_and_the_config_may_stand_in_a_file_of_arguments(config, tmp_path):
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"config_file": config, "epochs": 5}))
    refuse_unknown_ids([*RUN, "--args_file", str(arguments), "--dropout", "0"])
    with pytest.raises(ConfigError, match="did you mean dropout"):
        refuse_unknown_ids([*RUN, "--args_file", str(arguments), "--dropot", "0"])
    arguments.write_text(json.dumps({"config_file": config, "epoch": 5}))
    with pytest.raises(ConfigError, match="did you mean epochs"):
        refuse_unknown_ids([*RUN, "--args_file", str(arguments)])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["pytest"],
        ["/bin/pytest", "run", "--epochz", "1"],
        [RUN[0], "ckpt_export", "--epochz", "1"],
        [*RUN, "--epochz", "1"],  # no config: MONAI says so itself
    ],
)
def test_other_commands_are_not_looked_at(argv):
    refuse_unknown_ids(argv)


def test_unknown_ids_of_a_parser():
    from monai.bundle import ConfigParser

    parser = ConfigParser(CONFIG)
    given = ["epochs", "epochz", "optimizer#nesterov", "optimizer#a#b", "phantom#seed", "train#trainer#x", "train#x"]
    assert unknown_ids(parser, given) == ["epochz", "optimizer#a#b", "train#x"]


def test_without_a_card_the_defaults_hold(tmp_path):
    assert model_card(str(tmp_path / "model.pt"), trunk="resnet101", scale=1.0) == {"trunk": "resnet101", "scale": 1.0}


def test_the_card_beside_the_model_wins_over_the_defaults(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"trunk": "resnet18", "classes": ["ä", "b"]}), encoding="utf-8")
    card = model_card(str(tmp_path / "model.pt"), trunk="resnet101", scale=0.5)
    assert card == {"trunk": "resnet18", "scale": 0.5, "classes": ["ä", "b"]}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}"])
def test_a_damaged_card_is_refused(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.json.*restore it or delete it"):
        model_card(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_is_loaded_whole(tmp_path, suffix):
    trained, fresh = tiny_network(seed=1), tiny_network(seed=2)
    path = tmp_path / f"model.{suffix}"
    torch.save(trained.state_dict(), path) if suffix == "pt" else save_file(trained.state_dict(), path)
    load_checkpoint(fresh, str(path))
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def saved(folder: Path, content: object) -> str:
    torch.save(content, folder / "model.pt")
    return str(folder / "model.pt")


def test_a_missing_checkpoint_says_how_to_get_one(tmp_path):
    with pytest.raises(WeightsError, match="train first, or name a model with --checkpoint"):
        load_checkpoint(tiny_network(), str(tmp_path / "model.pt"))
    with pytest.raises(WeightsError, match="no trained model"):
        load_checkpoint(tiny_network(), str(tmp_path))


@pytest.mark.parametrize("card", [None, {"trunk": "resnet50"}])
def test_startup_weights_of_other_network_leave_ours_unchanged(tmp_path, card):
    if card:
        (tmp_path / "model.json").write_text(json.dumps(card))
    network = tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    three_classes = saved(tmp_path, tiny_network(num_classes=3).state_dict())
    with pytest.raises(WeightsError, match=r"of another shape.*it was trained with"):
        load_checkpoint(network, three_classes)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_startup_model_with_other_settings_is_refused(tmp_path):
    trained = tiny_network()
    path = saved(tmp_path, trained.state_dict())
    card = {"scale": 0.5, "epoch": 3, "network": trained.settings()}
    (tmp_path / "model.json").write_text(json.dumps(card))
    load_checkpoint(tiny_network(), path, {"scale": 0.5, "not in the card": 1})
    with pytest.raises(ConfigError, match=r"scale was 0\.5, is 1\.0") as caught:
        load_checkpoint(tiny_network(), path, {"scale": 1.0})
    assert "epoch" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"network_def#normalisation was 'sample', is 'none'"):
        load_checkpoint(tiny_network(normalisation="none"), path)


def test_startup_model_unlike_its_card_is_refused(tmp_path):
    path = saved(tmp_path, tiny_network(seed=1).state_dict())
    (tmp_path / "model.json").write_text(json.dumps({"sha256": sha256_of(path)}))
    load_checkpoint(tiny_network(), path)
    saved(tmp_path, tiny_network(seed=2).state_dict())  # as when the writer was killed between the two files
    network = tiny_network(seed=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"not the one that model\.json.*model\.pt.*delete model\.json"):
        load_checkpoint(network, path)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_model_without_its_card_is_loaded_with_a_warning(tmp_path, caplog):
    path = saved(tmp_path, tiny_network().state_dict())
    with caplog.at_level(logging.WARNING, "glas_wsol"):
        load_checkpoint(tiny_network(), path)
        assert "model.json is not there" in caplog.text
        caplog.clear()
        (tmp_path / "model.json").write_text("{}")
        load_checkpoint(tiny_network(), path)
        model_card(str(tmp_path / "nowhere.pt"))  # nothing to describe
    assert caplog.text == ""


def test_the_state_of_a_run_or_a_pickle_is_not_a_model(tmp_path):
    with pytest.raises(WeightsError, match="not a state dict"):
        load_checkpoint(tiny_network(), saved(tmp_path, {"network": {"a": torch.zeros(1)}, "trainer": {"epoch": 1}}))
    with pytest.raises(WeightsError, match="plain tensors"):
        load_checkpoint(tiny_network(), saved(tmp_path, tiny_network()))
    (tmp_path / "model.pt").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError):
        load_checkpoint(tiny_network(), str(tmp_path / "model.pt"))


def test_a_data_set_is_the_folder_named_and_must_exist(tmp_path):
    assert resolve_dataset(str(tmp_path), "unused") == str(tmp_path)
    with pytest.raises(ConfigError, match=r"no such data set.*nowhere.*the word phantom"):
        resolve_dataset(str(tmp_path / "nowhere"), "unused")


@pytest.mark.parametrize("given", ["", " ", None])
def test_no_data_set_is_refused(given):
    with pytest.raises(ConfigError, match="no such data set"):
        resolve_dataset(given, "unused")


@pytest.mark.parametrize("arguments", [("--dropout", "None"), ("--dropout=null",), ("--dropout", "null")])
def test_no_value_on_the_command_line_is_refused(config, arguments):
    with pytest.raises(ConfigError, match=r"--dropout (None|null) is not valid .*write --dropout '\$None'"):
        refuse_unknown_ids([*RUN, "--config_file", config, *arguments])


def test_an_expression_for_no_value_passes(config):
    refuse_unknown_ids([*RUN, "--config_file", config, "--dropout", "$None"])


@pytest.mark.parametrize(
    ("kind", "options", "below", "found"),
    [
        ("tissue", {"train": 4, "test": 2, "size": [64, 97], "scale": 0.15}, "", "Grade.csv"),
        ("birds", {"train": 5, "test": 5, "size": [48, 64]}, "images", "019.Gray_Catbird"),
    ],
)
def test_the_phantom_is_made_on_first_use_and_found_again(tmp_path, kind, options, below, found):
    folder = str(tmp_path / "phantom")
    path = Path(resolve_dataset("phantom", folder, kind, options, below))
    assert path == Path(folder) / below
    assert (path / found).exists()
    made = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}
    assert resolve_dataset("phantom", folder, kind, options, below) == str(path)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()} == made


def test_preflight_makes_the_output_folder(tmp_path, as_it_was):
    as_it_was.setattr(sys, "argv", ["pytest"])
    preflight(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    preflight(str(tmp_path / "a" / "b"))


def test_preflight_refuses_a_typo_before_anything_is_made(tmp_path, config, as_it_was):
    as_it_was.setattr(sys, "argv", [*RUN, "--config_file", config, "--epochz", "1"])
    with pytest.raises(ConfigError, match="did you mean epochs"):
        preflight(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_preflight_refuses_a_place_where_no_folder_can_be(tmp_path, as_it_was, below):
    as_it_was.setattr(sys, "argv", ["pytest"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output_dir") as caught:
        preflight(str(tmp_path / "file" / below))
    assert "\n" not in str(caught.value)


def shown(capsys, error: BaseException) -> str:
    try:
        raise error
    except BaseException:
        sys.excepthook(*sys.exc_info())
    return capsys.readouterr().err


def wrapped(error: BaseException, levels: int, how: str) -> BaseException:
    """As MONAI's config parser wraps what a component raises."""
    if levels == 0:
        return error
    outer = RuntimeError("failed to instantiate")
    inner = wrapped(error, levels - 1, how)
    outer.__cause__, outer.__context__ = (inner, inner) if how == "from" else (None, inner)
    return outer


@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("how", ["from", "context"])
def test_a_user_s_mistake_is_one_line_without_a_traceback(tmp_path, as_it_was, capsys, levels, how):
    as_it_was.setattr(sys, "argv", ["pytest"])
    preflight(str(tmp_path))
    said = shown(capsys, wrapped(ConfigError("passes=-1", "trainer", "give 0\nor more"), levels, how))
    assert said == "error: passes=-1 [trainer]: give 0 or more\n"


FROM_A_WORKER = """Caught RuntimeError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "reading.py", line 7, in read_rgb
    raise ImageFileError("damaged", path, "replace it")
glas_wsol.errors.ImageFileError: damaged [x.png]: replace it

The above exception was the direct cause of the following exception:

RuntimeError: applying transform <glas_wsol.transforms.ReadRGBd object at 0x7f>
"""


@pytest.mark.parametrize("levels", [0, 2])
def test_a_mistake_found_in_a_worker_is_one_line_too(tmp_path, as_it_was, capsys, levels):
    as_it_was.setattr(sys, "argv", ["pytest"])
    preflight(str(tmp_path))
    assert shown(capsys, wrapped(RuntimeError(FROM_A_WORKER), levels, "from")) == (
        "error: damaged [x.png]: replace it\n"
    )


class Damaged:
    """A transform that fails as reading a damaged file does."""

    def __call__(self, _):
        raise ImageFileError("damaged", "x.png", "replace it")


@pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")
@pytest.mark.parametrize(
    "wrapped_by_monai",
    [True, False],
)
def test_a_real_worker_s_mistake_is_one_line(tmp_path, as_it_was, capsys, wrapped_by_monai):
    as_it_was.setattr(sys, "argv", ["pytest"])
    preflight(str(tmp_path))

    class Plain(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Damaged()(index)

    dataset = Dataset([0], Compose([Damaged()])) if wrapped_by_monai else Plain()
    with pytest.raises(Exception, match="damaged") as caught:
        next(iter(torch.utils.data.DataLoader(dataset, num_workers=1)))
    capsys.readouterr()
    assert shown(capsys, caught.value) == "error: damaged [x.png]: replace it\n"


@pytest.mark.parametrize("levels", [0, 2])
def test_any_other_failure_keeps_its_traceback(tmp_path, as_it_was, capsys, levels):
    as_it_was.setattr(sys, "argv", ["pytest"])
    preflight(str(tmp_path))
    said = shown(capsys, wrapped(ZeroDivisionError("by zero"), levels, "from"))
    assert "Traceback" in said
    assert "ZeroDivisionError: by zero" in said
    assert not said.startswith("error: ")


def test_an_interruption_is_one_line(tmp_path, as_it_was, capsys):
    as_it_was.setattr(sys, "argv", ["pytest"])
    preflight(str(tmp_path))
    assert shown(capsys, KeyboardInterrupt()).splitlines()[0].startswith("interrupted: run the same command again")


@pytest.mark.parametrize("below", ["", "models/of mine"])
def test_preflight_refuses_a_place_for_models_by_name(tmp_path, as_it_was, below):
    as_it_was.setattr(sys, "argv", ["pytest"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a file is in the way of ckpt_dir \[.*choose another ckpt_dir") as caught:
        preflight(str(tmp_path / "out"), settings=Settings(ckpt_dir=str(tmp_path / "file" / below)))
    assert "--ckpt_dir" in as_typed(str(caught.value))


def test_preflight_tries_to_write_before_a_run(tmp_path, as_it_was):
    as_it_was.setattr(sys, "argv", ["pytest"])

    def full(dir: Path) -> None:
        if dir.name in ("models", "locked"):
            raise OSError(30, "Read-only file system")

    for name in ("models", "locked"):
        (tmp_path / name).mkdir()
    as_it_was.setattr(startup.tempfile, "TemporaryFile", lambda dir: full(dir) or nullcontext())
    preflight(str(tmp_path), settings=Settings(stage_one_dir=str(tmp_path / "new" / "er")))
    assert not (tmp_path / "new").exists(), "it is made when it is needed"
    with pytest.raises(OutputError, match=r"ckpt_dir cannot be written \(Read-only file system\).*another ckpt_dir"):
        preflight(str(tmp_path), settings=Settings(ckpt_dir=str(tmp_path / "models" / "mine")))
    with pytest.raises(OutputError, match=r"output_dir cannot be written \(Read-only.*another output_dir"):
        preflight(str(tmp_path / "locked" / "mine"))
