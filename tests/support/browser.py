"""Chromium without a window, spoken to over two pipes (the DevTools protocol): no port, no driver, no network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Any, Final, cast, final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["Browser", "browsers", "opened"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_Message = dict[str, Any]
# The browser reads descriptor 3 and writes 4: ours are put there, whatever they are here.
_PLACED: Final = (
    "import fcntl, os, sys; "
    "a, b = (fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]); "
    "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def browsers() -> list[str]:
    """Those that are installed here, by their paths: one at most."""
    found = [path for path in map(shutil.which, _NAMES) if path]
    return found[:1]


@contextlib.contextmanager
def opened(path: str) -> Generator[Browser]:
    """A browser, which is gone afterwards."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        there, ours = os.pipe()
        back, theirs = os.pipe()
        to = stack.enter_context(os.fdopen(ours, "wb", buffering=0))
        come = stack.enter_context(os.fdopen(back, "rb"))
        process = subprocess.Popen(
            [sys.executable, "-Ic", _PLACED, str(there), str(theirs), path, *_FLAGS, f"--user-data-dir={home}"],
            pass_fds=(there, theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
        )
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        os.close(there)
        os.close(theirs)
        yield Browser(to, come)


@final
class Browser:
    """One page of a browser. What happens while one waits for an answer is kept in ``events``."""

    def __init__(self, to: IO[bytes], come: IO[bytes]) -> None:
        self._to = to
        self._from = come
        self._number = 0
        self._session: str | None = None
        self.events: list[_Message] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> _Message:
        """The answer to a command."""
        self._number += 1
        message: _Message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") == self._number:
                assert "error" not in said, (method, said)
                return cast("_Message", said["result"])
            self.events.append(said)

    def open(self, page: Path, *, width: int, scheme: str = "light", media: str = "") -> None:
        """Show a file, on a screen of ``width`` px, and wait until it is there."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in [event.get("method") for event in self.events]:
            self.events.append(self._read())

    def of(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page says
        """What JavaScript says of the page. The page itself has none."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)

    def _read(self) -> _Message:
        said = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has gone"
            said += byte
        return cast("_Message", json.loads(said))
