"""A web server with bad manners, for tests of downloads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How a file is served; the lists are used up, one entry a request."""

    content: bytes = b""
    drop_after: list[int] = field(default_factory=list)  # bytes sent, then the connection ends
    stall_after: list[int] = field(default_factory=list)  # bytes sent, then silence
    refuse: list[int] = field(default_factory=list)  # answers instead of a file
    headers: dict[str, str | None] = field(default_factory=dict)  # instead of the true ones
    ignores_range: bool = False
    ignores_if_range: bool = False
    endless: bool = False  # the content again and again
    redirect: str | None = None
    ranges: list = field(default_factory=list)  # the Range header of each request


@contextmanager
def serve(files: dict[str, Behaviour]) -> Iterator[str]:
    """The address of a server of these files, by path."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            file = files.get(self.path)
            if file is None:
                return self.send_error(404)
            file.ranges.append(self.headers["Range"])
            if file.redirect:
                return self.answer(302, {"Location": file.redirect})
            if file.refuse:
                return self.answer(file.refuse.pop(0), {})
            return self.send_file(file)

        def answer(self, code, headers):
            self.send_response(code)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()

        def send_file(self, file):
            headers = {"ETag": '"one"', "Content-Type": "application/octet-stream", **file.headers}
            begin, size = 0, len(file.content)
            version = headers["ETag"] or headers.get("Last-Modified")
            same = file.ignores_if_range or self.headers["If-Range"] in (None, version)
            if self.headers["Range"] and same and not file.ignores_range:
                begin = int(self.headers["Range"][len("bytes=") : -1])
                if begin >= size:
                    return self.answer(416, {})
                extent = f"bytes {begin}-{size - 1}/{size}"
                self.answer(
                    206, {"Content-Length": size - begin, "Content-Range": extent, **headers}
                )
            else:
                self.answer(200, {"Content-Length": size, **headers})
            body = file.content[begin:]
            try:
                if file.drop_after:
                    self.wfile.write(body[: file.drop_after.pop(0)])
                elif file.stall_after:
                    self.wfile.write(body[: file.stall_after.pop(0)])
                    self.wfile.flush()
                    over.wait(20)
                else:
                    self.wfile.write(body)
                    while file.endless and not over.is_set():
                        self.wfile.write(body)
            except ConnectionError:
                pass  # the client has gone

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
