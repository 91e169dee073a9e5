"""Serves a page on loopback while it changes: `hwnas report --watch`. Nothing but that page can be had from it.

The page asks for its own tag every other second and loads itself anew when that has changed.
"""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hwnas.errors import InputError

_HOST = "127.0.0.1"
_SCRIPT = """
const tag = document.currentScript.dataset.tag;
setInterval(async () => {
  const answer = await fetch("/", {method: "HEAD", cache: "no-store"}).catch(() => null);
  if (answer && answer.ok && answer.headers.get("ETag") !== `"${tag}"`) location.reload();
}, 2000);
"""
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = "default-src 'none'"  # how a page's own begins
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageServer:
    """A page that is served at `address`; `show` puts another one in its place."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self._shown = ("", b"")  # the tag and the page, replaced together

    @property
    def address(self) -> str:
        """What is typed into a browser."""
        return f"http://{_HOST}:{self._server.server_port}/"

    def show(self, page: str) -> None:
        """Serve this page from now on, with the script by which it loads itself anew."""
        tag = hashlib.sha256(page.encode()).hexdigest()[:16]
        allowed = f"{_POLICY}; script-src 'sha256-{_SCRIPT_HASH}'; connect-src 'self'"
        script = f'<script data-tag="{tag}">{_SCRIPT}</script>\n</body>'
        watched = page.replace(_POLICY, allowed, 1)
        before, _, after = watched.rpartition("</body>")
        self._shown = (tag, f"{before}{script}{after}".encode())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request for the page, and refuse any other."""
        status = self._status(request)
        tag, content = self._shown
        is_page = status is HTTPStatus.OK
        request.send_response(status)
        for name, value in _HEADERS.items():
            request.send_header(name, value)
        if is_page:
            request.send_header("ETag", f'"{tag}"')
        request.send_header("Content-Length", str(len(content) if is_page else 0))
        request.end_headers()
        if is_page and request.command == "GET":
            request.wfile.write(content)

    def _status(self, request: BaseHTTPRequestHandler) -> HTTPStatus:
        """Say whether the page may be had: by no other name than loopback's, which another site could point here."""
        host = request.headers.get("Host", "").removesuffix(f":{self._server.server_port}")
        if host not in (_HOST, "localhost"):
            return HTTPStatus.FORBIDDEN
        return HTTPStatus.OK if request.path == "/" else HTTPStatus.NOT_FOUND


@contextmanager
def serving(port: int) -> Iterator[PageServer]:
    """Serve on loopback until the end, at a port of the system's choice for 0.

    Raises InputError for a port that is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "hwnas", ""
        timeout = 10.0  # seconds; one that says nothing keeps no thread

        def do_GET(self) -> None:
            pages.answer(self)

        def do_HEAD(self) -> None:
            pages.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of what is asked for."""

    try:
        server = ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        raise InputError(
            f"--port must be free; got {port}: {error.strerror}. Leave it out, and a free one is taken"
        ) from None
    server.daemon_threads = True
    pages = PageServer(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
