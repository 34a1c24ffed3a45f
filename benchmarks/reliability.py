# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What bad inputs, kills and faults do to runs.

    python benchmarks/reliability.py [--all] [--kills 20] [--train-kills 20] [--faults] [--same] [--fuzz 200] [--inputs]
        [--bounds] [--offline] [--keep DIR]

Inference of a network with untrained heads on synthetic tissue, one file of which is damaged, and a training of two
epochs. They are killed (SIGKILL) at random moments, other things happen to them (``--faults``), they run in other
circumstances (``--same``) and without a network (``--offline``). What the last run leaves is compared, byte by byte,
with what an undisturbed one does. With ``--inputs`` the tests of bad inputs, hostile configs and archives run, and how
each case ended is listed; ``--fuzz`` changes files at random; ``--bounds`` measures what small files take that were
made to take much.

``--all`` does everything, and writes ``benchmarks/results/reliability/table.md`` and the summary in
``docs/reliability.md``; with ``--keep`` it goes on where it was interrupted. Prints Markdown; the status is 1 where
anything ended otherwise than it must.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import places  # noqa: E402 - neighbours, wherever this is started from
from circumstances import same, without_network  # noqa: E402
from faults import FAULTS, faults  # noqa: E402
from kills import kills  # noqa: E402
from runs import ROOT, Told, Undisturbed  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "reliability" / "table.md"
DOCUMENT = ROOT / "docs" / "reliability.md"
MARKS = ("<!-- written by benchmarks/reliability.py --all -->", "<!-- to here -->")
_OF_THEIR_OWN = (
    "a changed file ends in success or a typed error",
    "a file made to take much ends soon and in little memory",
)
"""Tests of what has a part of its own here."""
_TESTS = ("tests/reliability", "tests/security")


def fuzzing(told: Told, folder: Path, cases: int, seed: int) -> None:
    """Read files that were changed at random."""
    from tests.reliability.mutations import fuzz

    folder.mkdir()
    told.table("files", "changed", "how they ended", "slowest (s)")
    found = fuzz(folder, cases, seed)
    for kind, ends in found.items():
        ended = ", ".join(f"{count} {end}" for end, count in ends.counts.most_common())
        told.row(kind, ends.counts.total(), ended, f"{ends.slowest:.1f}")
    faulty = [fault for ends in found.values() for fault in ends.faults]
    told.good = not faulty
    told.say("\n" + ("each in success or a typed error" if not faulty else "\n".join(faulty)))
    tried = f"{', '.join(found)}, changed at random places"
    told.sum_up(tried, f"{cases} each", "success or a typed error")


def bounds(told: Told, folder: Path) -> None:
    """Read small files that were made to take much time or memory."""
    from tests.reliability.bounds import MEGABYTES, SECONDS, measure_all

    folder.mkdir()
    told.table("file", "how it ended", "processor time (s)", "memory (MB)")
    found = measure_all(folder)
    for name, taken in found.items():
        right = taken.typed and taken.seconds < SECONDS and taken.megabytes < MEGABYTES
        told.good &= right
        told.row(
            name,
            _cell(taken.end) + ("" if right else " NOT AS IT MUST"),
            f"{taken.seconds:.1f}",
            f"{taken.megabytes:.0f}",
        )
    most = max(taken.seconds for taken in found.values()), max(taken.megabytes for taken in found.values())
    held = f"{SECONDS:.0f} s and {MEGABYTES:.0f} MB held: at most {most[0]:.1f} s and {most[1]:.0f} MB"
    told.sum_up("small files made to take much time or memory", len(found), held)


def memory(told: Told) -> None:
    """Memory in use while inference goes on."""
    images, size = 50, (130, 194)
    command = [sys.executable, str(ROOT / "benchmarks" / "infer_memory.py"), "--images", str(images)]
    command += ["--size", *map(str, size)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment())
    told.good &= ended.returncode == 0
    lines = [line for line in ended.stdout.strip().splitlines() if " - INFO - " not in line]
    told.say("\n" + "\n".join(lines) + (ended.stderr[-500:] if ended.returncode else ""))
    grown = re.search(r"From image 5 to image \d+: (\S+ %)", ended.stdout)
    what = f"memory in use while {images} tiles of {size[0]} x {size[1]} px are localized"
    told.sum_up(what, 1, f"{grown[1] if grown else '?'} from the fifth image to the last (bound: 5 %)")


def inputs(told: Told, folder: Path) -> None:
    """Run the tests of bad inputs and list how each case ended."""
    said = folder / "told.jsonl"
    command = [sys.executable, "-m", "pytest", *_TESTS, "-m", "not slow", "-p", "no:cacheprovider"]
    environment = {**_environment(), "GLAS_WSOL_TOLD": str(said)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    told.table("tried", "given", "how it ended")
    cases = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines()]
    for test, given, how in cases:
        told.row(test, _cell(given), _cell(how))
    result = next((line for line in reversed(ended.stdout.splitlines()) if "passed" in line), "no test passed")
    told.good = ended.returncode == 0 and "skipped" not in result
    told.say("\n" + result + ("" if told.good else f"\n\n{ended.stdout[-3000:]}"))
    ends: dict[str, Counter] = {}
    for test, _, how in cases:
        ends.setdefault(test, Counter())[_kind(how)] += 1
    for test, kinds in ends.items():
        if test in _OF_THEIR_OWN:
            continue
        told.sum_up(
            test,
            kinds.total(),
            ", ".join(f"{count} {kind}" if len(kinds) > 1 else kind for kind, count in kinds.items()),
        )


