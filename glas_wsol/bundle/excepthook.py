# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Prints whatever stops a config run as one line: failures, interruptions and SIGTERM."""

from __future__ import annotations

import difflib
import inspect
import os
import pydoc
import re
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from glas_wsol.errors import ConfigError, GlasWsolError, as_typed, exception_chain
from glas_wsol.utils import distributed

__all__ = ["install_excepthook"]

_GO_ON = "run the same command again; it goes on after the last whole epoch, or the last image written"
_TRACE = "with GLAS_WSOL_TRACEBACK=1 set, you see the whole trace"
# MONAI's messages when the components of a config cannot be built.
_COMPONENT = re.compile(r"Failed to instantiate component '(?P<where>[^']*)' with keywords: (?P<settings>\S*)")
_EXPRESSION = re.compile(r"Failed to evaluate ConfigExpression:\s*(?P<where>.*)", re.DOTALL)
_CIRCLE = re.compile(r"circular references '[^']*' for id='(?P<where>[^']*)'")
_UNDEFINED = re.compile(r"referring item `@?(?P<where>[^`]*)` is not defined")
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(?P<name>[^']*)'")
_REFERENCE = re.compile(r"__local_refs\['([^']*)'\]")
_KILLED_WORKER = re.compile(r"DataLoader worker \(pid.*\) (?P<how>is killed by signal: \w+|exited unexpectedly)")
_LOADER = str(Path("torch", "utils", "data", "dataloader.py"))
_FROM_WORKER = re.compile(r"^glas_wsol\.errors\.\w+: (.+)$", re.MULTILINE)


def install_excepthook() -> None:
    """From now on print a failure, an interruption or SIGTERM as one line."""
    sys.excepthook = _say_in_one_line
    _end_cleanly_on_sigterm()


def _end_cleanly_on_sigterm() -> None:
    """On SIGTERM, which clusters send before they kill: remove half-written files, print why, end with status 143."""
    sigterm, owner = getattr(signal, "SIGTERM", None), os.getpid()
    if sigterm is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(sigterm) is not signal.SIG_DFL:
        return

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that is just being started
            os._exit(128 + number)
        print(f"\nterminated: {_GO_ON}", file=sys.stderr, flush=True)  # below a progress bar
        raise SystemExit(128 + number)

    signal.signal(sigterm, end)


def _say_in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted: {_GO_ON}", file=sys.stderr)
        return
    for cause in exception_chain(error):  # MONAI wraps what a component raises in a RuntimeError per level
        lines = _FROM_WORKER.findall(getattr(cause, "what", str(cause)))
        if lines:  # a loader's worker sends its traceback as text
            print(f"error: {as_typed(lines[-1])}", file=sys.stderr)
            return
        killed = _killed_worker(cause)
        if killed:
            what = f"a loader's worker was killed ({killed}), possibly out of memory"
            fix = f"use fewer num_workers, or 0; {_GO_ON}"
            print(f"error: {GlasWsolError(what, 'num_workers', fix)}", file=sys.stderr)
            return
        if distributed.is_lost(cause):
            fix = f"see its message, here or above; then {_GO_ON}"
            print(f"error: {GlasWsolError('another process of this run has ended', fix=fix)}", file=sys.stderr)
            return
        if isinstance(cause, GlasWsolError):
            print(f"error: {as_typed(str(cause))}", file=sys.stderr)
            if cause.exit_code != 1:  # after any other hook Python ends with 1
                raise SystemExit(cause.exit_code)
            return
    refused = GlasWsolError.of_system(error)
    if refused is not None:
        print(f"error: {as_typed(str(refused))}", file=sys.stderr)
        return
    fault = _config_fault(error)
    if fault and not os.environ.get("GLAS_WSOL_TRACEBACK"):
        print(f"error: {as_typed(str(fault))} ({_TRACE})", file=sys.stderr)
        return
    sys.__excepthook__(kind, error, trace)


def _killed_worker(error: BaseException) -> str:
    """How a loader's worker came to its end, if an exception is about that; else empty."""
    said = _KILLED_WORKER.search(str(error))
    if said:
        return said["how"].removeprefix("is ")
    # a worker killed while it starts or sends a batch leaves half a message in a pipe, and torch reports nothing
    if isinstance(error, (EOFError, ConnectionError)):
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if any(file.endswith(_LOADER) for file in files):
            return "before it answered"
    return ""


def _config_fault(error: BaseException) -> ConfigError | None:
    """A failure to make a component of a config, as an error of one line; None of any other."""
    patterns = (_COMPONENT, _EXPRESSION, _CIRCLE, _UNDEFINED)
    said = [(one, pattern, pattern.search(str(one))) for one in exception_chain(error) for pattern in patterns]
    # a run itself that fails is no fault of the config: its trace is wanted
    found = [(one, pattern, match) for one, pattern, match in said if match and ".run()" not in match["where"]]
    if not found:
        return None
    innermost, pattern, match = found[-1]
    where = match["where"]
    if pattern is _CIRCLE:
        return ConfigError("settings refer to each other in a circle", where, "give one of them a value of its own")
    if pattern is _UNDEFINED:
        return ConfigError(f"a setting refers to {where!r}, which is not there", f"@{where}", "correct the reference")
    first = innermost.__cause__ or innermost
    why = " ".join(f"{type(first).__name__}: {first}".split())
    if pattern is _EXPRESSION:
        text = _REFERENCE.sub(lambda one: "@" + one[1].replace("::", "#"), where.strip().strip("'\""))
        return ConfigError(f"the expression cannot be computed ({why})", text, "correct it, or what it refers to")
    settings = [name for name in match["settings"].split(",") if name]
    unexpected = _UNEXPECTED.search(why)
    if unexpected and unexpected["name"] in settings:
        near = difflib.get_close_matches(unexpected["name"], _arguments(where), n=1, cutoff=0.5)
        fix = f"did you mean {near[0]}" if near else "leave it out"
        return ConfigError(f"{where.rpartition('.')[2]} has no setting {unexpected['name']!r}", where, fix)
    return ConfigError(f"its settings are not valid ({why})", where, f"correct what it is given: {', '.join(settings)}")


def _arguments(name: str) -> list[str]:
    """What a class, with those it is derived from, or a function takes, by name; nothing where that is not known."""
    try:
        found = pydoc.locate(name)
        callables = [base.__init__ for base in inspect.getmro(found)] if inspect.isclass(found) else [found]
        return [word for one in callables for word in inspect.signature(one).parameters]  # type: ignore[arg-type]
    except (TypeError, ValueError, pydoc.ErrorDuringImport):
        return []
