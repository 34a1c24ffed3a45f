# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""No test, and no Python process that one starts, may reach for the network.

``tests/conftest.py`` puts this folder on the search path, where Python imports a module of this name at its start, and
fails the test in which anything was refused. It needs Python's own modules only.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

__all__ = ["REFUSED", "watch"]

#: Names the file that receives a line for whatever was refused, in the environment.
REFUSED = "GLAS_WSOL_REFUSED_CONNECTIONS"
_HOST = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.connect": 1, "socket.sendto": 1}
"""Which argument of an event says where to."""


def _is_here(host: object) -> bool:
    text = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
    return text in ("", "localhost", "::1", "::", "0.0.0.0", socket.gethostname()) or text.startswith("127.")  # noqa: S104


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _HOST:
        return
    where = arguments[_HOST[event]]
    if event in ("socket.connect", "socket.sendto"):
        if not isinstance(where, tuple):  # a path: a socket of this machine
            return
        where = where[0]
    if _is_here(where):
        return
    said = f"{event} of {where!r} by process {os.getpid()}: {' '.join(sys.argv)[:200]!r}"
    with open(os.environ[REFUSED], "a", encoding="utf-8") as file:  # noqa: PTH123 - nothing but this is imported
        file.write(said + "\n")
    raise ConnectionRefusedError(f"the tests have no network: {said}")


def watch() -> None:
    """From now on this process connects to this machine only."""
    if os.environ.get(REFUSED):
        sys.addaudithook(_refuse)


watch()
