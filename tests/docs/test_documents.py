"""What the documents say of the project is so."""

import json
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pqlog
from pqlog.cli.commands import EXAMPLES

ROOT = Path(pqlog.__file__).parent.parent


def test_notebooks_are_committed_without_outputs():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path


def test_the_make_targets_of_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"make ([a-z-]+)", (ROOT / name).read_text()):
            assert target in targets, f"{name}: make {target}"


# Made by `make docs`, where a link that leads nowhere is an error too.
GENERATED = {ROOT / "docs" / "reference" / "commands.md"}


def test_links_between_documents_lead_somewhere():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in link:
                to = (path.parent / link).resolve()
                assert to in GENERATED or to.exists(), f"{path.name}: {link}"


def test_the_changelog_names_the_version():
    assert f"## {pqlog.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_command_is_in_the_page_of_the_command_line():
    text = (ROOT / "docs" / "command-line.md").read_text()
    for name in EXAMPLES:
        assert f"pqlog {name}" in text, name


def test_the_words_that_users_search_for_are_in_the_glossary():
    terms = re.findall(r"^(\S.*)$", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    words = [
        "retry",
        "dead letter",
        "backoff",
        "schema",
        "upsert",
        "metrics",
        "consumer group",
        "exactly once",
        "Kafka",
    ]
    assert set(words) <= set(terms)


WORKED_EXAMPLE = """
import sys
import pqlog.cli.commands
from pqlog.cli import app, keeping
exec(sys.argv[1], vars(keeping))
sys.argv[1:] = sys.argv[2:]
app.app(prog_name="pqlog")
"""


def test_the_worked_example_of_contributing_is_complete(tmp_path):
    """Its command, added to the commands that exist, passes its test."""
    test, command = re.findall(r"^ +```python\n(.*?)^ +```$", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    with pqlog.open(tmp_path / "events.db") as log:
        log.put_many(range(6))
        for value in log.get("billing"):
            if value == 2:
                break

    def sh(line, code=0):
        arguments = [textwrap.dedent(command), *shlex.split(line)[1:]]
        done = subprocess.run(
            [sys.executable, "-c", WORKED_EXAMPLE, *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    found = {}
    exec(textwrap.dedent(test), found)
    (run,) = (function for name, function in found.items() if name.startswith("test_"))
    run(sh)


def test_every_room_of_the_package_is_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "pqlog").iterdir():
        if path.name not in ("__init__.py", "__pycache__", "py.typed"):
            assert path.name in text, path.name


def test_the_rooms_of_the_picture_are_there():
    text = (ROOT / "docs" / "pictures" / "architecture.svg").read_text()
    rooms = re.findall(r">([a-z/]+(?:/|\.py))</text>", text)
    assert len(rooms) > 15
    for room in rooms:
        assert (ROOT / "pqlog" / room).exists(), room


def test_every_public_name_is_in_the_reference():
    api = (ROOT / "docs" / "reference" / "api.md").read_text()
    for name in pqlog.__all__:
        thing = getattr(pqlog, name)
        is_error = isinstance(thing, type) and issubclass(thing, Exception)
        if not is_error and name != "load_ipython_extension":
            assert re.search(rf"^   {name}$", api, re.M), name
