"""A headless Chromium, spoken to over a pipe in its own protocol: nothing else is needed.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 30.0


def find_chromium():
    """Path of a Chromium, or None: ``APPARATE_CHROMIUM`` or one of the usual names."""
    named = os.environ.get("APPARATE_CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser. What it complained about is in ``complaints``."""

    def __init__(self, process):
        self._process = process
        self._buffer = b""
        self._sent = 0
        self._session = None
        self.complaints = []
        made = self.call("Target.createTarget", url="about:blank")
        attached = self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Send a command and wait for its result."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            got = self._receive(deadline)
            if got.get("id") == self._sent:
                assert "error" not in got, (method, got["error"])
                return got["result"]
            self._note(got)

    def _receive(self, deadline):
        out = self._process.stdout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(out.fileno(), 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"]["exception"]["description"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(str([a.get("value") for a in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                entry = params["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def see(self, width=1280, height=900, scheme="light", scale=1):
        """Set the size of the window and whether the system is dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=False)  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url):
        """Go to a page; it need not be complete yet."""
        self.call("Page.navigate", url=url)

    def js(self, expression):
        """The value of an expression, or of what it promises."""
        got = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in got, (expression, got["exceptionDetails"])
        return got["result"].get("value")

    def wait(self, expression, timeout_s=15.0):
        """Wait until an expression is true, and give its value."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(AssertionError):  # the page may be on its way
                if value := self.js(expression):
                    return value
            assert time.monotonic() < deadline, f"never: {expression}"
            self.js("new Promise(done => setTimeout(done, 30))")

    def picture(self, path):
        """The whole page as a PNG."""
        got = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(got["data"]))


@contextlib.contextmanager
def browsing(chromium):
    """A browser that ends with this block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # which root cannot have
        ]
        # it reads commands from descriptor 3 and writes to 4
        shell = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
        with subprocess.Popen(
            ["/bin/sh", "-c", shell, chromium, *flags, "about:blank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            try:
                yield Browser(process)
            finally:
                process.terminate()
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                process.wait(20)
