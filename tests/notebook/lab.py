"""A JupyterLab of the tests' own, and a browser to look at it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip

# The kernel itself must have answered: a page that only looks idle sometimes loses input.
KERNEL_IS_READY = """async () => {
    const widget = window.jupyterapp.shell.currentWidget;
    await widget.context.ready;
    await widget.sessionContext.ready;
    await widget.sessionContext.session.kernel.info;
}"""


class Lab:
    """A server in a folder of its own, which reads and writes none of the user's files."""

    def __init__(self, folder: Path, theme: str = "JupyterLab Light") -> None:
        self.root = folder / "work"
        self.root.mkdir(parents=True)
        environment = dict(os.environ)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            environment[name] = str(folder / name.lower())
        environment["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        news = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(news))
        (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={self.port}",
                "--allow-root", "--IdentityProvider.token=", "--ServerApp.password=",
                "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={self.root}",
            ],
            env=environment, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((folder / "server.log").read_text()) from None
                time.sleep(0.1)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


class Page:
    """A notebook in the browser, and everything that went wrong in it."""

    def __init__(self, context, lab: Lab, notebook: str) -> None:
        self.wrong: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self._host = f"127.0.0.1:{lab.port}"
        self._open(f"http://{self._host}/lab/tree/{notebook}?reset")

    def _dialog(self, dialog) -> None:
        if dialog.type == "beforeunload":  # of a notebook that was not saved
            dialog.accept()
        else:
            self.wrong.append(f"dialog: {dialog.message}")
            dialog.dismiss()

    def _request(self, request) -> None:
        if request.url.startswith(("http://", "https://", "ws://", "wss://")) and self._host not in request.url:
            self.wrong.append(f"request to {request.url}")

    def _open(self, url: str) -> None:
        self.page.goto(url)
        self._ready()

    def _ready(self) -> None:
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.wait_for_function(
            "() => window.jupyterapp && window.jupyterapp.commands.hasCommand('notebook:run-all-cells')"
        )
        self.page.evaluate(KERNEL_IS_READY)

    def reload(self) -> None:
        """Save it, and reload the page as a user would; the kernel keeps running."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.reload()
        self._ready()

    def run_all(self) -> None:
        """All cells, one after the other."""
        done = self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        assert done, self.page.locator(".jp-OutputArea-output").all_inner_texts()
        stderr = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
        assert stderr.count() == 0, stderr.all_inner_texts()

    @property
    def explorer(self):
        """The explorer's part of the page."""
        return self.page.locator(".pqlog-explorer").first
