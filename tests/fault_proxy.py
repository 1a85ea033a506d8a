"""An HTTP proxy in front of a server, which answers, waits or cuts connections as a seeded schedule says.

Faults can be changed while it runs: ``proxy.faults = Faults(error=0.2)`` draws one for each request, and
``proxy.next("PUT", "lost")`` gives a fault to the next request of a method. ``proxy.met`` counts what happened.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}  # headers that concern one connection only
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>of the tests</Message></Error>"
_INTERNAL = b"<Error><Code>InternalError</Code><Message>of the tests</Message></Error>"


@dataclass(frozen=True)
class Faults:
    """The share of requests that meet each fault."""

    error: float = 0.0  # answered 500; the server never hears of them
    slow_down: float = 0.0  # answered 503
    delay: float = 0.0  # answered ``seconds`` later
    cut: float = 0.0  # cut off in the middle of their body (or before an answer, without one); the server never hears
    lost: float = 0.0  # done by the server, cut off before its answer: ambiguous to the client
    torn: float = 0.0  # done by the server, cut off in the middle of its answer
    seconds: float = 0.2

    def drawn(self, value: float) -> str | None:
        """The fault of a request that drew ``value``, uniform in [0, 1)."""
        for kind, share in asdict(self).items():
            if kind != "seconds" and value < share:
                return kind
            value -= share if kind != "seconds" else 0.0
        return None


NONE = Faults()


class FaultProxy:
    """Forwards to ``upstream``, ``http://host:port``."""

    def __init__(self, upstream: str, seed: int, faults: Faults = NONE) -> None:
        self.host, self.port = str(urlsplit(upstream).hostname), int(urlsplit(upstream).port or 80)
        self.faults = faults
        self.met: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._next: dict[str, deque[str]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def next(self, method: str, *kinds: str) -> None:
        """Give these faults to the next requests of ``method``, in order."""
        with self._lock:
            self._next[method].extend(kinds)

    def fault(self, method: str) -> str | None:
        """The fault of the request that comes now."""
        with self._lock:
            queue = self._next[method]
            kind = queue.popleft() if queue else self.faults.drawn(self._random.random())
            self.met[kind or "none"] += 1
            return kind

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            kind = proxy.fault(self.command)
            size = int(self.headers.get("Content-Length") or 0)
            if kind == "cut":
                self.rfile.read(size // 2)
                self._hang_up()
                return
            body = self.rfile.read(size)
            if kind in ("error", "slow_down"):
                status, content = (500, _INTERNAL) if kind == "error" else (503, _SLOW_DOWN)
                self._answer(status, [("Content-Type", "application/xml")], content)
                return
            if kind == "delay":
                threading.Event().wait(proxy.faults.seconds)
            with suppress(OSError, HTTPException):  # the server is down: a connection that ends without an answer
                self._relay(kind, body)
                return
            self._hang_up()

        def _relay(self, kind: str | None, body: bytes) -> None:
            connection = HTTPConnection(proxy.host, proxy.port, timeout=60)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _HOP:
                        connection.putheader(name, value)  # the host too: it is signed
                connection.endheaders(body)
                answer = connection.getresponse()
                self._return(kind, answer, answer.read())
            finally:
                connection.close()

        def _return(self, kind: str | None, answer: HTTPResponse, content: bytes) -> None:
            if kind == "lost":
                self._hang_up()
                return
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            self._answer(answer.status, headers, content, len(content) // 2 if kind == "torn" else None)

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, torn: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:torn])
            if torn is not None:
                self.wfile.flush()
                self._hang_up()

        def _hang_up(self) -> None:
            """End the connection at once, as a server that dies does (RST)."""
            self.close_connection = True
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # the client, or we, hung up
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    return Handler
