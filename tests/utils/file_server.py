"""A web server with bad manners, for tests of downloads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How a file is served; the lists and counts are used up, one a request."""

    content: bytes = b""
    drop_after: list[int] = field(default_factory=list)  # bytes sent, then the connection ends
    stall_after: list[int] = field(default_factory=list)  # bytes sent, then silence
    refuse: list[int] = field(default_factory=list)  # answers instead of a file
    headers_of_refusal: dict = field(default_factory=dict)
    ignores_range: bool = False
    wrong_range: bool = False  # answers a range with the bytes from 1 on
    length: int | None = None  # said instead of the true one
    no_length: bool = False
    etag: str | None = '"one"'
    kind: str = "application/octet-stream"
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
                self.send_response(302)
                self.send_header("Location", file.redirect)
                return self.end_headers()
            if file.refuse:
                self.send_response(file.refuse.pop(0))
                for name, value in file.headers_of_refusal.items():
                    self.send_header(name, value)
                return self.end_headers()
            return self.send_file(file)

        def send_file(self, file):
            begin = 0
            asked = self.headers["Range"]
            if asked and not file.ignores_range:
                begin = 1 if file.wrong_range else int(asked[len("bytes=") : -1])
                if begin >= len(file.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(file.content)}")
                    return self.end_headers()
                self.send_response(206)
                end, size = len(file.content) - 1, len(file.content)
                self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
            else:
                self.send_response(200)
            body = file.content[begin:]
            if not file.no_length:
                length = len(body) if file.length is None else file.length
                self.send_header("Content-Length", str(length))
            if file.etag:
                self.send_header("ETag", file.etag)
            self.send_header("Content-Type", file.kind)
            self.end_headers()
            if file.drop_after:
                self.wfile.write(body[: file.drop_after.pop(0)])
            elif file.stall_after:
                self.wfile.write(body[: file.stall_after.pop(0)])
                self.wfile.flush()
                over.wait(20)
            else:
                self.wfile.write(body)

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
