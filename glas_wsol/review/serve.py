# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Serve the page on this machine until it is interrupted."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from glas_wsol.errors import ConfigError
from glas_wsol.review.app import review_app
from glas_wsol.review.guard import Guard
from glas_wsol.review.learning_job import LearningJob
from glas_wsol.review.review_run import ReviewRun, Suggest
from glas_wsol.review.saved_outlines import FOLDER, OutlineStore
from glas_wsol.utils.locks import claim

__all__ = ["LOOPBACK", "check_address", "serve"]

LOOPBACK = "127.0.0.1"


def check_address(address: str) -> str:
    """What it means that a server listens at an address; empty of this machine alone.

    Raises:
        ConfigError: if it is no address of one machine.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise ConfigError(f"{address!r} is no address", "--address", f"leave it out, for {LOOPBACK}") from None
    if found.is_unspecified:
        raise ConfigError(f"{address} is every address", "--address", "give one address of this machine")
    if found.is_loopback:
        return ""
    return (
        f"{address} can be reached by other machines: who reads the line below on its way, or is given it, sees the "
        "images and changes the outlines. Nothing is encrypted."
    )


def serve(
    results: Path,
    suggest: Suggest,
    *,
    data: str = "",
    model: str = "",
    settings: Sequence[str] = (),
    who: str = "",
    address: str = LOOPBACK,
    port: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Read the results, print the address of the page, and serve it until the process is interrupted.

    Args:
        results: folder that predict or evaluate wrote.
        suggest: which images to correct first.
        data: what the model was trained on; empty where nothing is to be learnt.
        model: output folder of the training, or its model.
        settings: of ``learn``, as typed.
        who: name that corrections are saved under. Defaults to the user's.
        address: of this machine.
        port: 0 (default) for one that is free.
        say: prints a line.

    Raises:
        ConfigError: if the address is not valid, or the port is taken.
        OutputError: if there are no results, or another review of them is at work.
    """
    warning = check_address(address)
    run = ReviewRun(results)
    store = OutlineStore(run.root, who or getpass.getuser())
    claim(run.root / FOLDER)
    job = LearningJob(run.root, data, model, settings, run.take_learnt)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, port), family=family)
    except OSError as error:
        what = f"cannot listen at {address}, port {port} ({error.strerror})"
        raise ConfigError(what, "--port", "leave it out, for a free port") from error
    port = listening.getsockname()[1]
    hosts = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"]
    token = secrets.token_urlsafe(24)
    names = [*hosts, f"localhost:{port}"] if not warning else hosts
    app = Guard(review_app(run, store, job, suggest), names, token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
    if warning:
        say(warning)
    say(f"open http://{hosts[0]}/?token={token} (once, in one browser; stop with Ctrl+C)")
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        job.cancel()
