"""Serve the page: it uploads photos, and receives objects and files."""

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fashion_hydra.app.photos import FORMATS, Photo, Session
from fashion_hydra.utils.error_messages import describe_error
from fashion_hydra.utils.errors import UserError

LARGEST_FILE = 100 * 2**20
"""Largest upload, in bytes."""
_HERE = Path(__file__).parent
_SHARED = _HERE.parent / "report"
_FILES = {
    "/": (_HERE / "page.html", "text/html"),
    "/base.css": (_SHARED / "page.css", "text/css"),
    "/page.css": (_HERE / "page.css", "text/css"),
    "/controls.js": (_HERE / "controls.js", "text/javascript"),
    "/page.js": (_HERE / "page.js", "text/javascript"),
}
_HEADERS = {
    # Load nothing from other sites, and do not let other pages embed this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_TYPES = {"zip": "application/zip", "json": "application/json", "csv": "text/csv"}
_THRESHOLDS: dict[str, Callable[[str], Any]] = {
    "score_thr": float,
    "iou_thr": float,
    "mask_thr": float,
    "min_area": int,
}
Handler = Callable[[Session, Request], Awaitable[Response]]


def make_app(session: Session, hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")) -> Starlette:
    """Make the application that serves a session.

    Args:
        session: the model and its photos.
        hosts: allowed host names in requests, without ports; `*` for any.
    """
    routes = [Route(path, _file(*of)) for path, of in _FILES.items()]
    for path, handler, method in (
        ("/api/session", _described, "GET"),
        ("/api/photos", _add, "POST"),
        ("/api/data/{index:int}", _open, "POST"),
        ("/api/photos/{number:int}/picture", _picture, "GET"),
        ("/api/photos/{number:int}/objects", _objects, "GET"),
        ("/api/download/{kind}", _download, "GET"),
    ):
        routes.append(Route(path, _told(session, handler), methods=[method]))
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


def _file(path: Path, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return Response(path.read_text(encoding="utf-8"), media_type=kind, headers=_HEADERS)

    return serve


def _told(session: Session, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: respond with a one-line message to errors, and refuse requests from other sites' pages."""

    async def answer(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin.split("://")[-1] != request.headers.get("host"):
            return JSONResponse({"error": "refused, because a page of another site sent the request"}, 403, _HEADERS)
        try:
            response = await handler(session, request)
        except KeyError:
            return JSONResponse({"error": "this photo is no longer in memory: drop it again"}, 404, _HEADERS)
        except Exception as error:
            line, code = describe_error(error, "app")
            return JSONResponse({"error": line}, 400 if code == 2 else 500, _HEADERS)
        response.headers.update(_HEADERS)
        return response

    return answer


async def _described(session: Session, request: Request) -> Response:
    return JSONResponse(session.described())


async def _add(session: Session, request: Request) -> Response:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST_FILE:
            raise UserError(f"the file is larger than {LARGEST_FILE >> 20} MB: reduce the photo")
    name = request.query_params.get("name", "photo")
    return _about(await run_in_threadpool(session.add, name, bytes(content)))


async def _open(session: Session, request: Request) -> Response:
    return _about(await run_in_threadpool(session.open, request.path_params["index"]))


def _about(photo: Photo) -> Response:
    (height, width), (shown_height, shown_width) = photo.look.candidates.size, photo.shown
    return JSONResponse(
        {
            "number": photo.number,
            "name": photo.name,
            "width": width,
            "height": height,
            "shown": [shown_width, shown_height],
            "candidates": len(photo.look.candidates),
            "hasTruth": photo.truth is not None,
        }
    )


async def _picture(session: Session, request: Request) -> Response:
    photo = session.get(request.path_params["number"])
    return Response(await run_in_threadpool(photo.picture), media_type="image/jpeg")


async def _objects(session: Session, request: Request) -> Response:
    photo = session.get(request.path_params["number"])
    return JSONResponse(await run_in_threadpool(session.objects, photo, _thresholds(request)))


async def _download(session: Session, request: Request) -> Response:
    kind = request.path_params["kind"]
    if kind not in FORMATS:
        raise UserError(f"{kind}: give one of {', '.join(FORMATS)}")
    numbers = request.query_params.get("photos", "").split(",")
    photos = [session.get(int(number) if number.isdecimal() else -1) for number in numbers]
    content = await run_in_threadpool(session.download, photos, kind, _thresholds(request))
    name = {"masks": "masks.zip", "coco": "coco_results.json", "csv": "submission.csv"}[kind]
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=_TYPES[FORMATS[kind]], headers=headers)


def _thresholds(request: Request) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, kind in _THRESHOLDS.items():
        if (text := request.query_params.get(name)) is not None:
            try:
                given[name] = kind(text)
            except ValueError as error:
                raise UserError(f"{name}={text[:40]}: must be a number") from error
    if (text := request.query_params.get("drop")) is not None:
        try:
            given["drop_classes"] = [int(number) for number in json.loads(f"[{text}]")]
        except (ValueError, TypeError) as error:
            raise UserError(f"drop={text[:40]}: must be category ids, such as 6,23") from error
    return given
