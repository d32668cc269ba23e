"""What the pages of the documentation show, and how it is run: in the order of the page, in one folder."""

import doctest
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pqlog
from tests.cli.conftest import ENVIRONMENT

ROOT = Path(pqlog.__file__).parent.parent
CLUSTER = "kafka://localhost:9092/"
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


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The blocks of a page that are not Python sessions, without those that install something or take long."""
    for kind, text in BLOCK.findall(page.read_text()):
        if FILE.match(text):
            yield "file", text
            continue
        lines = [line for line in text.splitlines() if not NOT_RUN.match(line)]
        if ">>>" not in text and lines:
            yield kind, "\n".join(lines)


def file(page: str, name: str) -> str:
    """A block of a page that is not run but written to a file."""
    texts = [text for kind, text in blocks(ROOT / "docs" / page) if kind == "file"]
    (text,) = [text for text in texts if text.startswith(f"# {name}\n")]
    return text


MADE_UP = ["cluster-security.md"]
"""Its brokers and passwords are; tests/cluster/test_security.py has others."""
_ALL = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in MADE_UP)]
ON_A_CLUSTER = [page for page in _ALL if any(CLUSTER in text for _, text in blocks(page))]
"""Those that need one: they run with ``--cluster``."""
PAGES = [page for page in _ALL if page not in ON_A_CLUSTER and list(blocks(page))]


def run(page: Path, folder: Path, before: str = "", change: Callable[[str], str] = str) -> None:
    """Run what a page shows; `before` is run before each Python block, which `change` may change."""

    def call(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"

    if ">>>" in page.read_text():
        call(sys.executable, "-W", "error", "-c", SESSION, str(page))
    for kind, run_of in itertools.groupby(blocks(page), key=lambda block: block[0]):
        texts = [change(text) for _, text in run_of]
        text = "\n".join(texts)
        if kind == "file":
            for one in texts:
                (folder / FILE.match(one)[1]).write_text(one)
        elif kind == "sh":
            call("bash", "-eo", "pipefail", "-c", text)
        else:
            call(sys.executable, "-c", before + text)
