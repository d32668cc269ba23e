"""`pqlog explore` opens a real JupyterLab on a notebook that runs."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import ENVIRONMENT
from tests.processes import wait_until

nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
pytest.importorskip("jupyterlab")
pytestmark = pytest.mark.slow

OURS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")


def test_jupyterlab_opens_the_notebook_and_it_runs(folder, tmp_path_factory):
    environment = {**ENVIRONMENT, **{name: str(tmp_path_factory.mktemp(name.lower())) for name in OURS}}
    browser = folder / "browser"  # instead of a browser: notes what it is asked to open
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened.partial\nmv {folder}/opened.partial {folder}/opened\n')
    browser.chmod(0o755)
    environment["BROWSER"] = f"{browser} %s"
    command = [sys.executable, "-m", "pqlog", "explore", "events.db", "--", "--allow-root", "--port=0"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: (folder / "opened").exists() or process.poll() is not None)
        assert (folder / "opened").exists(), (folder / "server.log").read_text()
        page = Path((folder / "opened").read_text().strip().removeprefix("file://")).read_text()
        url = re.search(r'url=(http://[^"]+)"', page)[1]
        assert "/lab/tree/events-explore.ipynb" in url
        contents = url.replace("/lab/tree/", "/api/contents/")
        with urllib.request.urlopen(contents, timeout=60) as answer:
            assert json.load(answer)["type"] == "notebook"
    finally:
        process.terminate()
        process.wait(60)

    path = folder / "events-explore.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # it contains the absolute path of the file
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(elsewhere)}}).execute()
    assert "Graz" in str(notebook.cells[-1].outputs)
    assert "application/vnd.jupyter.widget-view+json" in str(notebook.cells[-2].outputs)


def test_a_notebook_that_exists_is_left_as_it_is(folder):
    (folder / "mine.ipynb").write_text("my work")
    command = [sys.executable, "-m", "pqlog", "explore", "events.db", "--notebook", "mine.ipynb", "--", "--version"]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, timeout=120)
    assert (folder / "mine.ipynb").read_text() == "my work"
    assert not (folder / "events-explore.ipynb").exists()