def _kind(how: str) -> str:
    """How a case ended, in a word or two."""
    for begin, kind in (("failed.csv", "row in failed.csv"), ("status ", "one line, status 1"), ("a result", "result")):
        if how.startswith(begin):
            return kind
    return how if len(how) < 30 else "one line"


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def _cell(text: str) -> str:
    text = re.sub(r"(?<![.\w])/(?:[^/\s'\]]+/)+", "", text)  # folders of this machine
    text = text if len(text) <= 200 else f"{text[:120]} ... {text[-70:]}"
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text.replace("|", "\\|")


def versions() -> str:
    """What all this ran with."""
    names = [
        "torch",
        "monai",
        "pytorch-ignite",
        "numpy",
        "pillow",
        "pydicom",
        "safetensors",
        "scikit-image",
        "tifffile",
        "imagecodecs",
    ]
    found = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"Python {platform.python_version()} on {platform.system()}, {found}."


def write(parts: Sequence[Told], how: str) -> None:
    """Write the whole table, and the summary into the document."""
    from glas_wsol.utils.atomic_files import atomic_write

    ended = "Everything ended as it must."
    if not all(part.good for part in parts):
        ended = "NOT EVERYTHING ENDED AS IT MUST."
    head = f"`python benchmarks/reliability.py --all`, {how}, beside other work. {ended} {versions()}"
    whole = [f"# What was tried, and how it ended\n\n{head}"]
    whole += [f"## {part.title}\n\n" + "\n".join(part.lines).strip() for part in parts]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(TABLE, "w", newline="\n") as file:
        file.write("\n\n".join(whole) + "\n")
    rows = [f"| {tried} | {cases} | {end} |" for part in parts for tried, cases, end in part.summary]
    summary = "\n".join([head, "", "| tried | cases | how it ended |", "|---|---|---|", *rows])
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    with atomic_write(DOCUMENT, "w", newline="\n") as file:
        file.write(f"{before}{MARKS[0]}\n\n{summary}\n\n{MARKS[1]}{after}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--all", action="store_true", help="everything, with 20 kills each and 200 changes; writes the documents")
    add("--kills", type=int, default=0, metavar="N", help="kill inference N times")
    add("--train-kills", type=int, default=0, metavar="N", help="kill training N times")
    add("--faults", nargs="?", const="all", choices=["all", "inference", "train"], help="let faults happen")
    add("--same", action="store_true", help="run in other circumstances")
    add("--offline", action="store_true", help="run without a network")
    add("--fuzz", type=int, default=0, metavar="N", help="read N changed files of each kind")
    add("--bounds", action="store_true", help="read small files made to take much; memory of inference")
    add("--inputs", action="store_true", help="list bad inputs and how each ended")
    add("--keep", metavar="DIR", help="keep what is measured here, and go on with what an earlier run kept")
    add("--seed", type=int, default=0, help="of the moments and changes")
    add("--tiles", type=int, default=12, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.all:
        given.kills = given.train_kills = 20
        given.faults, given.fuzz = "all", 200
        given.same = given.offline = given.bounds = given.inputs = True
    mounts = places.own_mounts()  # before any thread is started
    parts: list[Told] = []

    def part(wanted: object, title: str, *measured: Callable[[Told], None]) -> None:
        if not wanted:
            return
        kept = Path(given.keep, f"{title}.json") if given.keep else None
        print(f"\n## {title}\n", flush=True)
        if kept is not None and kept.is_file():
            parts.append(Told(**json.loads(kept.read_text(encoding="utf-8"))))
            print("kept from an earlier run")
            return
        parts.append(Told(title))
        for one in measured:
            one(parts[-1])
        if kept is not None and parts[-1].good:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(vars(parts[-1])), encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = Undisturbed(folder, given.tiles, given.seed)
        killed = {"inference": given.kills, "train": given.train_kills}
        for kind, count in killed.items():
            part(count, f"Kills of {kind}", lambda told, k=kind, n=count: kills(told, undisturbed, k, n, given.seed))
        for kind in killed:
            which = [fault for fault in FAULTS if fault.kind == kind and given.faults in ("all", kind)]
            part(which, f"Faults of {kind}", lambda told, which=which: faults(told, undisturbed, which, mounts))
        part(given.same, "The same bytes", lambda told: same(told, undisturbed, mounts))
        part(given.offline, "Without a network", lambda told: without_network(told, undisturbed))
        part(given.fuzz, "Changed files", lambda told: fuzzing(told, folder / "fuzz", given.fuzz, given.seed))
        part(given.bounds, "Time and memory", lambda told: bounds(told, folder / "bounds"), memory)
        part(given.inputs, "Bad input", lambda told: inputs(told, folder))
        if given.all:
            write(parts, "each part once, some beside each other (`--keep`)" if given.keep else "once")
    return 0 if all(told.good for told in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
