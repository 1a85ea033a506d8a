"""Headless Chromium over its debugging protocol: what a page asks for, complains of, and how wide it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.processes import CHROMIUM, QUIET, environment


@dataclass(frozen=True)
class Seen:
    """A page after it was loaded."""

    requests: tuple[str, ...]  # addresses it asked for, its own included
    complaints: tuple[str, ...]  # console errors and warnings, exceptions
    scroll_width: int  # of the document, in CSS pixels
    width: int  # of the window


def visit(url: str, width: int, dark: bool = False) -> Seen:
    """Load ``url`` in a window of ``width`` CSS pixels."""
    with _chromium() as port:
        return asyncio.run(asyncio.wait_for(_visit(port, url, width, dark), 90))


def shown_after(url: str, pattern: str, seconds: float = 60) -> float:
    """How long after it was asked for, in seconds, the page at ``url`` shows a text that ``pattern`` is found in."""
    with _chromium() as port:
        return asyncio.run(asyncio.wait_for(_shown_after(port, url, pattern), seconds))


@contextmanager
def _chromium() -> Iterator[int]:
    """The port of a browser's debugging protocol."""
    assert CHROMIUM, "no chromium on this machine: install it (Debian: apt-get install chromium)"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            yield int(line.split("ws://127.0.0.1:")[1].split("/")[0])
        finally:
            process.kill()
            process.wait()


async def _visit(port: int, url: str, width: int, dark: bool) -> Seen:
    async with _page(port, "Page", "Network", "Runtime", "Log") as page:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        await page.call("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await page.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        await page.call("Page.navigate", {"url": url})
        await page.until("Page.loadEventFired")
        size = await page.evaluate("document.documentElement.scrollWidth")
        return Seen(tuple(page.requests), tuple(page.complaints), int(size), width)


async def _shown_after(port: int, url: str, pattern: str) -> float:
    def found(text: str) -> str:
        return f"RegExp({json.dumps(pattern)}).test(document.body?.{text} || '')"

    async with _page(port, "Page", "Runtime") as page:  # the others would tell of every piece of every file
        started = time.monotonic()
        await page.call("Page.navigate", {"url": url})
        # what is there is looked at first: innerText, what can be seen, has the page laid out each time
        while not await page.evaluate(f"{found('textContent')} && {found('innerText')}"):
            await asyncio.sleep(0.05)
        return time.monotonic() - started


@asynccontextmanager
async def _page(port: int, *domains: str) -> AsyncIterator[_Page]:
    """The browser's page, which says what happens to it in ``domains`` of the protocol."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = _Page(socket)
            for domain in domains:
                await page.call(f"{domain}.enable")
            yield page


class _Page:
    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self._events: list[str] = []
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": parameters or {}}))
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return (await self.call("Runtime.evaluate", {"expression": expression}))["result"].get("value")

    async def until(self, event: str) -> None:
        while event not in self._events:
            await self._next()

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._socket.receive()).data)
        method, parameters = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"][:200])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]["text"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(parameters["entry"]["text"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(parameters["args"]))
        return message


def faults(report: Path) -> list[str]:
    """What is wrong with a report in a browser, at 1280 and 390 px, light and dark: requests, complaints, overflow."""
    found = []
    for width in (1280, 390):
        for dark in (False, True):
            seen = visit(report.resolve().as_uri(), width, dark)
            outside = [url for url in seen.requests if not url.startswith(("file:", "data:"))]
            found += [f"{width} px asks for {url}" for url in outside]
            found += [f"{width} px complains: {text}" for text in seen.complaints]
            if seen.scroll_width > seen.width:
                found.append(f"{width} px: the page is {seen.scroll_width} px wide")
    return found
