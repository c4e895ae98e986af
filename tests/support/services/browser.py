"""A real browser for tests: Chromium without a window, driven over a pipe by the DevTools protocol.

No port is opened and no driver is needed; what the page logs and asks for is kept. Start one with :meth:`Browser.start`
and open pages with :meth:`Browser.open`.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--proxy-server=127.0.0.1:9",  # nothing listens there: not even the browser's own requests leave the machine
)
_LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]
os.closerange(3, 10)
for place, end in zip((3, 4), ends):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from its third descriptor and answers on its fourth."""
_TIMEOUT_S = 300.0
"""What takes longer hangs, however busy the machine is."""
_KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "Space": 32,
    "Home": 36,
    "/": 191,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
"""Codes of the keys that tests press."""
_SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


class BrowserError(Exception):
    """The browser refused a command, or did not answer."""


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@dataclass(slots=True)
class Page:
    """One open page: what it logged, and what it asked for (addresses, the document's own included)."""

    browser: "Browser"
    session: str
    context: str
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loads: int = 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol to this page."""
        return self.browser.send(method, self.session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        told = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return told["result"].get("value")

    def settle(self) -> None:
        """Wait until what has been asked for is laid out and painted: two frames."""
        self.evaluate(_SETTLED)

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression is true; it is looked at in every frame, for five minutes."""
        self.evaluate(
            f"new Promise(done => {{ const look = () => {expression} ? done() : requestAnimationFrame(look); look() }})"
        )

    def size(self, width: int, height: int, *, scale: float = 1) -> None:
        """The size of the window, in pixels of the style sheet."""
        mobile = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        self.settle()

    def scheme(self, scheme: str) -> None:
        """What the user prefers, ``light`` or ``dark``."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, as a keyboard sends it."""
        text = {"Enter": "\r", "Space": " "}.get(key, key if len(key) == 1 else "")
        named = {"key": " " if key == "Space" else key, "code": key, "modifiers": 8 if shift else 0}
        named["windowsVirtualKeyCode"] = _KEYS[key]
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def screenshot(self, *, full: bool = False) -> str:
        """A picture of the window, or of the whole page, as base64 of a PNG."""
        picture: str = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        return picture

    def pdf(self) -> str:
        """The printed page as base64."""
        paper: str = self.send("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)["data"]
        return paper


class Browser:
    """One running Chromium."""

    def __init__(self, process: subprocess.Popen[bytes], writing: int, reading: int) -> None:
        self._process, self._writing, self._reading = process, writing, reading
        self._rest = b""
        self._count = 0
        self._pages: dict[str, Page] = {}

    @classmethod
    @contextlib.contextmanager
    def start(cls, path: str, profile: Path) -> Iterator["Browser"]:
        """Start Chromium with an empty directory for its profile; it ends, with all its processes, with the context."""
        from_us, writing = os.pipe()
        reading, to_us = os.pipe()
        command = [sys.executable, "-c", _LAUNCHER, str(from_us), str(to_us), path, *_FLAGS]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)
        browser = cls(process, writing, reading)
        try:
            yield browser
        finally:
            with contextlib.suppress(BrowserError, OSError):
                browser.send("Browser.close")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(writing)
            os.close(reading)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer; events that come meanwhile are kept."""
        self._count += 1
        asked = {"id": self._count, "method": method, "params": parameters}
        message = json.dumps(asked if session is None else {**asked, "sessionId": session}).encode() + b"\0"
        while message:
            message = message[os.write(self._writing, message) :]
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            told = self._read(deadline)
            if told.get("id") == self._count:
                if "error" in told:
                    raise BrowserError(f"{method}: {told['error']['message']}")
                answer: dict[str, Any] = told["result"]
                return answer
            self._note(told)

    def open(self, address: str, *, width: int = 1280, height: int = 900) -> Page:
        """A page in a context of its own, loaded to its end."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.size(width, height)
        self.load(page, address)
        return page

    def load(self, page: Page, address: str) -> None:
        """Go to an address, and wait until it is loaded."""
        page.loads = 0
        page.messages.clear()
        page.requests.clear()
        told = page.send("Page.navigate", url=address)
        if "errorText" in told:
            raise BrowserError(f"{address}: {told['errorText']}")
        deadline = time.monotonic() + _TIMEOUT_S
        while not page.loads:
            self._note(self._read(deadline))
        page.settle()

    def close(self, page: Page) -> None:
        """Close a page and forget all that it kept."""
        self.send("Target.disposeBrowserContext", browserContextId=page.context)
        del self._pages[page.session]

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BrowserError(f"the browser was silent for {_TIMEOUT_S:.0f} s")
            part = os.read(self._reading, 1 << 20)
            if not part:
                raise BrowserError("the browser went away")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        page = self._pages.get(told.get("sessionId", ""))
        if page is None:
            return
        parameters = told["params"]
        match told["method"]:
            case "Page.loadEventFired":
                page.loads += 1
            case "Network.requestWillBeSent":
                page.requests.append(parameters["request"]["url"])
            case "Runtime.consoleAPICalled":
                page.messages.append(" ".join(str(part.get("value", part)) for part in parameters["args"]))
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                page.messages.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded":
                page.messages.append(parameters["entry"]["text"])
