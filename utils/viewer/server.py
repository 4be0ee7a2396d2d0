"""The page that answers questions, served to this machine's browser only.

Every address begins with a random token; requests without it are refused. Videos are named by
number, so that no other file can be read. Requests with another Host (DNS rebinding) are refused.
"""

import io
import mimetypes
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.base.errors import UserError
from utils.base.files import has_video, legible
from utils.base.outlets import without_controls
from utils.viewer.page import VIEWER

ADDRESS = "127.0.0.1"
HOSTS = [ADDRESS, "localhost"]
FILES = {
    "ask.html": "text/html", "page.css": "text/css", "ask.css": "text/css",
    "elements.js": "text/javascript", "ask.js": "text/javascript",
}  # fmt: skip
UNKNOWN = "application/octet-stream"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
LONGEST = 1000  # characters of a question
LONGEST_VIDEO = 1e7  # seconds
PICTURE_SIDE = 180  # pixels


class Moment(NamedTuple):
    """A window that answers a question."""

    video: int  # number among the files
    start: float  # seconds
    end: float
    score: float


class AskPage(NamedTuple):
    """What the page shows, and the functions that compute it."""

    files: Sequence[Path]  # videos, or features without a video
    ask: Callable[[str], list[Moment]]  # best first
    picture: Callable[[Path, float, int], np.ndarray]  # (file, seconds, shorter side) -> (H, W, 3)
    score_name: str = "score"


def serve_page(page: AskPage, port: int) -> None:
    """Serve until interrupted; prints the address. Raises UserError if the port is taken."""
    try:
        import uvicorn

        application = make_app(page, token := secrets.token_urlsafe(16))
    except ImportError:
        raise UserError("serving needs: pip install starlette uvicorn pillow") from None
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()  # requests wait until the server runs
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; give another one") from None
    port = listener.getsockname()[1]
    print(f"open http://{ADDRESS}:{port}/{token}/  (end with Ctrl+C)", flush=True)
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    server.run(sockets=[listener])


def make_app(page: AskPage, token: str) -> Any:
    """The application (ASGI)."""
    from PIL import Image
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

    def guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def answer_with_token(request: Request) -> Response:
            if not secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
                raise HTTPException(403)
            response = answer(request)
            response.headers.update(HEADERS)
            return response

        return answer_with_token

    def static(request: Request) -> Response:
        name = request.path_params.get("name", "ask.html")
        if name not in FILES:
            raise HTTPException(404)
        return FileResponse(VIEWER / name, media_type=FILES[name])

    def answers(request: Request) -> Response:
        try:
            moments = page.ask(request.query_params.get("question", "")[:LONGEST])
        except UserError as error:
            return JSONResponse({"error": without_controls(str(error))}, 400)
        return JSONResponse([describe(moment) for moment in moments])

    def describe(moment: Moment) -> dict[str, Any]:
        file = page.files[moment.video]
        about_file = {"name": legible(file.name), "playable": has_video(file)}
        return {**moment._asdict(), **about_file, "scoreName": page.score_name}

    def video_file(request: Request) -> Path:
        number = request.path_params["number"]
        if number >= len(page.files) or not page.files[number].is_file():
            raise HTTPException(404)
        return page.files[number]

    def video(request: Request) -> Response:
        file = video_file(request)
        kind = mimetypes.guess_type(file.name)[0] or ""
        return FileResponse(file, media_type=kind if kind.startswith("video/") else UNKNOWN)

    def picture(request: Request) -> Response:
        time = min(request.path_params["time"], LONGEST_VIDEO)
        try:
            pixels = page.picture(video_file(request), time, PICTURE_SIDE)
        except UserError:
            raise HTTPException(404) from None
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG")
        return Response(content.getvalue(), media_type="image/jpeg")

    def refuse(request: Request) -> Response:
        raise HTTPException(403)

    routes = {
        "/{token}/": guarded(static),
        "/{token}/answers": guarded(answers),
        "/{token}/video/{number:int}": guarded(video),
        "/{token}/picture/{number:int}/{time:float}": guarded(picture),
        "/{token}/{name}": guarded(static),
        "/{rest:path}": refuse,
    }
    return Starlette(
        routes=[Route(path, answer) for path, answer in routes.items()],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
    )
