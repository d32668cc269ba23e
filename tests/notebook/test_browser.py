"""The explorer in a real JupyterLab in a real browser, used as a person would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pqlog
from tests.notebook.lab import BROWSERS, CHROMIUM, Lab, Page

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")
pytestmark = [pytest.mark.slow, pytest.mark.needs(*BROWSERS)]

ROOT = Path(pqlog.__file__).parent.parent
PICTURES = Path(os.environ.get("PQLOG_SCREENSHOTS", ROOT / "build" / "screenshots"))

NOTEBOOK = """
import pqlog
log = pqlog.open({path!r})
explorer = log.explore()
explorer
"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS))), args=list(CHROMIUM)
        )
        yield found
        found.close()


@pytest.fixture(scope="module", params=["JupyterLab Light", "JupyterLab Dark"], ids=["light", "dark"])
def lab(request, tmp_path_factory):
    PICTURES.mkdir(parents=True, exist_ok=True)
    found = Lab(tmp_path_factory.mktemp("lab"), request.param)
    found.name = request.param.split()[1].lower()
    yield found
    found.close()


def notebook(lab, name, *cells):
    import nbformat

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    nbformat.write(made, lab.root / name)
    return name


@pytest.fixture
def context(browser):
    with browser.new_context(viewport={"width": 1200, "height": 1600}) as context:
        yield context


# Colours are checked by the tests that run in both themes; what a user does is the same in each.
in_one_theme = pytest.mark.parametrize("lab", ["JupyterLab Light"], indirect=True, ids=["light"])


@in_one_theme
def test_page_search_narrow_seek_tail_and_reload(lab, context, tmp_path):
    path = tmp_path / "events.db"
    with pqlog.open(path) as log:
        for n in range(0, 1000, 100):
            log.put_many([{"n": i, "city": f"city {i % 7}", "note": "x" * 200} for i in range(n, n + 100)])
        log.put({"n": 1000, "note": "<script>alert('no')</script>\"><img src=x onerror=alert('no')>"})
        for value in log.get("billing"):
            if value["n"] == 400:
                break
    page = Page(context, lab, notebook(lab, "explore.ipynb", NOTEBOOK.format(path=str(path)), "log"))
    page.run_all()
    ex = page.explorer
    ex.get_by_text("page 1 of 51, 1,001 messages").wait_for()
    assert ex.locator("svg rect").count() == 60
    ex.screenshot(path=PICTURES / f"explorer-{lab.name}.png")

    ex.get_by_role("button", name="Next").click()
    ex.get_by_text("page 2 of 51").wait_for()
    ex.locator("table").first.get_by_text("city 5").first.wait_for()
    ex.get_by_role("button", name="Last").click()
    ex.get_by_text("page 51 of 51").wait_for()
    ex.locator("summary", has_text="<script>alert('no')").wait_for()  # as text, and no dialog came
    assert page.page.locator(".pqlog-explorer script, .pqlog-explorer img").count() == 0

    ex.get_by_placeholder("text, or field = value").fill("n = 123")
    ex.get_by_role("button", name=re.compile(r"Search$")).click()
    ex.get_by_text("1 found in 1,001 of 1,001 messages").wait_for()
    ex.locator("details summary").first.click()
    ex.locator("details[open] pre").get_by_text("x" * 200).wait_for()
    ex.get_by_role("button", name="Code for this selection").click()
    ex.get_by_text("frame = log.history().to_pandas()").wait_for()
    ex.screenshot(path=PICTURES / f"search-{lab.name}.png")
    ex.get_by_role("button", name="Clear").click()
    ex.get_by_text("page 1 of 51, 1,001 messages").wait_for()

    handle = ex.locator(".noUi-handle-upper")  # the range slider
    handle.focus()
    for _ in range(30):
        handle.press("ArrowLeft")
    ex.locator("svg rect.off").first.wait_for(state="attached")
    ex.get_by_text(re.compile(r"page 1 of (?!51\b)\d+")).wait_for()

    ex.get_by_placeholder("offset, time").fill("10")
    ex.get_by_role("button", name="Seek").click()
    ex.get_by_text("391 messages will be redelivered").wait_for()
    ex.screenshot(path=PICTURES / f"seek-{lab.name}.png")
    with pqlog.open(path, readonly=True) as log:
        assert log.client("billing").position == 401  # nothing moved yet
    ex.get_by_role("button", name="Move it").click()
    ex.get_by_text("391 messages will be redelivered").wait_for(state="hidden")
    with pqlog.open(path, readonly=True) as log:
        assert log.client("billing").position == 10

    ex.get_by_placeholder("offset, time").fill("nonsense")
    ex.get_by_role("button", name="Seek").click()
    ex.get_by_text("ArgumentError").wait_for()  # in the widget

    for _ in range(30):
        handle.press("ArrowRight")
    ex.get_by_text("1,001 messages", exact=False).first.wait_for()
    ex.locator(".widget-play button").first.click()
    other = "import sys, pqlog\nwith pqlog.open(sys.argv[1]) as log: log.put({'n': 1001, 'city': 'a new one'})"
    subprocess.run([sys.executable, "-c", other, str(path)], check=True)
    ex.locator("table").first.get_by_text("a new one").wait_for()
    ex.locator(".widget-play button").first.click()

    page.reload()
    ex = page.explorer
    ex.get_by_role("button", name="First").click()
    ex.get_by_text("page 1 of 51, 1,002 messages").wait_for()
    assert page.wrong == []


