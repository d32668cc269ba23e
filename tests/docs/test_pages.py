"""Every block of the pages that can run is run: Python and shell sessions, in the order of the page."""

import doctest
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pqlog
from tests.cli.conftest import ENVIRONMENT

ROOT = Path(pqlog.__file__).parent.parent
NOT_RUN = re.compile(r"git clone|cd |pip install|pqlog demo|make ")
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# (\w+\.py)\n")  # the first line of a block that is not run but written to that file

# Sessions (>>>) run here, so that the shell finds the files that they leave; pytest runs those of other pages.
SESSION = f"""
import doctest, sys
done = doctest.testfile(sys.argv[1], module_relative=False,
                        optionflags={doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL})
sys.exit(done.failed)
"""

BEFORE = {
    "frames.md": """
import pqlog
with pqlog.open("events.db") as log:
    log.put_many({"city": "Brno", "amount": n} for n in range(1_000))
""",
    "migrating.md": """
import apsw, pickle, sqlite3, pqlog
old = apsw.Connection("old.db")
old.execute("CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
old.execute("CREATE TABLE clients (client_id TEXT PRIMARY KEY, acknowledged INTEGER)")
old.execute("INSERT INTO log (data) VALUES (?)", (pickle.dumps(1),))
old.close()
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE events (id INTEGER, city TEXT)")
open("events.ndjson", "w").write('{"n": 1}\\n')
log = pqlog.open("log.db")
""",
}


def blocks(page):
    """The blocks of a page that are not Python sessions, without those that install something or take long."""
    for kind, text in BLOCK.findall(page.read_text()):
        if FILE.match(text):
            yield "file", text
            continue
        lines = [line for line in text.splitlines() if not NOT_RUN.match(line)]
        if ">>>" not in text and lines:
            yield kind, "\n".join(lines)


PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if list(blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page, tmp_path):
    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout

    if ">>>" in page.read_text():
        run(sys.executable, "-W", "error", "-c", SESSION, str(page))
    before = BEFORE.get(page.name, "")
    for kind, run_of in itertools.groupby(blocks(page), key=lambda block: block[0]):
        texts = [text for _, text in run_of]
        text = "\n".join(texts)
        if kind == "file":
            for one in texts:
                (tmp_path / FILE.match(one)[1]).write_text(one)
        elif kind == "sh":
            run("bash", "-eo", "pipefail", "-c", text)
        else:
            run(sys.executable, "-c", before + text)


def test_pages_are_found():
    assert {page.name for page in PAGES} >= {"command-line.md", "frames.md", "migrating.md", "operating.md", "tour.md"}
