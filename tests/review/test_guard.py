# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Nobody gets in but the one who started the server, and nothing is reached but the run."""

from __future__ import annotations

import json

import pytest

from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.review import guard
from glas_wsol.review.review_run import ReviewRun
from glas_wsol.review.saved_outlines import OutlineStore
from glas_wsol.review.serve import check_address
from tests.review.conftest import HOST, application, browser, put, results, square


def test_token_opens_one_browser_once(run):
    app = application(run)
    first, second = browser(app), browser(app, opened=False)
    assert first.get("/api/cases").status_code == 200
    cookie = first.get("/?token=word").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    for client, path in ((second, "/?token=word"), (second, "/?token="), (second, "/"), (second, "/api/cases")):
        answer = client.get(path)
        assert answer.status_code == 403
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "path", ["/?token=wrong", "/?token=w%C3%B6rd", "/api/cases?token=word", "/static/main.js?token=word"]
)
def test_wrong_token_or_path_opens_nothing(run, path):
    assert browser(application(run), opened=False).get(path).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8000"},
        {"Host": "127.0.0.1:9"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://{HOST}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_or_name_gets_nothing(client, headers):
    assert client.get("/api/cases", headers=headers).status_code == 403
    version = client.get("/api/cases/0/outlines").headers["etag"]
    body = {"outlines": [], "state": "in work"}
    assert client.put("/api/cases/0/outlines", json=body, headers={"If-Match": version} | headers).status_code == 403
    assert client.get("/api/cases/0/outlines").headers["etag"] == version


def test_change_without_an_origin_is_refused(client):
    del client.headers["Origin"]
    assert client.get("/api/cases").status_code == 200
    assert client.delete("/api/learn").status_code == 403


def test_every_answer_has_the_policy(client):
    for path in ("/", "/static/main.js", "/api/cases", "/api/cases/99", "/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page = client.get("/").text
    assert "<script>" not in page
    assert "style=" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_no_path_leads_out_of_the_page(client, run):
    (run.root.parent / "secret").write_text("secret")
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/static//etc/passwd"):
        assert client.get(path).status_code == 404
    for path in ("/api/cases/-1", "/api/cases/3", "/api/cases/0/tiles/..%2fimage/0/0/0", "/api/cases/0/tiles/x/0/0/0"):
        assert client.get(path).status_code == 404


def test_link_out_of_the_run_is_no_layer(tmp_path):
    out = results(tmp_path)
    (out / "maps" / "plain.png").rename(tmp_path / "elsewhere.png")
    (out / "maps" / "plain.png").symlink_to(tmp_path / "elsewhere.png")
    client = browser(application(ReviewRun(out)))
    assert client.get("/api/cases/0/tiles/map/0/0/0").status_code == 404
    assert client.get("/api/cases/1/tiles/map/0/0/0").status_code == 200


def test_name_that_is_a_path_is_left_out(tmp_path):
    out = results(tmp_path)
    entries = json.loads((out / "predictions.json").read_text())
    entries[1]["name"] = "../../plain"
    (out / "predictions.json").write_text(json.dumps(entries))
    run = ReviewRun(out)
    assert [case.name for case in run.cases] == ["plain", "blank"]
    assert run.left_out == 1


def test_corrections_that_are_links_are_refused(tmp_path):
    out = results(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (out / "corrections").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="a link to another place"):
        OutlineStore(out, "me")
    (out / "corrections").unlink()
    (out / "corrections").mkdir()
    (tmp_path / "file.geojson").write_text("{}")
    (out / "corrections" / "plain.geojson").symlink_to(tmp_path / "file.geojson")
    client = browser(application(ReviewRun(out)))
    assert client.get("/api/cases/0/outlines").status_code == 422
    assert put(client, "x", []).status_code == 422
    assert (tmp_path / "file.geojson").read_text() == "{}"


def test_large_body_is_refused_and_breaks_nothing(client, monkeypatch):
    monkeypatch.setattr(guard, "LARGEST_BODY", 5_000)
    version = client.get("/api/cases/0/outlines").headers["etag"]
    many = [{"id": str(n), "geometry": square(n, 0, 5)} for n in range(100)]
    assert put(client, version, many).status_code == 413
    pieces = (b" " * 1000 for _ in range(100))  # without a length
    assert client.post("/api/learn", content=pieces).status_code == 413
    assert client.get("/api/cases/0/outlines").headers["etag"] == version


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"outlines": 3, "state": "in work"}', b"[" * 100_000, b"\xff"])
def test_body_that_is_no_request_is_refused(client, body):
    answer = client.put("/api/cases/0/outlines", content=body, headers={"If-Match": "x"})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(("the request is not", "there is no list"))


def test_address_is_this_machine_or_said():
    assert check_address("127.0.0.1") == check_address("::1") == ""
    assert "Nothing is encrypted" in check_address("192.168.1.5")
    for wrong in ("0.0.0.0", "::", "here"):  # noqa: S104
        with pytest.raises(ConfigError, match="--address"):
            check_address(wrong)
