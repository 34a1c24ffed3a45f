# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The page's requests: cases, tiles, outlines, edits, suggestions and learning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from glas_wsol.errors import ConfigError, GlasWsolError
from glas_wsol.review.layer_tiles import encoded_tile, thumbnail
from glas_wsol.review.learning_job import LearningJob
from glas_wsol.review.outline_edits import edited
from glas_wsol.review.review_run import ReviewRun, Suggest
from glas_wsol.review.saved_outlines import FOLDER, OtherVersionError, OutlineStore, Saved
from glas_wsol.version import __version__

__all__ = ["review_app"]

_STATIC = Path(__file__).parent / "static"
_MOST_LOCALIZED = 100  # images that the new model localizes
_NO_STORE = {"Cache-Control": "no-store"}


def review_app(run: ReviewRun, store: OutlineStore, job: LearningJob, suggest: Suggest) -> Starlette:
    """The application, without the guard in front of it.

    Args:
        run: results under review.
        store: outlines that are saved.
        job: learns.
        suggest: which images to correct first.
    """

    def index_of(request: Request) -> int:
        index = request.path_params["case"]
        if not 0 <= index < len(run.cases):
            raise KeyError("case")
        return index

    @lru_cache(64)
    def draft(index: int) -> Mapping[str, Any]:
        return run.draft(index)

    def about(request: Request) -> Response:
        alarm = run.alarm
        return _json(
            {
                "folder": run.root.name,
                "trained_on": run.trained_on,
                "alarm": None if alarm is None else str(alarm),
                "verdict": None if alarm is None else alarm.verdict.value,
                "left_out": run.left_out,
                "who": store.who,
                "corrections": str(run.root / FOLDER),
                "version": __version__,
            }
        )

    def cases(request: Request) -> Response:
        states = store.states()
        rows = (run.row(index, states.get(case.name, "draft")) for index, case in enumerate(run.cases))
        return _json([row | {"new": run.has_new(row["id"])} for row in rows])

    def case(request: Request) -> Response:
        return _json(run.details(index_of(request)))

    @lru_cache(2000)
    def small(index: int) -> bytes:
        of = run.cases[index]
        return thumbnail(run.pixels(index, "image")) if not of.slide else Path(of.image).read_bytes()

    def picture(request: Request) -> Response:
        index = index_of(request)
        kind = "image/png" if run.cases[index].slide else "image/jpeg"
        return Response(small(index), headers={"Cache-Control": "private, max-age=3600"}, media_type=kind)

    def tile(request: Request) -> Response:
        index, place, layer = index_of(request), request.path_params, request.path_params["layer"]
        found, kind = encoded_tile(run.pixels(index, layer), layer, place["z"], place["x"], place["y"])
        cached = "no-store" if layer in ("new", "changed") else "private, max-age=3600"
        return Response(found, headers={"Cache-Control": cached}, media_type=kind)

    def outlines(request: Request) -> Response:
        index = index_of(request)
        return _saved(store.read(run.cases[index].name, draft(index)))

    def save(request: Request, sent: Any) -> Response:
        index = index_of(request)
        given = _list(sent.get("outlines"))
        version = request.headers.get("if-match", "").strip('"')
        name, size = run.cases[index].name, run.size(index)
        state = str(sent.get("state"))
        found = store.save(name, given, state, version, draft(index), size, run.classification(index))
        return _json({"state": found.state}, {"ETag": f'"{found.version}"'})

    def contour(request: Request, sent: Any) -> Response:
        threshold = sent.get("threshold")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
            raise ConfigError("the threshold is not valid", fix="give more than 0 and at most 1")
        return _json({"outlines": run.contour(index_of(request), float(threshold), sent.get("within"))})

    def edit(request: Request, sent: Any) -> Response:
        return _json({"outlines": edited(sent, *run.size(index_of(request)))})

    def suggestions(request: Request) -> Response:
        asked = request.query_params.get("n", "10")
        return _json(suggest(run.place, min(int(asked), 100) if asked.isdecimal() else 10))

    def learning(request: Request) -> Response:
        states = store.states()
        accepted = sum(states.get(one.name) == "accepted" for one in run.cases if not one.slide)
        return _json(job.state() | {"accepted": accepted})

    def learn(request: Request, sent: Any) -> Response:
        states = store.states()
        tiles = [one for one in run.cases if not one.slide]
        right = [one for one in tiles if states.get(one.name) == "accepted"]
        accepted = {one.image: store.path(one.name, "accepted") for one in right}
        if not accepted:
            raise ConfigError("no outlines of a tile are accepted", fix="accept those of one image at least")

        def first(one: Any) -> tuple[bool, float]:
            return states.get(one.name) != "accepted", -(one.uncertainty or 0)

        chosen = sorted(tiles, key=first)[:_MOST_LOCALIZED]
        job.start(accepted, [{"image": _absolute(one.image), "mpp": (one.mpp or ("",))[0]} for one in chosen])
        return learning(request)

    def cancel(request: Request) -> Response:
        job.cancel()
        return learning(request)

    def page(request: Request) -> Response:
        return FileResponse(_STATIC / "index.html", headers=_NO_STORE)

    def icon(request: Request) -> Response:  # browsers ask for it here too, whatever the page says
        return FileResponse(_STATIC / "icon.svg")

    one = "/api/cases/{case:int}"
    return Starlette(
        routes=[
            Route("/", page),
            Route("/favicon.ico", icon),
            Route("/api/run", about),
            Route("/api/cases", cases),
            Route(one, case),
            Route(f"{one}/thumbnail", picture),
            Route(f"{one}/tiles/{{layer}}/{{z:int}}/{{x:int}}/{{y:int}}", tile),
            Route(f"{one}/outlines", outlines),
            Route(f"{one}/outlines", _taking(save), methods=["PUT"]),
            Route(f"{one}/contour", _taking(contour), methods=["POST"]),
            Route(f"{one}/edit", _taking(edit), methods=["POST"]),
            Route("/api/suggestions", suggestions),
            Route("/api/learn", learning),
            Route("/api/learn", _taking(learn), methods=["POST"]),
            Route("/api/learn", cancel, methods=["DELETE"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        exception_handlers={
            GlasWsolError: _refused,
            KeyError: _absent,
            IndexError: _absent,
            OtherVersionError: _conflict,
            HTTPException: _failed,
        },
    )


def _taking(handler: Callable[[Request, Any], Response]) -> Callable[[Request], Any]:
    """A handler that is given the JSON object of the request, and runs in a thread."""

    async def called(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(lambda: handler(request, _object(body)))

    return called


def _object(body: bytes) -> dict[str, Any]:
    try:
        sent = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise ConfigError("the request is not a JSON object", fix="load the page again")
    return sent


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ConfigError("there is no list of outlines", fix="load the page again")
    return value


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _json(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(content, headers={**_NO_STORE, **(headers or {})})


def _saved(found: Saved) -> Response:
    return _json({"state": found.state, "collection": found.collection}, {"ETag": f'"{found.version}"'})


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422, _NO_STORE)


def _absent(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is no such thing in these results"}, 404, _NO_STORE)


def _failed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": str(getattr(error, "detail", error))}, status, _NO_STORE)


def _conflict(request: Request, error: Exception) -> Response:
    what = "another window has saved this case since: load it again"
    return JSONResponse({"error": what}, 409, _NO_STORE)
