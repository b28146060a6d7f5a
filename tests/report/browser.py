"""Drives headless Chromium through its DevTools pipe: no packages, no open port."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


class Browser:
    """One headless browser with one tab; records console messages, exceptions and requests."""

    def __init__(self, deadline_s: float = 60.0) -> None:
        assert CHROMIUM is not None
        self._deadline_s = deadline_s
        self._profile = tempfile.mkdtemp(prefix="report-browser-")
        to_read, self._to_write = os.pipe()
        self._from_read, from_write = os.pipe()
        self._pid = _spawn(CHROMIUM, self._profile, to_read, from_write)
        os.close(to_read)
        os.close(from_write)
        self._buffer, self._next_id, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._to_write)
        os.close(self._from_read)
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Open a file and wait until its page says that every plot is drawn."""
        self._events.clear()
        mobile = width < 600
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                   deviceScaleFactor=1, mobile=mobile)  # fmt: skip
        self.media(dark=dark)
        self._call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + self._deadline_s
        while not self.evaluate("document.documentElement?.dataset.ready !== undefined"):
            assert time.monotonic() < until, f"{path} did not finish: {self.problems()}"
            time.sleep(0.05)

    def visit(self, url: str, until: str) -> None:
        """Open an address and wait until an expression is true of its page."""
        self._events.clear()
        self._call("Page.navigate", url=url)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until an expression is true of the page."""
        last = time.monotonic() + self._deadline_s
        while not self.evaluate(until):
            shown = "`${location}: ${document.body?.innerText}`"
            assert time.monotonic() < last, self.evaluate(shown)
            time.sleep(0.1)

    def media(self, *, dark: bool = False, printing: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call(
            "Emulation.setEmulatedMedia", media="print" if printing else "", features=[scheme]
        )
        # Listeners of the media run in the next frame.
        frame = "new Promise(done => requestAnimationFrame(() => done(true)))"
        self.evaluate(f"{frame}.then(() => {frame})")

    def press(self, keys: str) -> None:
        """Press one key after another, as a person at the keyboard does."""
        for key in keys:
            self._call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
            self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def evaluate(self, script: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True,
                            awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        extra = {"clip": clip, "captureBeyondViewport": True} if full else {}
        shot = self._call("Page.captureScreenshot", format="png", **extra)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        printed = self._call("Page.printToPDF", printBackground=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def problems(self) -> list[str]:
        """Console errors and warnings, uncaught exceptions and log entries since `open`."""
        self._call("Runtime.evaluate", expression="0")  # whatever was sent before is then here
        found = []
        for event in self._events:
            data = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(data["exceptionDetails"])[:500])
            elif event["method"] == "Runtime.consoleAPICalled" and data["type"] != "log":
                found.append(json.dumps(data["args"])[:500])
            elif event["method"] == "Log.entryAdded":
                found.append(data["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """URLs that the page asked for since `open`."""
        self._call("Runtime.evaluate", expression="0")
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._next_id += 1
        message: dict[str, Any] = {"id": self._next_id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + self._deadline_s
        while True:
            answer = self._receive(until)
            if answer.get("id") == self._next_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]  # type: ignore[no-any-return]
            if "method" in answer:
                self._events.append(answer)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from_read], [], [], until - time.monotonic())
            assert ready, "the browser does not answer"
            piece = os.read(self._from_read, 1 << 20)
            assert piece, "the browser ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]


def _spawn(program: str, profile: str, commands: int, answers: int) -> int:
    """Start the browser: it reads commands from descriptor 3 and answers on descriptor 4."""
    arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-dev-shm-usage", "--remote-debugging-pipe", "--disable-extensions",
                 "--disable-background-networking", f"--user-data-dir={profile}",
                 "about:blank"]  # fmt: skip
    # Out of the way of 3 and 4, so that neither is overwritten before it is duplicated.
    commands, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, answers))
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, commands, 3),
        (os.POSIX_SPAWN_DUP2, answers, 4),
    ]
    try:
        # Its temporary folders, which stay when it is ended, go with the profile.
        environment = {**os.environ, "TMPDIR": profile}
        return os.posix_spawn(program, arguments, environment, file_actions=actions)
    finally:
        os.close(commands)
        os.close(answers)
