"""A page on this machine alone: made again when it is asked for and something has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dphrl.errors import ConfigError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Hosts a browser may ask for: another name that leads here is another site's way in."""


class PageServer(ThreadingHTTPServer):
    """Answers / with a page, and nothing else."""

    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], str], stamp: Callable[[], object]) -> None:
        """
        Args:
            port: of 127.0.0.1; 0 takes a free one.
            page: makes the page.
            stamp: what the page depends on; it is made again when this differs.
        Raises:
            ConfigError: the port is taken or cannot be one.
        """
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--port {port} cannot be used ({error}); give another, or 0 for a free one") from None
        self._page, self._stamp = page, stamp
        self._made: tuple[object, bytes] | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def content(self) -> bytes:
        """The page as of now; two browsers at once make it once."""
        with self._lock:
            stamp = self._stamp()
            if self._made is None or self._made[0] != stamp:
                self._made = (stamp, self._page().encode())
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "dphrl"
    sys_version = ""

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in NAMES:
            self.send_error(403, "ask for 127.0.0.1 or localhost")
        elif self.path.partition("?")[0] not in ("/", "/index.html"):
            self.send_error(404, "there is one page here: /")
        else:
            content = self.server.content()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the run."""
