# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The guard that keeps every test off the network is there, in this process and in those that tests start."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.conftest import REFUSED, watched

REACH = """
import socket
try:
    socket.create_connection(("{host}", 9), timeout=1)
except OSError as error:
    print(type(error).__name__, error)
"""


def refused() -> list[str]:
    """What was refused, which the guard of this very test is not to see."""
    lines = REFUSED.read_text().splitlines()
    REFUSED.write_text("")
    return lines


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.org"])
def test_another_machine_is_refused_and_written_down(host):
    with pytest.raises(ConnectionRefusedError, match="the tests have no network"):
        socket.create_connection((host, 9), timeout=1)
    assert [host in line for line in refused()] == [True]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain, pytest.raises(ConnectionRefusedError):
        plain.sendto(b"x", ("192.0.2.1", 9))
    assert len(refused()) == 1


def test_a_process_that_a_test_starts_is_refused_too():
    program = [sys.executable, "-c", REACH.format(host="192.0.2.1")]
    ended = subprocess.run(program, capture_output=True, text=True)
    assert ended.stdout.startswith("ConnectionRefusedError the tests have no network")
    assert ["192.0.2.1" in line for line in refused()] == [True]


def test_this_machine_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5):
            pass
        program = "import socket, sys; socket.create_connection(('localhost', int(sys.argv[1])), 5); print('there')"
        command = [sys.executable, "-c", program, str(server.getsockname()[1])]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.stdout == "there\n", ended.stderr
    assert refused() == []


def test_a_refusal_that_is_swallowed_fails_the_test_all_the_same():
    guard = watched()
    next(guard)
    with suppress(OSError):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    with pytest.raises(pytest.fail.Exception, match="the network was reached for"):
        next(guard)
    assert refused() == []
