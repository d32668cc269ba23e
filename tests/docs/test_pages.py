"""Every block of the pages that can run is run: Python and shell sessions, in the order of the page."""

import pytest

from tests.docs import pages

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


@pytest.mark.slow
@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page, tmp_path):
    pages.run(page, tmp_path, BEFORE.get(page.name, ""))


def test_pages_are_found():
    found = {page.name for page in pages.PAGES}
    assert found >= {"command-line.md", "frames.md", "migrating.md", "operating.md", "tour.md"}
    assert {page.name for page in pages.ON_A_CLUSTER} == {"beyond-one-machine.md"}
