"""A headless Chromium, spoken to over its own protocol: the system's browser, no driver, nothing fetched."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--mute-audio", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage",
]  # fmt: skip


class Browser:
    """One page in one browser. A context manager."""

    def __init__(self, folder: Path, *flags: str) -> None:
        binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if binary is None:
            pytest.skip("no Chromium on this machine")
        self._folder, self._count, self.events = folder, itertools.count(1), []
        self._process = subprocess.Popen(
            [binary, *FLAGS, *flags, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )

    def __enter__(self) -> Browser:
        try:
            port = self._port()
            with urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                targets = json.load(answer)
            place = next(item["webSocketDebuggerUrl"] for item in targets if item["type"] == "page")
            self._socket = connect(place, max_size=None, proxy=None)
            for name in ("Page", "Runtime", "Network", "Log"):
                self(f"{name}.enable")
        except BaseException:
            self._process.kill()
            raise
        return self

    def _port(self) -> str:
        file, until = self._folder / "DevToolsActivePort", time.monotonic() + 30
        while not (file.is_file() and file.read_text()):
            assert self._process.poll() is None, "the browser ended"
            assert time.monotonic() < until, "the browser does not start"
            time.sleep(0.05)
        return file.read_text().split()[0]

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)

    def __call__(self, method: str, **values: Any) -> dict[str, Any]:
        """One command of the protocol; events that come meanwhile are kept."""
        number = next(self._count)
        self._socket.send(json.dumps({"id": number, "method": method, "params": values}))
        while True:
            said = json.loads(self._socket.recv(timeout=60))
            if said.get("id") == number:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]
            self.events.append(said)

    def js(self, code: str) -> Any:
        """The value of an expression in the page."""
        told = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, code: str, seconds: float = 30) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.js(code)):
            assert time.monotonic() < end, (
                f"never true: {code}\n{self.problems()}\n{self.js('document.body.innerText')}"
            )
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        """Go to the page and wait until it can read (or says that it cannot)."""
        self("Page.navigate", url=address)
        self.until("document.documentElement?.dataset.ready", 60)

    def give(self, *files: Path) -> None:
        """Choose files, as the button does."""
        document = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=document, selector="#files")["nodeId"]
        self("DOM.setFileInputFiles", files=[str(path) for path in files], nodeId=node)

    def drop(self, *files: Path) -> None:
        """Drop files on the stage."""
        data = {"items": [], "files": [str(path) for path in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    def look(self, width: int, height: int, dark: bool = False, still: bool = False, touch: bool = False) -> None:
        """The size of the window and what the user prefers."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        more = {"text": "\r"} if key == "Enter" else {}
        self("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **more)
        self("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot as PNG."""
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def problems(self) -> list[str]:
        """What the page threw or the browser complained of."""
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"].get("exception", {}).get("description", "exception"))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
            if event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
                found.append(str(event["params"]["args"]))
        return found

    def addresses(self) -> list[tuple[str, str]]:
        """Every request so far: (method, address)."""
        sent = [event["params"]["request"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [(request["method"], request["url"]) for request in sent]
