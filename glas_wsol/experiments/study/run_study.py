# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs a study: skips finished runs, and refuses runs made with other settings."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from glas_wsol.errors import ConfigError, GlasWsolError, OutputError, count
from glas_wsol.experiments.study.manifest import Found, State, code_digest, inspect
from glas_wsol.experiments.study.plan import Request, Run, plan
from glas_wsol.experiments.study.runner import LOG, Children, Outcome, environment, execute
from glas_wsol.utils.locks import lock_with_children

__all__ = ["run_study"]

_SHOWN = (("error", "classification_error"), ("F1+", "f1_foreground"), ("F1-", "f1_background"))


def run_study(
    request: Request,
    *,
    jobs: int = 1,
    replace: bool = False,
    dry_run: bool = False,
    children: Callable[[Mapping[str, str], Sequence[int]], Children] = Children,
) -> None:
    """Run all of a study that is not finished.

    Args:
        replace: repeat runs that were made with other settings. Where only the evaluation's settings differ, the
            model is reused.
        dry_run: print every run, whether it is finished, and its commands; nothing is written.
        children: makes what runs the commands, from their environment and the descriptors they inherit.

    Raises:
        ConfigError: if runs were made with other settings and are not to be replaced; and as `plan`.
        GlasWsolError: if a run failed, after all others have ended.
        OutputError: if another study is at work in the folder, or a run's folder holds something else.
    """
    if jobs < 1:
        raise ConfigError(f"{jobs} jobs", "--jobs", "give 1 or more")
    output = Path(request.output).expanduser().absolute()
    if dry_run:
        runs = plan(request, make_phantom=False)
        for run in runs:
            found = inspect(run)
            print("\n".join([f"# {run.name}: {found.state.value}", *map(shlex.join, run.commands)]))
        return
    with lock_with_children(output) as lock:
        runs = [(run, inspect(run)) for run in plan(request)]
        _refuse(runs, output, replace)
        _announce(runs, request, output)
        todo = [(run, found) for run, found in runs if found.state is not State.FINISHED]
        if todo:
            _carry_out(runs, todo, children(environment(jobs), [lock]), jobs, output)


def _refuse(runs: Sequence[tuple[Run, Found]], output: Path, replace: bool) -> None:
    foreign = [run for run, found in runs if found.state is State.FOREIGN]
    if foreign:
        fix = "choose another folder for the study, or move these files away"
        raise OutputError("this folder holds files that no study has written", foreign[0].folder, fix)
    differing = [(run, found) for run, found in runs if found.changed]
    if replace or not differing:
        return
    of_clause: dict[str, list[str]] = defaultdict(list)
    for run, found in differing:
        for clause in found.changed:
            of_clause[clause].append(run.name)
    for clause, names in of_clause.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"{clause} ({names[0]}{more})", file=sys.stderr)
    settings = ", ".join(dict.fromkeys(clause.partition(" was ")[0] for clause in of_clause))
    what = f"{count(len(differing), 'run was', 'runs were')} made with other settings: {settings}"
    raise ConfigError(what, output, "restore them, choose another folder, or repeat these runs with --replace")


def _announce(runs: Sequence[tuple[Run, Found]], request: Request, output: Path) -> None:
    states = Counter(found.state for _, found in runs)
    explained = {run.needs.partition("/")[0]: run.method for run, _ in runs if run.needs}
    for method in {
        run.method: None for run, found in runs if run.method in explained and found.state is not State.FINISHED
    }:
        if not {"all", method} & set(request.methods):
            print(f"{method} is run too: {explained[method]} explains its network")
    doing = {State.UNFINISHED: "to go on", State.OTHER_EVALUATION: "to evaluate again", State.OTHER_TRAINING: "anew"}
    rest = "".join(f", {states[state]} {words}" for state, words in doing.items() if states[state])
    done = count(len(runs), "run is", "runs are")
    print(f"{states[State.FINISHED]} of {done} finished{rest}, in {output}", flush=True)
    finished = [found for _, found in runs if found.state is State.FINISHED]
    older = sum(found.manifest.get("code_sha256") != code_digest() for found in finished)
    if older:
        print(f"{count(older, 'finished run was', 'finished runs were')} made by another state of this package's code")


def _carry_out(
    runs: Sequence[tuple[Run, Found]], todo: Sequence[tuple[Run, Found]], children: Children, jobs: int, output: Path
) -> None:
    spent: dict[str, list[float]] = defaultdict(list)  # s, by method
    for run, found in runs:
        if found.state is State.FINISHED:
            spent[run.method].append(found.manifest["seconds"])
    failed: list[Outcome] = []
    layout = "{desc}{n}/{total} |{bar}| {elapsed}{postfix}"
    # a bar is for a terminal: a file gets the lines alone
    with tqdm(total=len(runs), initial=len(runs) - len(todo), bar_format=layout, disable=None, leave=False) as bar:

        def ended(outcome: Outcome) -> None:
            bar.update()
            if outcome.error is not None:
                failed.append(outcome)
            else:
                spent[outcome.run.method].append(outcome.seconds)
            tqdm.write(_line(outcome))
            sys.stdout.flush()  # so that a file that the output goes to can be followed

        def tick(running: Sequence[tuple[Run, float]], waiting: Sequence[Run]) -> None:
            bar.set_description_str("".join(f"{run.name} " for run, _ in running), refresh=False)
            left = _seconds_left(spent, running, waiting, jobs)
            bar.set_postfix_str("" if left is None else f"about {_duration(left)} left", refresh=False)
            bar.refresh()

        execute(todo, children, ended, tick, jobs)
    if failed:
        names = ", ".join(outcome.run.name for outcome in failed)
        fix = "see their log.txt, remove the cause and run the same command again"
        raise GlasWsolError(f"{count(len(failed), 'run', 'runs')} of {len(runs)} failed: {names}", output, fix)


def _seconds_left(
    spent: Mapping[str, Sequence[float]], running: Sequence[tuple[Run, float]], waiting: Sequence[Run], jobs: int
) -> float | None:
    """Until the last run ends, if each takes what its method has taken; None before anything is known."""
    mean = {method: fmean(values) for method, values in spent.items() if values}
    if not mean:
        return None
    typical = fmean(mean.values())
    left = [max(0.0, mean.get(run.method, typical) - seconds) for run, seconds in running]
    total = sum(left) + sum(mean.get(run.method, typical) for run in waiting)
    return max([total / jobs, *left])


def _line(outcome: Outcome) -> str:
    run = outcome.run
    head = f"{run.method:<16} {run.fold:<12} seed {run.seed:<4}"
    if outcome.error is not None:
        return f"{head} failed: {outcome.error} [{run.folder / LOG}]"
    report: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        report = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
    cells = []
    for title, key in _SHOWN:
        value = report.get("measures", {}).get(key, {}).get("value")
        cells.append(f"{title} {'-' if value is None else format(100 * value, '.1f'):>5}")
    return f"{head} {_duration(outcome.seconds):>8}   {'  '.join(cells)}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
