"""A real Chromium, driven over its debugging pipe: no driver, no port, no dependency. None where there is no Chromium."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


class Browser:
    """One tab; `events` are the notifications seen so far."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM
        low_in, self.write_to = os.pipe()
        self.read_from, low_out = os.pipe()
        theirs_in, theirs_out = (fcntl.fcntl(f, fcntl.F_DUPFD, 10) for f in (low_in, low_out))  # above 3 and 4
        os.close(low_in)
        os.close(low_out)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        options += ["--no-first-run", f"--user-data-dir={folder / 'profile'}"]
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', CHROMIUM, *options]
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.write_to)
        os.close(self.read_from)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send one command and wait for its answer."""
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": parameters, **session}
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path) -> None:
        """Go to a local file and wait until it is loaded."""
        loader = self.call("Page.navigate", url=page.resolve().as_uri())["loaderId"]
        while not any(
            e["params"].get("loaderId") == loader and e["params"].get("name") == "load"
            for e in self.events
            if e.get("method") == "Page.lifecycleEvent"
        ):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for an expression to become true in the page."""
        self.until_here(lambda: bool(self.value(expression)), expression)

    def until_here(self, condition: Callable[[], bool], what: str = "what was awaited", seconds: float = 30) -> None:
        """Wait for something to become true on this side."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"never true: {what}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press a key for real, as a person would."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def requested(self) -> list[str]:
        """Addresses the page asked for."""
        sent = (e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [url for url in sent if not url.startswith("about:")]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            part = os.read(self.read_from, 1 << 16)
            assert part, "the browser ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))
