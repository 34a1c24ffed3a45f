# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs in other circumstances, which must leave the same bytes; and without a network. Used by reliability.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from places import mount_read_only, offline, unmount
from runs import CONFIGS, ENDS, ROOT, Run, Told, Undisturbed, configs_of, contents

__all__ = ["same", "without_network"]

_IN_BATCHES = "batch_size" in json.loads((CONFIGS / "inference.json").read_text())


def same(told: Told, undisturbed: Undisturbed, mounts: bool) -> None:
    """Run inference and training in other circumstances, and compare.

    Args:
        told: receives the table.
        undisturbed: what to compare with.
        mounts: whether this process may mount.
    """
    turkish = _turkish_locale(undisturbed.folder)
    if not turkish:
        told.say("No Turkish locale could be made here.\n")
        told.good = False
    zone = {"TZ": "Asia/Kathmandu"}
    circumstances: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
        "no worker, one thread": ({"num_workers": 0}, {}, ""),
        "one worker": ({"num_workers": 1}, {}, ""),
        "two workers": ({"num_workers": 2}, {}, ""),
        "another time zone": ({}, {"TZ": "Pacific/Kiritimati"}, ""),
        "locale C": ({}, {"LC_ALL": "C"}, ""),
        "Turkish locale": ({}, turkish, ""),
        "a clock that goes back": ({}, {}, "clock goes back"),
        "a user without any right of root's": ({}, {}, "no rights"),
    }
    told.table("circumstances", "of", "status", "bytes")
    for kind in ENDS:
        expected, settings = undisturbed.run(kind), undisturbed.settings[kind]
        for number, (name, (more, variables, trouble)) in enumerate(circumstances.items()):
            run = Run(undisturbed.folder / f"same_{kind}_{number}", {**settings, **more}, kind, trouble, variables)
            status = run.finish()
            told.good &= status == ENDS[kind]
            told.row(name, kind, status, told.judge(contents(run.output) == expected))
        _in_a_process_of_its_own(told, undisturbed, kind, {**zone, **turkish, "PYTHONHASHSEED": "4711"}, mounts)
    _in_another_order(told, undisturbed)
    if _IN_BATCHES:
        _in_batches(told, undisturbed)
    ended = "all bytes the same" if told.good else "BYTES DIFFER"
    told.sum_up("other circumstances: " + ", ".join([*circumstances][1:]), 2 * len(circumstances), ended)
    told.sum_up("the command itself, " + _elsewhere(mounts), 2, ended)
    told.sum_up("files made in another order", 1, ended)
    if _IN_BATCHES:
        told.sum_up("images in batches: masks, classes and areas", 1, ended)


def _elsewhere(mounts: bool) -> str:
    read_only = ", Python and its packages on a read-only disk" if mounts else ""
    return f"without HOME, another seed of hashes, zone and locale{read_only}"


def _in_a_process_of_its_own(
    told: Told, undisturbed: Undisturbed, kind: str, variables: Mapping[str, str], mounts: bool
) -> None:
    """The seed of hashes is drawn when Python starts."""
    output = undisturbed.folder / f"same_{kind}_process"
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("HOME", None)
    command = _command(kind, {**undisturbed.settings[kind], "output_dir": output})
    disks = [ROOT, *{Path(sys.prefix), Path(sys.base_prefix)}] if mounts else []
    for disk in disks:
        mount_read_only(disk)
    ended = subprocess.run(command, env=environment, cwd=undisturbed.folder, capture_output=True)
    for disk in reversed(disks):
        unmount(disk)
    told.good &= ended.returncode == ENDS[kind]
    equal = told.judge(contents(output) == undisturbed.files[kind])
    told.row(f"the command itself, elsewhere, {_elsewhere(mounts)}", kind, ended.returncode, equal)


def _command(kind: str, settings: Mapping[str, Any]) -> list[str]:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(configs_of(kind))]
    return command + [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def _in_another_order(told: Told, undisturbed: Undisturbed) -> None:
    """The same names, made in another order: a folder may list them so."""
    settings = undisturbed.settings["inference"]
    tiles = Path(settings["dataset_dir"])
    kept = {path.name: path.read_bytes() for path in tiles.iterdir()}
    for path in list(tiles.iterdir()):
        path.unlink()
    for name in sorted(kept, key=lambda name: kept[name]):
        (tiles / name).write_bytes(kept[name])
    run = Run(undisturbed.folder / "same_order", settings)
    status = run.finish()
    equal = told.judge(contents(run.output) == undisturbed.files["inference"])
    told.row("files made in another order", "inference", status, equal)


def _in_batches(told: Told, undisturbed: Undisturbed) -> None:
    """Images of one size together: another sum may differ in its last bit, a mask may not."""
    settings = undisturbed.settings["inference"]
    run = Run(undisturbed.folder / "same_batches", {**settings, "batch_size": 3})
    status = run.finish()

    def images(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[tuple]]:
        entries = json.loads(files["predictions.json"])
        masks = {name: data for name, data in files.items() if name.startswith("masks/")}
        return masks, [(entry["name"], entry["class"], entry["decidable_fraction"]) for entry in entries]

    equal = images(contents(run.output)) == images(undisturbed.files["inference"])
    told.row("batches of 3: masks, classes and areas", "inference", status, told.judge(equal))


def _turkish_locale(folder: Path) -> dict[str, str]:
    """Variables for a locale in which a lower-case I has no dot; empty where the system cannot make it."""
    made = folder / "locales" / "tr_TR.UTF-8"
    made.parent.mkdir(exist_ok=True)
    try:
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(made)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"LC_ALL": "tr_TR.UTF-8", "LOCPATH": str(made.parent)}


def without_network(told: Told, undisturbed: Undisturbed) -> None:
    """Everything a user does, where there is no network but the machine's own; and what a test there says of it."""
    expected = undisturbed.run("train")
    output = undisturbed.folder / "offline"
    training = {**undisturbed.settings["train"], "output_dir": output}
    evaluate = str([*configs_of("train"), str(CONFIGS / "evaluate.json")])
    cli, images = [sys.executable, "-m", "glas_wsol"], undisturbed.settings["inference"]["dataset_dir"]
    reach = "import socket; socket.create_connection(('192.0.2.1', 9), 1)"
    commands: dict[str, tuple[list[str], int]] = {
        "another machine is reached for": ([sys.executable, "-c", reach], 1),
        "doctor": ([*cli, "doctor", "--device", "cpu"], 0),
        "training": (_command("train", training), 0),
        "evaluation": ([evaluate if "paper.json" in word else word for word in _command("train", training)], 0),
        "inference": (
            [*cli, "predict", images, "--model", str(output), "--output", str(output / "found"), "--device", "cpu"],
            3,
        ),
        "report": ([*cli, "report", str(output)], 0),
    }
    told.table("without a network", "status")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name, (command, status) in commands.items():
        ended = subprocess.run(offline(command), env=environment, cwd=ROOT, capture_output=True, text=True)
        right = ended.returncode == status
        told.good &= right
        told.row(name, f"{ended.returncode}{'' if right else ' NOT AS IT MUST ' + ended.stderr[-300:]}")
    same_model = told.judge(contents(output)["model.pt"] == expected["model.pt"])
    told.say(f"\nThe model that was trained so: the {same_model} bytes as with a network.")
    told.sum_up("training, evaluation, inference, report and doctor without a network", len(commands) - 1, "success")
