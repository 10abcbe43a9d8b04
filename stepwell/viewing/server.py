"""The viewer's server: the list and the pages of one lake, for the browser on this machine.

Belongs here: who may ask for what. Does not belong here: the pages. It listens on 127.0.0.1 only and answers only to that name,
so that no page of another origin can read it under a name of its own (DNS rebinding); it only reads the lake, apart from
folding `trajectories`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from markupsafe import escape

from stepwell.display import plain, policy
from stepwell.errors import StepwellError, UsageError
from stepwell.lake import Lake
from stepwell.viewing.document import document
from stepwell.viewing.listing import ORDER, Asked, list_page
from stepwell.viewing.page import Page, page

HOST = "127.0.0.1"
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}  # fmt: skip
_AT_ONCE = 4
_LONGEST = 20_000


class Viewer(ThreadingHTTPServer):
    """Serves a lake on 127.0.0.1 (port 0: a free one). Raises OSError when the port is taken."""

    daemon_threads = True

    def __init__(self, lake: Lake, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.lake = lake
        self.busy = threading.BoundedSemaphore(_AT_ONCE)
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        self.url = f"http://{HOST}:{self.server_port}/"

    def address(self, ids: Sequence[str] = ()) -> str:
        """Where trajectories are shown, or without any the list."""
        return f"{self.url}view?{urlencode([('id', name) for name in ids])}" if ids else self.url

    def answer(self, target: str) -> Page:
        """The page at a path with its query; what is asked for wrongly is said on a page."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query, keep_blank_values=True)
        try:
            if path == "/view":
                return page(document(self.lake, query.get("id", [])), home=True)
            if path != "/":
                return told(f"no page {path!r}; allowed: / and /view?id=TRAJECTORY.", 404)
            first = query.get("first", ["0"])[0]
            if not first.isdecimal() or len(first) > 9:
                raise UsageError(f"first={first!r} is no number; allowed: 0 and more.")
            return list_page(self.lake, Asked(query.get("where", [""])[0], query.get("order", [ORDER])[0], int(first)))
        except UsageError as error:
            return told(str(error), 404)
        except StepwellError as error:
            return told(f"{type(error).__name__}: {error}", 500)


def told(message: str, status: int) -> Page:
    """A page that says one thing."""
    html = (
        f"<!doctype html><html lang='en'><title>{status}</title><main><h1>{status}</h1><p>{escape(plain(message))}</p>"
    )
    return Page(f"{html}<p><a href='/'>trajectories</a></p></main></html>", policy(), status)


class _Handler(BaseHTTPRequestHandler):
    server: Viewer
    server_version, sys_version = "stepwell", ""
    timeout = 60

    def do_GET(self) -> None:
        refused = self._refused()
        if refused is not None:
            self._send(refused)
            return
        with self.server.busy:
            self._send(self.server.answer(self.path))

    do_HEAD = do_GET

    def _refused(self) -> Page | None:
        """Why this request is not answered: another name for this machine, or another site behind it."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            names = " or ".join(sorted(self.server.hosts))
            return told(
                f"this server is not {str(self.headers.get('Host'))!r}; ask for {names}.",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        elsewhere = self.headers.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site")
        sql = parse_qs(urlsplit(self.path).query, keep_blank_values=True).keys() & {"where", "order"}
        if elsewhere and (self.headers.get("Sec-Fetch-Mode") != "navigate" or sql):
            return told("requests of other sites are not answered; open the address yourself.", HTTPStatus.FORBIDDEN)
        return told("the address is too long.", HTTPStatus.REQUEST_URI_TOO_LONG) if len(self.path) > _LONGEST else None

    def _send(self, made: Page) -> None:
        body = made.html.encode("utf-8", "backslashreplace")
        self.send_response(made.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", f"{made.policy}; frame-ancestors 'none'")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is looked at is nobody's business."""
