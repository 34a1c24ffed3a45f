# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs that are killed at random moments, again and again, and then let end. Used by reliability.py."""

from __future__ import annotations

import random
import re

from runs import ENDS, Run, Told, Undisturbed, contents, finished

__all__ = ["kills"]

_SKIPPED = re.compile(r"(\d+) of \d+ images skipped|resuming .* after epoch (\d+)")
_AT_ONCE = 4


def kills(told: Told, undisturbed: Undisturbed, kind: str, count: int, seed: int) -> None:
    """Kill runs (SIGKILL), four times each at most, let each be finished, and compare.

    Args:
        told: receives the table.
        undisturbed: what to compare with.
        kind: ``"inference"`` or ``"train"``.
        count: of the kills.
        seed: of the moments, from the start of a run to as long as an undisturbed one takes.
    """
    expected = undisturbed.run(kind)
    settings, seconds = undisturbed.settings[kind], undisturbed.seconds[kind]
    what = {"inference": "images", "train": "epochs"}[kind]
    told.say(undisturbed.said(kind) + "\n")
    told.table("run", f"killed after (s): {what} finished", "taken up by the last run", "its status", "bytes")
    moments, done, number = random.Random(seed), 0, 0  # noqa: S311 - moments, not secrets
    while done < count:
        run, said = Run(undisturbed.folder / f"killed_{kind}_{number}", settings, kind), []
        for _ in range(min(_AT_ONCE, count - done)):
            moment = moments.uniform(0, seconds)
            process = run.start()
            process.join(moment)
            process.kill()
            process.join()
            killed = process.exitcode == -9
            done += killed
            said.append(f"{moment:.2f}: {finished(run.output)}" + ("" if killed else " (had ended)"))
            if not killed:
                break
        status = run.finish()
        skipped = ["".join(one) for one in _SKIPPED.findall(run.log.read_text(encoding="utf-8", errors="replace"))]
        same = told.judge(contents(run.output) == expected)
        told.good &= status == ENDS[kind]
        told.row(number, "; ".join(said), skipped[-1] if skipped else 0, status, same)
        number += 1
    ended = "all bytes the same" if told.good else "BYTES DIFFER"
    told.say(f"\n{done} kills in {number} runs: {ended}")
    told.sum_up(f"SIGKILL at random moments of {kind}", f"{done} in {number} runs", f"resumed, {ended}")