def test_narrow_page_has_no_overflow(lab, browser, tmp_path):
    path = tmp_path / "events.db"
    with pqlog.open(path) as log:
        log.put_many({"n": n, "city": "Brno", "text": "word " * 30} for n in range(100))
        log.client("a client with a rather long name").seek(to=50)
    with browser.new_context(viewport={"width": 900, "height": 1400}) as context:
        page = Page(context, lab, notebook(lab, "narrow.ipynb", NOTEBOOK.format(path=str(path))))
        page.run_all()
        ex = page.explorer
        ex.get_by_text("page 1 of 5").wait_for()
        ex.screenshot(path=PICTURES / f"narrow-{lab.name}.png")
        wide = ex.evaluate("""element => [...element.querySelectorAll('.widget-hbox, .widget-html, .pqlog')]
            .filter(part => part.getBoundingClientRect().right > element.getBoundingClientRect().right + 1)
            .map(part => part.className)""")
        assert wide == []
        assert page.wrong == []


@in_one_theme
def test_an_empty_log_and_a_broken_one(lab, context, tmp_path):
    path = tmp_path / "events.db"
    cells = [
        NOTEBOOK.format(path=str(path)),
        "log",
        "log.close()",
        "explorer._reload()\nlog",
    ]
    page = Page(context, lab, notebook(lab, "empty.ipynb", *cells))
    page.run_all()
    ex = page.explorer
    ex.get_by_text("ClosedError").wait_for()
    ex.get_by_text("No messages yet.").wait_for()
    ex.screenshot(path=PICTURES / f"empty-{lab.name}.png")
    assert page.wrong == []


def test_the_notebook_of_the_explorer_and_all_views(lab, context, tmp_path):
    text = (ROOT / "notebooks" / "explorer.ipynb").read_text()
    (lab.root / "explorer.ipynb").write_text(text)
    page = Page(context, lab, "explorer.ipynb")
    page.run_all()
    page.explorer.get_by_text("found in 8,001 of 8,001 messages").wait_for()
    assert page.wrong == []
    cells = [
        "import pqlog\nlog = pqlog.open(':memory:')\nlog.put_many([{'n': n, 'city': 'Brno'} for n in range(500)])",
        "log.topic('other', codec='bytes').put(b'<b>bold</b>')\nlist(log.get('c'))[:2]\nlog",
        "log.clients()",
        "log[100:200]",
        "log[7]",
        "batch = next(log.batches('etl', size=100))\nbatch",
        "log.topic('other')",
        "%load_ext pqlog\n%pqlog nowhere.db",
    ]
    page = Page(context, lab, notebook(lab, "views.ipynb", *cells))
    page.run_all()
    assert page.page.locator(".pqlog").count() >= 6
    page.page.get_by_text("does not exist").first.wait_for()
    page.page.locator(".jp-Notebook").first.screenshot(path=PICTURES / f"views-{lab.name}.png")
    assert page.wrong == []
