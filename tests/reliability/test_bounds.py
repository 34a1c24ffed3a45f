# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Small files made to take much time or memory: how each ends, and what it takes; and long lists of faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glas_wsol.errors import DatalistError
from glas_wsol.utils.json_files import read_json
from tests.reliability.bounds import MEGABYTES, SECONDS, Taken, files, measure, measure_all
from tests.reliability.conftest import tell

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not say its memory")


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> dict[str, Taken]:
    return measure_all(tmp_path_factory.mktemp("bounds"))


@pytest.mark.parametrize("name", files(Path()))
def test_a_file_made_to_take_much_ends_soon_and_in_little_memory(taken, name):
    found = taken[name]
    assert found.typed, found
    assert found.seconds < SECONDS, found
    assert found.megabytes < MEGABYTES, found
    tell(name, found.end)


def _wait(path: Path) -> None:
    while True:
        pass


def _hoard(path: Path) -> bytes:
    return bytes(200_000_000) + b"x"


def _fail(path: Path) -> None:
    raise KeyError(path.name)


def test_what_would_break_the_bounds_is_seen(tmp_path, monkeypatch):
    assert measure(_hoard, tmp_path).megabytes > MEGABYTES
    assert measure(_fail, tmp_path / "a").end == "KeyError: 'a'"
    assert not measure(_fail, tmp_path / "a").typed
    monkeypatch.setattr("tests.reliability.bounds.SECONDS", 0.05)
    assert measure(_wait, tmp_path).end == "it had to be stopped"


def test_json_files_have_bounds(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"é": [1, 2.5]}), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5]}
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_json(tmp_path / "a.json", 3)
    (tmp_path / "a.json").write_bytes(b'{"a":' * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


def test_bounds_many_faults_report_a_thousand_and_store_all():
    error = DatalistError("a.csv", [f"line {n}: blank image" for n in range(2, 1503)])
    assert len(error.faults) == 1501
    assert "line 1001: blank image; and 501 more [a.csv]" in str(error)
    assert "line 1002" not in str(error)
