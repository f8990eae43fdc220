"""A headless Chromium, driven over its own pipes by the DevTools protocol: what a page shows, says and asks for."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
           "--disable-extensions", "--disable-background-networking", "--disable-component-update")  # fmt: skip


class Browser:
    """One page of a Chromium; `said` is what its console held, `asked` the addresses that it requested."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        """Talk to a browser over its pipes."""
        self.process, self.write, self.read = process, write, read
        self.numbers, self.rest = itertools.count(1), b""
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", session=None, url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", session=None, targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, session: str | None = "own", **parameters: Any) -> dict[str, Any]:
        """Return what a command answers; raises AssertionError for one that fails."""
        number = next(self.numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)
        raise AssertionError("the browser ended")

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.read, 2**16)
                if not more:
                    return
                self.rest += more
            message, _, self.rest = self.rest.partition(b"\0")
            yield json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(str(told["args"]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(str(told["entry"]["text"]))

    def open(self, page: Path, *, width: int = 1280, dark: bool = False, media: str = "screen", scripts: bool = True) -> None:
        """Show a page in a window as wide, in light or in dark, on a screen or on paper, with or without its scripts."""
        self.said.clear()
        self.asked.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=page.absolute().as_uri())
        for event in self._messages():
            self._note(event)
            if event.get("method") == "Page.loadEventFired":
                return

    def tell(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def photograph(self, path: Path, *, grey: bool = False) -> None:
        """Save a picture of the whole page."""
        self.call("Emulation.setEmulatedVisionDeficiency", type="achromatopsia" if grey else "none")
        shown = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shown["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a Chromium whose own files are in a folder, and end it."""
    assert CHROMIUM
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    command = f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, CHROMIUM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(from_us)
    os.close(to_us)
    try:
        yield Browser(process, to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_browser)
        os.close(from_browser)
